"""What passes share: who reads what, factors and terms of channels, and weights that take them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sepconv.onnx.ir import OWN_DOMAIN, Array, Graph, Node
from sepconv.onnx.ops.elementwise import aligns_by_axis

Float64 = NDArray[np.float64]


class Uses:
    """Producers and numbers of readers, as they were when it was made."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.counts = graph.use_counts()

    def producer(self, value: str, *ops: str) -> Node | None:
        """The plain node of one of these operators, standard but for "Linear", that writes a value."""
        node = self.producers.get(value)
        return node if node is not None and (node.is_op(*ops) or ("Linear" in ops and node.is_linear())) else None

    def only_for(self, value: str) -> bool:
        """Whether one node alone reads a value, and it is no output."""
        return self.counts.get(value, 0) == 1 and value not in self.graph.outputs

    def without_term(self, value: str, term: float) -> str | None:
        """y where a value is y + term; None where it is no such sum."""
        node = self.producer(value, "Add")
        pair = None if node is None else value_and_number(self.graph, node)
        return pair[0] if pair is not None and is_near(pair[1], term) else None

    def merge(self, first: Node, second: Node) -> None:
        """``first`` takes over the result of ``second``, which reads it and goes."""
        first.outputs = [second.outputs[0]]
        first.origin = (*first.origin, *second.origin)
        self.producers[second.outputs[0]] = first

    def put(self, index: int, made: Node) -> None:
        """``made`` takes the place of the graph's node there, whose first result it gives."""
        node = self.graph.nodes[index]
        made.outputs, made.name, made.opset, made.origin = [node.outputs[0]], node.name, node.opset, node.origin
        self.graph.nodes[index] = self.producers[node.outputs[0]] = made


def float32_weight(graph: Graph, node: Node) -> Array | None:
    """The constant weight of a convolution or product of float32; None where a file has other types, or mixes them."""
    weight, dtype = graph.constant(node.input(1)), graph.info(node.inputs[0]).dtype
    if weight is None or weight.dtype != np.float32 or (dtype is not None and dtype != np.float32):
        return None
    return weight


def output_channels(graph: Graph, node: Node) -> int | None:
    """Of a convolution or product of float32 whose weight is a constant."""
    weight = float32_weight(graph, node)
    if weight is None or weight.ndim < 2:
        return None
    match node.op:
        case "Conv":
            return int(weight.shape[0])
        case "ConvTranspose":
            return int(weight.shape[1]) * int(node.attribute("group", 1))
        case "MatMul" if weight.ndim == 2:
            return int(weight.shape[1])
        case "Gemm" if (
            weight.ndim == 2 and not node.attribute("transA", 0) and float(node.attribute("alpha", 1.0)) == 1.0
        ):
            return int(weight.shape[0 if node.attribute("transB", 0) else 1])
    return None


MAX_TERM = 2.0**16


def are_plain(scale: Float64, terms: Float64, scaled: Float64 | None = None) -> bool:
    """Whether factors and terms may be computed at another place than the file has them.

    Not where one is infinite or NaN as float32, or a factor so small that it would be 0. Nor where a term is so large
    that sums lose what is added to it, which may be its purpose: x + 1.5·2^23 - 1.5·2^23 rounds x.
    """
    single = np.abs(scale).astype(np.float32)
    lost = (single < np.finfo(np.float32).tiny) & (scale != 0)
    finite = np.isfinite(single).all() and (scaled is None or np.isfinite(scaled.astype(np.float32)).all())
    return bool(finite and not lost.any() and np.all(np.abs(terms) <= MAX_TERM))


def scale_weights(graph: Graph, node: Node, scale: Float64, shift: Float64) -> bool:
    """Make a node with constant weights give scale·y + shift, each [output channels], in float64. False: it cannot."""
    channels = output_channels(graph, node) if node.op != "MatMul" else None  # which takes no bias
    weight = graph.constant(node.input(1))
    bias = graph.constant(node.input(2)) if node.input(2) else None
    if channels is None or weight is None or (node.input(2) and (bias is None or bias.shape != (channels,))):
        return False
    sets_beta = node.op == "Gemm" and float(node.attribute("beta", 1.0)) != 1.0
    if sets_beta and bias is not None:
        return False
    groups = int(node.attribute("group", 1)) if node.op == "ConvTranspose" else 1
    if groups < 1 or weight.shape[0] % groups:
        return False
    if node.op == "ConvTranspose":
        split = weight.reshape(groups, -1, *weight.shape[1:]).astype(np.float64)
        factors = scale.reshape(groups, 1, -1, *(1,) * (weight.ndim - 2))
        scaled = (split * factors).reshape(weight.shape)
    else:
        axis = 0 if node.op == "Conv" or node.attribute("transB", 0) else 1
        scaled = weight * scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    moved = shift if bias is None else bias * scale + shift
    if not are_plain(scale, np.stack([shift, moved]), scaled):
        return False
    if sets_beta:
        node.attributes, node.proto = {**node.attributes, "beta": 1.0}, None
    if not np.all(scale == 1):
        node.inputs[1] = graph.add_constant(f"{node.outputs[0]}.weight", scaled.astype(np.float32))
    name = graph.add_constant(f"{node.outputs[0]}.bias", moved.astype(np.float32))
    node.inputs = [*node.inputs[:2], name]
    return True


def add_term(graph: Graph, product: Node, term: Array) -> None:
    """Make a MatMul by a constant matrix a Linear: ``term``, [columns], is added to each of its rows."""
    product.op, product.domain, product.proto = "Linear", OWN_DOMAIN, None
    product.inputs = [*product.inputs, graph.add_constant(f"{product.outputs[0]}.bias", term)]


def constant_operand(graph: Graph, node: Node) -> tuple[str, Array] | None:
    """The value and the constant of a sum, difference, product or quotient; None where the constant is divided."""
    if not node.is_op("Add", "Sub", "Mul", "Div") or aligns_by_axis(node):
        return None
    place = next((i for i, name in enumerate(node.inputs) if name in graph.constants), None)
    if place is None or (place == 0 and node.op in ("Sub", "Div")):
        return None
    return node.inputs[1 - place], graph.constants[node.inputs[place]]


def value_and_number(graph: Graph, node: Node) -> tuple[str, float] | None:
    """Of an operation between a value and a number ≠ 0, which is the second where that matters."""
    orders = [node.inputs] if node.op in ("Sub", "Div", "Pow") else [node.inputs, node.inputs[::-1]]
    for value, number in orders:
        scalar = graph.scalar(number)
        if scalar and value not in graph.constants:
            return None if graph.adds_axes(value, number) else (value, scalar)
    return None


def is_near(a: float, b: float) -> bool:
    """Whether a file means ``b``."""
    return math.isclose(a, b, rel_tol=1e-6)


def factors_and_terms(op: str, number: Float64) -> tuple[Float64, Float64] | None:
    """Those of each channel that such an operation with these numbers means; None for a division by 0."""
    ones, zeros = np.ones(len(number)), np.zeros(len(number))
    match op:
        case "Add":
            return ones, number
        case "Sub":
            return ones, -number
        case "Mul":
            return number, zeros
    return (1 / number, zeros) if np.all(number) else None
