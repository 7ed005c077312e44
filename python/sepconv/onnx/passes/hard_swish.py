"""Activations that exporters write as several nodes: hard-sigmoid, hard-swish, SiLU, Mish, ReLU6."""

from __future__ import annotations

import math

import numpy as np

from sepconv.onnx.ir import OWN_DOMAIN, Graph, Node
from sepconv.onnx.passes import dead_code
from sepconv.onnx.passes.rewrite import Uses, is_near, value_and_number


def run(graph: Graph) -> str:
    found: dict[str, int] = {}
    for recognise in (_relu6, _hard_sigmoid, _gated, _divided_hard_swish):
        uses = Uses(graph)
        for index, node in enumerate(graph.nodes):
            made = recognise(uses, node)
            if made is not None:
                uses.put(index, made)
                name = made.attribute("kind", made.op)
                found[name] = found.get(name, 0) + 1
    dead_code.run(graph)  # an activation can join a convolution that nothing else reads
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items()))


def _bounds(uses: Uses, node: Node) -> tuple[float, float] | None:
    """Of a Clip."""
    if node.opset < 11:
        return float(node.attribute("min", -math.inf)), float(node.attribute("max", math.inf))
    bounds = []
    for index, default in ((1, -math.inf), (2, math.inf)):
        bound = uses.graph.scalar(node.input(index)) if node.input(index) else default
        if bound is None:
            return None
        bounds.append(bound)
    return bounds[0], bounds[1]


def _relu6(uses: Uses, node: Node) -> Node | None:
    if not node.is_op("Clip") or uses.graph.info(node.inputs[0]).dtype != np.float32:
        return None
    match _bounds(uses, node):
        case (0.0, 6.0):
            if uses.without_term(node.inputs[0], 3.0) is not None:
                return None  # part of a hard-sigmoid
            return Node("Activation", node.inputs[:1], [], {"kind": "relu6"}, domain=OWN_DOMAIN)
        case (0.0, math.inf):
            return Node("Activation", node.inputs[:1], [], {"kind": "relu"}, domain=OWN_DOMAIN)
    return None


def _clipped(uses: Uses, value: str) -> str | None:
    """x of clip(x + 3, 0, 6)."""
    node = uses.producer(value, "Clip")
    if node is None or _bounds(uses, node) != (0.0, 6.0) or uses.graph.info(value).dtype != np.float32:
        return None
    return uses.without_term(node.inputs[0], 3.0)


def _sixth(uses: Uses, node: Node) -> str | None:
    """y of y / 6."""
    if not node.is_op("Div", "Mul"):
        return None
    pair = value_and_number(uses.graph, node)
    return pair[0] if pair is not None and is_near(pair[1], 6.0 if node.op == "Div" else 1 / 6) else None


def _hard_sigmoid(uses: Uses, node: Node) -> Node | None:
    value = _sixth(uses, node)
    x = None if value is None else _clipped(uses, value)
    return None if x is None else Node("Activation", [x], [], {"kind": "hard_sigmoid"}, domain=OWN_DOMAIN)


def _divided_hard_swish(uses: Uses, node: Node) -> Node | None:
    """x · clip(x + 3, 0, 6) / 6."""
    value = _sixth(uses, node)
    product = None if value is None else uses.producer(value, "Mul")
    if product is None:
        return None
    for x, gate in (product.inputs, product.inputs[::-1]):
        if _clipped(uses, gate) == x:
            return Node("HardSwish", [x], [])
    return None


def _gated(uses: Uses, node: Node) -> Node | None:
    """x times a function of x."""
    if not node.is_op("Mul") or uses.graph.info(node.outputs[0]).dtype != np.float32:
        return None
    for x, gate in (node.inputs, node.inputs[::-1]):
        before = uses.producers.get(gate)
        if before is None:
            continue
        if before.is_op("Sigmoid") and before.inputs[0] == x:
            return Node("Activation", [x], [], {"kind": "silu"}, domain=OWN_DOMAIN)
        if before.is_op("HardSigmoid") and before.inputs[0] == x and is_near(before.attribute("alpha", 0.2), 1 / 6):
            return Node("HardSwish", [x], []) if before.attribute("beta", 0.5) == 0.5 else None
        if before.domain == OWN_DOMAIN and before.attribute("kind") == "hard_sigmoid" and before.inputs[0] == x:
            return Node("HardSwish", [x], [])
        if before.is_op("Tanh"):
            soft = uses.producer(before.inputs[0], "Softplus")
            if soft is not None and soft.inputs[0] == x:
                return Node("Mish", [x], [])
    return None
