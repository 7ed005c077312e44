"""A product that reads a flattened image reads the image itself."""

from __future__ import annotations

import math

import numpy as np

from sepconv.onnx.ir import Graph, Node
from sepconv.onnx.ops.registry import MAX_RANK
from sepconv.onnx.passes.rewrite import Uses, float32_weight


def run(graph: Graph) -> str:
    uses = Uses(graph)
    count = 0
    for node in graph.nodes:
        if not node.is_op("Gemm", "MatMul") or node.attribute("transA", 0) or float32_weight(graph, node) is None:
            continue
        before = uses.producer(node.inputs[0], "Flatten", "Reshape")
        if before is None or not _flattens(graph, before):
            continue
        node.inputs[0] = before.inputs[0]
        node.flatten = True
        node.origin = (*before.origin, *node.origin)
        count += 1
    return f"{count} product(s) read images" if count else ""


def _flattens(graph: Graph, node: Node) -> bool:
    """Whether [n, ...] becomes [n, all else]."""
    dtype, shape = graph.info(node.inputs[0]).dtype, graph.info(node.inputs[0]).shape
    if dtype != np.float32 or shape is None or not 3 <= len(shape) <= MAX_RANK:
        return False
    if node.op == "Flatten":
        return node.attribute("axis", 1) in (1, 1 - len(shape))
    target = graph.constant(node.input(1))
    if target is None or target.size != 2 or node.attribute("allowzero", 0):
        return False
    rows, columns = (int(size) for size in target.reshape(-1))
    rest = shape[1:]
    whole = (
        math.prod(dim for dim in rest if isinstance(dim, int)) if all(isinstance(dim, int) for dim in rest) else None
    )
    keeps = rows == 0 or (isinstance(shape[0], int) and rows == shape[0])
    return (keeps and columns in (-1, whole)) or (rows == -1 and whole is not None and columns == whole)
