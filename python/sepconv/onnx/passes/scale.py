"""A constant factor or term for each channel behind a convolution or a product becomes part of its weights."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import Array, Graph, Node
from sepconv.onnx.lowering import per_channel
from sepconv.onnx.passes.rewrite import (
    Uses,
    constant_operand,
    factors_and_terms,
    float32_weight,
    output_channels,
    scale_weights,
)


def run(graph: Graph) -> str:
    uses = Uses(graph)
    dead: set[int] = set()
    for node in graph.nodes:
        operands = constant_operand(graph, node)
        if operands is None:
            continue
        value, array = operands
        before = uses.producer(value, "Conv", "ConvTranspose", "Gemm", "MatMul")
        if before is None or not uses.only_for(value) or array.dtype != np.float32:
            continue
        if before.op == "MatMul":
            if not _as_gemm(graph, before, node, array):
                continue
        elif not _fold(graph, before, node, array):
            continue
        uses.merge(before, node)
        dead.add(id(node))
    graph.remove(dead)
    return f"{len(dead)} factor(s) and term(s) a channel folded" if dead else ""


def _fold(graph: Graph, before: Node, node: Node, array: Array) -> bool:
    channels = output_channels(graph, before)
    weight = graph.constants.get(before.input(1))
    if channels is None or weight is None or not per_channel(array, (0, channels, *(0,) * (weight.ndim - 2))):
        return False
    found = factors_and_terms(node.op, np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,)))
    return found is not None and scale_weights(graph, before, *found)


def _as_gemm(graph: Graph, before: Node, node: Node, array: Array) -> bool:
    """A product of matrices and a term for each column are a Gemm."""
    weight = float32_weight(graph, before)
    rank = graph.info(before.inputs[0]).shape
    if node.op != "Add" or weight is None or weight.ndim != 2 or rank is None or len(rank) != 2:
        return False
    if array.shape not in ((weight.shape[1],), (1, weight.shape[1])):
        return False
    before.op, before.proto = "Gemm", None
    before.inputs = [*before.inputs, graph.add_constant(f"{before.outputs[0]}.bias", array.reshape(-1))]
    return True
