"""A product with a matrix of constants and a term for each of its columns are one node."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import Graph
from sepconv.onnx.ops.registry import MAX_RANK
from sepconv.onnx.passes.rewrite import Uses, add_term, constant_operand, float32_weight


def run(graph: Graph) -> str:
    uses = Uses(graph)
    dead: set[int] = set()
    for node in graph.nodes:
        operands = constant_operand(graph, node) if node.is_op("Add") else None
        if operands is None:
            continue
        value, term = operands
        before = uses.producer(value, "MatMul")
        if before is None or not uses.only_for(value):
            continue
        matrix, shape = float32_weight(graph, before), graph.info(value).shape
        if (
            graph.info(before.inputs[0]).dtype != np.float32
            or matrix is None
            or matrix.ndim != 2
            or term.dtype != np.float32
            or shape is None
            or not 2 <= len(shape) <= MAX_RANK
        ):
            continue
        # Along the last axis, and no axis more than the product has.
        if term.ndim < 1 or term.ndim > len(shape) or not term.shape[-1] == term.size == matrix.shape[1]:
            continue
        add_term(graph, before, term.reshape(-1))
        uses.merge(before, node)
        dead.add(id(node))
    graph.remove(dead)
    return f"{len(dead)} term(s) of products added by them" if dead else ""
