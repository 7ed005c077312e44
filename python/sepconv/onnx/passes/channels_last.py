"""What lies between a Transpose to NHWC and one back runs on NCHW: products as 1×1 convolutions, norms over channels.

So exporters write what torch computes with its channels last: ConvNeXt's blocks, LayerNorm2d.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from sepconv.onnx.ir import OWN_DOMAIN, Array, Graph, Info, Node

_TO_LAST, _TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_BINARY = ("Add", "Sub", "Mul", "Div")
# Of each element by itself, further inputs being numbers.
_UNARY = (
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Gelu", "Elu", "Selu", "Celu", "Softplus",
    "Mish", "Erf", "Exp", "Sqrt", "Abs", "Neg", "Clip",
)  # fmt: skip


@dataclass(eq=False)
class _Part:
    """Nodes that hang together by values in NHWC, and how many Transposes back it has."""

    values: set[str] = field(default_factory=set)
    ends: int = 0


def run(graph: Graph) -> str:
    turned: dict[str, str] = {}  # the name in NCHW of a value in NHWC
    parts: dict[str, _Part] = {}  # of each such value
    made: dict[int, Node] = {}  # in place of a node
    ends: dict[int, Node] = {}  # in place of a Transpose back
    constants: dict[tuple[str, str], str] = {}  # the names of constants in NCHW, and of weights as kernels
    for node in graph.nodes:
        if _transposes(graph, node, _TO_LAST):
            turned[node.outputs[0]] = node.inputs[0]
            parts[node.outputs[0]] = _Part({node.outputs[0]})
        elif _transposes(graph, node, _TO_FIRST) and node.inputs[0] in turned:
            ends[id(node)] = replace(node, op="Identity", inputs=[turned[node.inputs[0]]], attributes={}, proto=None)
            parts[node.inputs[0]].ends += 1
        elif (other := _in_nchw(graph, turned, constants, node)) is not None:
            made[id(node)] = other
            turned[node.outputs[0]] = other.outputs[0]
            _join(parts, node.outputs[0], [name for name in node.inputs if name in parts])
    stay = {*graph.outputs}  # values that are still read in NHWC
    for node in graph.nodes:
        stay.update(node.captures if id(node) in made or id(node) in ends else node.reads())
    written = {node.outputs[0] for node in graph.nodes if id(node) in made}
    # A part must lose as many Transposes as it gets.
    worth = {part for part in set(parts.values()) if part.ends and part.ends >= len(part.values & stay & written)}
    nodes: list[Node] = []
    count = 0
    for node in graph.nodes:
        if id(node) in ends:
            nodes.append(ends[id(node)] if parts[node.inputs[0]] in worth else node)
        elif id(node) in made and parts[node.outputs[0]] in worth:
            nodes.append(made[id(node)])
            nodes += [_back(graph, node, turned)] if node.outputs[0] in stay else []
            count += 1
        else:
            nodes.append(node)
    graph.nodes = nodes
    return f"{count} node(s) with channels last turned" if count else ""


def _back(graph: Graph, node: Node, turned: dict[str, str]) -> Node:
    result = node.outputs[0]
    name = graph.new_name(f"{result}/last")
    return Node("Transpose", [turned[result]], [result], {"perm": _TO_LAST}, name=name, opset=node.opset)


def _transposes(graph: Graph, node: Node, order: list[int]) -> bool:
    return (
        node.is_op("Transpose")
        and node.attribute("perm") == order
        and graph.info(node.inputs[0]).dtype == np.float32
        and len(graph.info(node.inputs[0]).shape or ()) == 4
    )


def _join(parts: dict[str, _Part], value: str, others: Iterable[str]) -> None:
    """One part of all of them, with one value more."""
    largest, *rest = sorted({parts[name] for name in others}, key=lambda part: -len(part.values))
    for part in rest:
        largest.values |= part.values
        largest.ends += part.ends
        parts.update(dict.fromkeys(part.values, largest))
    largest.values.add(value)
    parts[value] = largest


def _in_nchw(graph: Graph, turned: dict[str, str], constants: dict[tuple[str, str], str], node: Node) -> Node | None:
    """The node over NCHW, where it reads values that have been turned; its result has another name."""
    if not node.inputs or not node.outputs or any(node.outputs[1:]) or node.flatten or node.activation != "none":
        return None
    info = graph.info(node.outputs[0])
    if not any(name in turned for name in node.inputs):
        return None
    if info.dtype != np.float32 or len(info.shape or ()) != 4:
        return None
    result = graph.new_name(f"{node.outputs[0]}/first")
    graph.infos[result] = Info(info.dtype, tuple((info.shape or ())[i] for i in _TO_FIRST))
    x = turned.get(node.inputs[0], "")
    own = node.domain == OWN_DOMAIN and node.op == "Activation"
    if x and (own or node.is_op(*_UNARY)) and all(graph.scalar(name) is not None for name in node.inputs[1:] if name):
        return replace(node, inputs=[x, *node.inputs[1:]], outputs=[result], proto=None)
    if node.is_op(*_BINARY):
        return _binary(graph, turned, constants, node, result)
    arrays = [graph.constant(name) for name in node.inputs[1:] if name]
    if not x or any(array is None or array.dtype != np.float32 for array in arrays):
        return None
    if node.is_op("LayerNormalization") and node.attribute("axis", -1) in (-1, 3):
        channels = (info.shape or ())[3]
        if all(array is not None and array.shape == (channels,) for array in arrays):
            attributes = {"epsilon": float(node.attribute("epsilon", 1e-5))}
            return replace(
                node, op="LayerNorm", domain=OWN_DOMAIN, inputs=[x, *node.inputs[1:]], outputs=[result],
                attributes=attributes, proto=None,
            )  # fmt: skip
    weight = graph.constant(node.inputs[1]) if node.is_op("MatMul") else None
    if weight is not None and weight.ndim == 2:
        name = _constant(graph, constants, node.inputs[1], "kernel", weight.T[:, :, np.newaxis, np.newaxis])
        return replace(node, op="Conv", inputs=[x, name], outputs=[result], attributes={}, proto=None)
    return None


def _binary(
    graph: Graph, turned: dict[str, str], constants: dict[tuple[str, str], str], node: Node, result: str
) -> Node | None:
    """Of two turned values, or one and a constant."""
    inputs = []
    for name in node.inputs:
        array = graph.constant(name)
        if name in turned:
            inputs.append(turned[name])
        elif array is not None and array.ndim <= 4:
            inputs.append(_constant(graph, constants, name, "first", _first(array)))
        else:
            return None
    return replace(node, inputs=inputs, outputs=[result], proto=None)


def _constant(graph: Graph, constants: dict[tuple[str, str], str], name: str, kind: str, view: Array) -> str:
    """A constant's view of this kind, made once: many nodes may share a constant."""
    if (name, kind) not in constants:
        constants[name, kind] = graph.add_constant(f"{name}/{kind}", view)
    return constants[name, kind]


def _first(array: Array) -> Array:
    """A constant that broadcasts to NHWC, as it broadcasts to NCHW."""
    return array if array.ndim == 0 else array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(_TO_FIRST)
