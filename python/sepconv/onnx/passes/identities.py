"""Nodes that change nothing go: Identity, Dropout outside training, a Cast to the type that is there, a factor of 1."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import Graph, Node
from sepconv.onnx.ops.elementwise import cast_target, trains


def run(graph: Graph) -> str:
    renamed: dict[str, str] = {}
    dead: set[int] = set()
    for node in graph.nodes:
        if node.outputs and node.outputs[0] not in graph.outputs and _changes_nothing(graph, node):
            renamed[node.outputs[0]] = renamed.get(node.inputs[0], node.inputs[0])
            dead.add(id(node))
    captured = {name for node in graph.nodes for name in node.captures}
    dead = {id(node) for node in graph.nodes if id(node) in dead and node.outputs[0] not in captured}
    graph.rename({old: new for old, new in renamed.items() if old not in captured})
    graph.remove(dead)
    return f"{len(dead)} node(s) that change nothing removed" if dead else ""


def _changes_nothing(graph: Graph, node: Node) -> bool:
    if any(node.outputs[1:]):
        return False
    if node.is_op("Identity"):
        return True
    if node.is_op("Dropout"):
        return not node.input(2) and not trains(node)
    if node.is_op("Cast"):
        target, dtype = cast_target(node), graph.info(node.inputs[0]).dtype
        return target is not None and dtype is not None and bool(target == dtype)
    if node.is_op("Mul", "Div", "Add", "Sub"):
        return _is_neutral(graph, node)
    if node.is_op("Transpose"):
        order = node.attribute("perm")
        return order is not None and order == list(range(len(order)))
    return False


def _is_neutral(graph: Graph, node: Node) -> bool:
    """Whether the second operand is one 1 (of a factor) or 0 (of a term)."""
    number = graph.scalar(node.inputs[1])
    if number is None or graph.info(node.inputs[0]).shape is None or graph.adds_axes(*node.inputs[:2]):
        return False
    if node.op in ("Mul", "Div"):
        return number == 1.0
    return number == 0.0 and bool(np.signbit(number)) == (node.op == "Add")  # -0 + 0 is 0, and -0 - -0
