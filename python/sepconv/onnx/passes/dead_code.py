"""Nodes and constants that no output needs go."""

from __future__ import annotations

from sepconv.onnx.ir import Graph


def run(graph: Graph) -> str:
    count = remove_dead_code(graph)
    return f"{count} node(s) removed" if count else ""


def remove_dead_code(graph: Graph) -> int:
    """How many nodes went."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.reads())
    removed = len(graph.nodes) - len(kept)
    graph.nodes = kept[::-1]
    graph.constants = {name: array for name, array in graph.constants.items() if name in needed}
    return removed
