"""Factors and terms a channel that nothing before took become part of the convolution behind them, or one node."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import Graph, Node
from sepconv.onnx.lowering import per_channel
from sepconv.onnx.ops.elementwise import batch_norm_factors, trains
from sepconv.onnx.passes.rewrite import Float64, Uses, are_plain, constant_operand, factors_and_terms, float32_weight

Affine = tuple[str, Float64, Float64]  # x, factors and terms of its channels


def run(graph: Graph) -> str:
    uses = Uses(graph)
    dead: set[int] = set()
    folded = joined = 0
    for index, node in enumerate(graph.nodes):
        if node.is_op("Conv"):
            steps, affine = _behind(uses, node.inputs[0])
            if affine is not None and _fold(graph, node, affine):
                dead.update(map(id, steps))
                folded += len(steps)
        elif (own := _affine(graph, node)) is not None:
            steps, affine = _behind(uses, own[0])
            if affine is not None and node.opset >= 7 and _joins(affine, own):
                uses.put(index, _batch_norm(graph, node.outputs[0], _after(affine, own)))
                dead.update(map(id, steps))
                joined += len(steps)
    graph.remove(dead)
    notes = [f"{n} factor(s) and term(s) {what}" for n, what in ((folded, "folded ahead"), (joined, "joined")) if n]
    return ", ".join(notes)


def _behind(uses: Uses, value: str) -> tuple[list[Node], Affine | None]:
    """The nodes that give a value to one reader alone, as far as they are affine, and what they compute together."""
    steps: list[Node] = []
    affine: Affine | None = None
    while uses.only_for(value):
        node = uses.producers.get(value)
        found = None if node is None else _affine(uses.graph, node)
        if node is None or found is None or not (affine is None or _joins(found, affine)):
            break
        steps.append(node)
        affine = found if affine is None else _after(found, affine)
        value = found[0]
    return steps, affine


def _joins(first: Affine, second: Affine) -> bool:
    """Whether two in sequence may be one."""
    both = _after(first, second)
    return all(are_plain(scale, shift) for _, scale, shift in (first, second, both))


def _after(first: Affine, second: Affine) -> Affine:
    return first[0], second[1] * first[1], second[1] * first[2] + second[2]


def _affine(graph: Graph, node: Node) -> Affine | None:
    """Of a float32 node over [n, c, ...] with one number for each channel."""
    shape = graph.info(node.outputs[0]).shape if node.outputs else None
    if shape is None or len(shape) < 3 or not isinstance(shape[1], int) or any(node.outputs[1:]):
        return None
    channels = shape[1]
    if node.is_op("BatchNormalization"):
        arrays = [graph.constant(name) for name in node.inputs[1:5]]
        if trains(node) or not node.attribute("spatial", 1):
            return None
        if any(a is None or a.dtype != np.float32 or a.shape != (channels,) for a in arrays):
            return None
        return node.inputs[0], *batch_norm_factors(node, *(np.asarray(a, np.float64) for a in arrays))
    operands = constant_operand(graph, node)
    if operands is None:
        return None
    value, array = operands
    sizes = (0, channels, *(0,) * (len(shape) - 2))
    if array.dtype != np.float32 or graph.info(value).shape != shape or not per_channel(array, sizes):
        return None
    both = factors_and_terms(node.op, np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,)))
    return None if both is None else (value, *both)


def _fold(graph: Graph, node: Node, affine: Affine) -> bool:
    """Into the weights of a convolution that meets no padding, which the terms would not reach. False: it cannot."""
    value, scale, shift = affine
    weight, groups = float32_weight(graph, node), int(node.attribute("group", 1))
    bias = graph.constant(node.input(2)) if node.input(2) else None
    if weight is None or weight.ndim < 3 or groups < 1 or weight.shape[0] % groups:
        return False
    if weight.shape[1] * groups != len(scale) or (node.input(2) and (bias is None or bias.shape != weight.shape[:1])):
        return False
    padded = any(node.attribute("pads") or ()) or node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if (padded and np.any(shift)) or not are_plain(scale, shift):
        return False
    ones = (1,) * (weight.ndim - 2)
    split = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
    terms = (split * shift.reshape(groups, 1, -1, *ones)).reshape(len(weight), -1).sum(axis=1)
    scaled = (split * scale.reshape(groups, 1, -1, *ones)).reshape(weight.shape)
    moved = terms if bias is None else terms + bias
    if not are_plain(scale, moved, scaled):
        return False
    named = (("weight", scaled), ("bias", moved))
    names = [graph.add_constant(f"{node.outputs[0]}.{key}", a.astype(np.float32)) for key, a in named]
    node.inputs = [value, *names]
    return True


def _batch_norm(graph: Graph, result: str, affine: Affine) -> Node:
    value, scale, shift = affine
    parts = {"scale": scale, "bias": shift, "mean": np.zeros(len(scale)), "variance": np.ones(len(scale))}
    names = [graph.add_constant(f"{result}.{key}", a.astype(np.float32)) for key, a in parts.items()]
    return Node("BatchNormalization", [value, *names], [result], {"epsilon": 0.0})
