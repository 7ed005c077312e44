"""Finds squeeze-and-excite blocks: x times a gate for each channel that is computed from the mean of x over space."""

from __future__ import annotations

from sepconv.onnx.ir import Graph, Node
from sepconv.onnx.passes.rewrite import Uses

MAX_GATE = 12  # nodes between the mean and the product


def run(graph: Graph) -> str:
    uses = Uses(graph)
    count = sum(1 for node in graph.nodes if node.is_op("Mul") and _is_excite(uses, node))
    return f"{count} block(s) found" if count else ""


def _is_excite(uses: Uses, node: Node) -> bool:
    return any(_leads_to_mean(uses, gate, x) for x, gate in (node.inputs, node.inputs[::-1]))


def _leads_to_mean(uses: Uses, gate: str, x: str) -> bool:
    shape = uses.graph.info(gate).shape
    if shape is None or len(shape) != 4 or shape[2:] != (1, 1):
        return False
    value = gate
    for _ in range(MAX_GATE):
        node = uses.producers.get(value)
        if node is None or not node.inputs:
            return False
        if node.is_op("GlobalAveragePool"):
            return node.inputs[0] == x
        value = node.inputs[0]
    return False
