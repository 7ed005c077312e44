"""From nodes of our graph to the layer list, for the regions of a model that become one plan.

A value is [n, c, h, w], [n, c, w] or [n, c] in the file and (h, w, c), (1, w, c) or (1, 1, c) as a layer's result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from sepconv.graph import (
    Activation,
    Add,
    AveragePool2d,
    Conv2d,
    DepthwiseConv2d,
    FullyConnected,
    GlobalAveragePool,
    Input,
    Layer,
    MaxPool2d,
    Pad,
    Padding,
    Reshape,
    Shape,
    Softmax,
)
from sepconv.onnx.geometry import Windows, kernel_of, windows
from sepconv.onnx.ir import OWN_DOMAIN, Array, Graph, Node
from sepconv.onnx.ops import NotNativeError
from sepconv.onnx.ops.elementwise import trains
from sepconv.onnx.ops.registry import normal_axis


class NotInPlanError(Exception):
    """The layer list does not say this; the message tells what."""


def layer_shape(shape: Sequence[int]) -> Shape:
    """(h, w, c) of a value of this shape."""
    if not 2 <= len(shape) <= 4:
        raise NotInPlanError(f"rank {len(shape)}")
    c, *space = shape[1:]
    h, w = (1, 1, *space)[-2:]
    return h, w, c


class Lowering:
    """Layers while nodes are added one after the other; a value that none of them wrote becomes an Input."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: list[Layer] = []
        self.inputs: list[str] = []
        self.batch: int | None = None
        self._names: dict[str, str] = {}  # the layer that holds a value
        self._shapes: dict[str, Shape] = {}

    def add(self, node: Node) -> None:
        """Raises NotInPlanError, or ValueError where the node itself is wrong."""
        lower = _LOWERINGS.get((node.domain, node.op))
        if lower is None:
            raise NotInPlanError(f"no layer for {node.op}")
        if any(node.outputs[1:]):
            raise NotInPlanError("more than one output")
        if any(self.graph.info(name).dtype != np.float32 for name in (node.inputs[0], node.outputs[0])):
            raise NotInPlanError("not float32")
        lower(self, node)

    def shape(self, value: str) -> tuple[int, ...]:
        shape = self.graph.shape(value)
        if shape is None:
            raise NotInPlanError(f"the shape of {value!r} is not known")
        layer_shape(shape)
        if math.prod(shape) == 0:
            raise NotInPlanError("an empty value")
        if self.batch is None:
            self.batch = shape[0]
        if shape[0] != self.batch:
            raise NotInPlanError(f"a batch of {shape[0]} beside one of {self.batch}")
        return shape

    def layer(self, value: str) -> str:
        """The name of the layer whose result a value is."""
        if value in self.graph.constants:
            raise NotInPlanError(f"{value!r} is constant")
        if value not in self._names:
            shape = layer_shape(self.shape(value))
            self.layers.append(Input(name=value, shape=shape))
            self.inputs.append(value)
            self._names[value] = value
        return self._names[value]

    def constant(self, value: str) -> Array:
        array = self.graph.constant(value)
        if array is None:
            raise NotInPlanError(f"{value!r} is not constant")
        return array

    def emit(self, node: Node, make: Callable[..., Layer], *, name: str = "", inputs: Sequence[str] = (), **arguments: Any) -> str:
        """Append a layer, named after the node's result, that reads these layers (none: the first input's)."""
        name = name or node.outputs[0]
        reads = tuple(inputs) or (self.layer(node.inputs[0]),)
        self.layers.append(make(name=name, inputs=reads, **arguments))
        self._names.setdefault(name, name)
        return name

    def alias(self, node: Node, source: str | None = None) -> None:
        """The node's result is another value's."""
        self._names[node.outputs[0]] = self.layer(source or node.inputs[0])

    def finish(self, node: Node) -> None:
        shape = self.shape(node.outputs[0])
        if layer_shape(shape)[2] != shape[1]:
            raise NotInPlanError("a shape that does not fit")


Lower = Callable[[Lowering, Node], None]
L = TypeVar("L", bound=Lower)
_LOWERINGS: dict[tuple[str, str], Lower] = {}


def lowers(*names: str, domain: str = "") -> Callable[[L], L]:
    def register(lower: L) -> L:
        for name in names:
            _LOWERINGS[domain, name] = lower
        return lower

    return register


def _pads(space: Windows, *, extra: bool = False) -> Padding:
    end = [e + (x if extra else 0) for e, x in zip(space.end, space.extra, strict=True)]
    pairs = [(begin, after) for begin, after in zip(space.begin, end, strict=True)]
    rows = pairs[0] if len(pairs) == 2 else (0, 0)
    return rows, pairs[-1]


def _pair(numbers: Sequence[int]) -> tuple[int, int]:
    """Vertical and horizontal; of one axis, the horizontal."""
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (1, numbers[0])


@lowers("Conv")
def _conv(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    weight = lowering.constant(node.inputs[1])
    if len(shape) not in (3, 4) or weight.ndim != len(shape):
        raise NotInPlanError(f"a convolution of rank {len(shape)}")
    bias = lowering.constant(node.inputs[2]) if node.input(2) else None
    groups, channels = int(node.attribute("group", 1)), shape[1]
    outputs, inner, *kernel = weight.shape
    if inner * groups != channels or outputs % groups:
        raise ValueError(f"group is {groups}; x has {channels} channels, the weight {outputs} times {inner}")
    space = windows(node, shape[2:], kernel)
    square = weight.reshape(outputs, inner, *_pair(kernel))
    arguments: dict[str, Any] = {
        "bias": bias,
        "stride": _pair(space.stride),
        "padding": _pads(space),
        "dilation": _pair(space.dilation),
        "activation": node.activation,
    }
    if groups == 1:
        lowering.emit(node, Conv2d, weight=square.transpose(2, 3, 1, 0), **arguments)
    elif groups == channels:
        split = square.reshape(channels, outputs // channels, *square.shape[2:])
        lowering.emit(node, DepthwiseConv2d, weight=split.transpose(2, 3, 0, 1), **arguments)
    else:
        raise NotInPlanError(f"a convolution in {groups} groups")


@lowers("Gemm", "MatMul")
def _gemm(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    weight = lowering.constant(node.inputs[1])
    if (len(shape) != 2 and not node.flatten) or weight.ndim != 2 or node.attribute("transA", 0):
        raise NotInPlanError("not a matrix of weights times one vector an image")
    matrix = weight.T if node.attribute("transB", 0) else weight
    alpha, beta = float(node.attribute("alpha", 1.0)), float(node.attribute("beta", 1.0))
    if matrix.shape[0] != math.prod(shape[1:]):
        raise ValueError(f"x has {math.prod(shape[1:])} elements an image, the weight {matrix.shape[0]} rows")
    bias = None
    if node.op == "Gemm" and node.input(2):
        bias = lowering.constant(node.inputs[2])
        if bias.shape not in ((matrix.shape[1],), (1, matrix.shape[1]), (1,), ()):
            raise NotInPlanError("a bias for each image")
        bias = np.broadcast_to(bias.reshape(-1) * np.float32(beta), (matrix.shape[1],))
    if alpha != 1.0:
        matrix = matrix * np.float32(alpha)
    h, w, c = layer_shape(shape)
    if h * w > 1 and c > 1:  # rows come in the order of the file: c, h, w
        matrix = matrix.reshape(c, h, w, -1).transpose(1, 2, 0, 3).reshape(h * w * c, -1)
    lowering.emit(node, FullyConnected, weight=matrix, bias=bias, activation=node.activation)


@lowers("BatchNormalization")
def _batch_norm(lowering: Lowering, node: Node) -> None:
    if trains(node):
        raise NotInPlanError("it trains")
    gamma, beta, mean, variance = (lowering.constant(name).astype(np.float64) for name in node.inputs[1:5])
    scale = gamma / np.sqrt(variance + float(node.attribute("epsilon", 1e-5)))
    _affine(lowering, node, node.inputs[0], scale, beta - mean * scale)


def _affine(lowering: Lowering, node: Node, value: str, scale: Array, shift: Array | None) -> None:
    """A factor and a term for each channel: a depthwise 1×1 convolution."""
    channels = lowering.shape(value)[1]
    weight = np.broadcast_to(np.asarray(scale, np.float32).reshape(-1), (channels,)).reshape(1, 1, channels, 1)
    bias = None if shift is None else np.broadcast_to(np.asarray(shift, np.float32).reshape(-1), (channels,))
    lowering.emit(
        node, DepthwiseConv2d, inputs=(lowering.layer(value),), weight=weight, bias=bias, activation=node.activation
    )


def per_channel(array: Array, shape: Sequence[int]) -> bool:
    """Whether an array that broadcasts to [n, c, ...] has one number for each channel, or one for all."""
    if array.size == 1:
        return array.ndim <= len(shape)
    channel_axis = array.ndim - (len(shape) - 1)
    return channel_axis >= 0 and array.ndim <= len(shape) and array.size == array.shape[channel_axis] == shape[1]


@lowers("Add", "Sub", "Mul", "Div")
def _arithmetic(lowering: Lowering, node: Node) -> None:
    a, b = node.inputs
    constants = [name in lowering.graph.constants for name in (a, b)]
    if not any(constants):
        _two_values(lowering, node)
        return
    if all(constants) or (constants[0] and node.op in ("Sub", "Div")):
        raise NotInPlanError("a constant that is divided or subtracted from")
    value, number = (b, a) if constants[0] else (a, b)
    array = lowering.constant(number)
    shape = lowering.shape(value)
    if lowering.shape(node.outputs[0]) != shape or not per_channel(array, shape):
        raise NotInPlanError("a constant that differs within a channel")
    match node.op:
        case "Add":
            _affine(lowering, node, value, np.ones(1), array)
        case "Sub":
            _affine(lowering, node, value, np.ones(1), -array)
        case "Mul":
            _affine(lowering, node, value, array, None)
        case _:
            if not np.all(array):
                raise NotInPlanError("a division by zero")
            _affine(lowering, node, value, 1.0 / array.astype(np.float64), None)


def _two_values(lowering: Lowering, node: Node) -> None:
    a, b = node.inputs
    if node.op != "Add" or lowering.shape(a) != lowering.shape(b):
        raise NotInPlanError(f"{node.op} of two values")
    lowering.emit(node, Add, inputs=(lowering.layer(a), lowering.layer(b)), activation=node.activation)


@lowers("MaxPool", "AveragePool")
def _pool(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    if len(shape) not in (3, 4):
        raise NotInPlanError(f"a pooling of rank {len(shape)}")
    try:
        space = windows(node, shape[2:], kernel_of(node))
    except NotNativeError as error:
        raise NotInPlanError(str(error)) from None
    if any(d != 1 for d in space.dilation):
        raise NotInPlanError("a pooling with dilation")
    arguments: dict[str, Any] = {
        "kernel": _pair(space.kernel),
        "stride": _pair(space.stride),
        "padding": _pads(space, extra=True),
        "activation": node.activation,
    }
    if node.op == "MaxPool":
        lowering.emit(node, MaxPool2d, **arguments)
        return
    include = bool(node.attribute("count_include_pad", 0))
    if include and any(space.extra):
        raise NotInPlanError("an average over padding that ceil_mode adds to")
    lowering.emit(node, AveragePool2d, include_padding=include, **arguments)


@lowers("GlobalAveragePool")
def _global_average(lowering: Lowering, node: Node) -> None:
    lowering.shape(node.inputs[0])
    lowering.emit(node, GlobalAveragePool)


@lowers("GlobalMaxPool")
def _global_max(lowering: Lowering, node: Node) -> None:
    h, w, _ = layer_shape(lowering.shape(node.inputs[0]))
    lowering.emit(node, MaxPool2d, kernel=(h, w), stride=(1, 1))


_ACTIVATIONS = {"Relu": "relu", "Sigmoid": "sigmoid", "HardSwish": "hard_swish"}


@lowers("Relu", "Sigmoid", "HardSwish")
def _activation(lowering: Lowering, node: Node) -> None:
    lowering.shape(node.inputs[0])
    lowering.emit(node, Activation, activation=_ACTIVATIONS[node.op])


@lowers("Activation", domain=OWN_DOMAIN)
def _own_activation(lowering: Lowering, node: Node) -> None:
    lowering.shape(node.inputs[0])
    lowering.emit(node, Activation, activation=node.attribute("kind"))


@lowers("HardSigmoid")
def _hard_sigmoid(lowering: Lowering, node: Node) -> None:
    """Any slope and offset: those of the one that the layers have, times and plus what is missing."""
    alpha, beta = float(node.attribute("alpha", 0.2)), float(node.attribute("beta", 0.5))
    lowering.shape(node.inputs[0])
    read = lowering.layer(node.inputs[0])
    if abs(alpha - 1 / 6) > 1e-7 or beta != 0.5:
        channels = lowering.shape(node.inputs[0])[1]
        weight = np.full((1, 1, channels, 1), 6 * alpha, np.float32)
        bias = np.full(channels, 6 * beta - 3, np.float32)
        read = lowering.emit(
            node, DepthwiseConv2d, name=f"{node.outputs[0]}/scaled", inputs=(read,), weight=weight, bias=bias
        )
    lowering.emit(node, Activation, inputs=(read,), activation="hard_sigmoid")


@lowers("Softmax")
def _softmax(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    axis = normal_axis(int(node.attribute("axis", 1 if node.opset < 13 else -1)), len(shape))
    if axis != 1 or (node.opset < 13 and math.prod(shape[2:]) != 1):
        raise NotInPlanError("a softmax over another axis than channels")
    lowering.emit(node, Softmax)


@lowers("Pad")
def _pad(lowering: Lowering, node: Node) -> None:
    padding = spatial_padding(lowering.graph, node)
    if padding is None or len(lowering.shape(node.inputs[0])) != 4:
        raise NotInPlanError("a padding of other than zeros around images")
    (top, left), (bottom, right) = padding
    lowering.emit(node, Pad, padding=((top, bottom), (left, right)))


def spatial_padding(graph: Graph, node: Node) -> tuple[list[int], list[int]] | None:
    """(begins, ends) over the axes of space of a Pad with zeros; None for any other."""
    shape = graph.info(node.inputs[0]).shape
    if shape is None or node.attribute("mode", "constant") != "constant":
        return None
    rank = len(shape)
    value = node.attribute("value", 0.0) if node.opset < 11 else (graph.scalar(node.input(2)) if node.input(2) else 0.0)
    pads = node.attribute("pads") if node.opset < 11 else graph.constant(node.input(1))
    axes = graph.constant(node.input(3)) if node.input(3) else np.arange(rank)
    if value != 0.0 or pads is None or axes is None:
        return None
    begins, ends = [0] * rank, [0] * rank
    for position, axis in enumerate(int(a) for a in axes):
        begins[axis] = int(pads[position])
        ends[axis] = int(pads[position + len(axes)])
    if any(begins[:2]) or any(ends[:2]) or min(begins + ends) < 0:
        return None
    return begins[2:], ends[2:]


@lowers("Identity", "Dropout")
def _identity(lowering: Lowering, node: Node) -> None:
    if node.op == "Dropout" and (node.input(2) or trains(node)):
        raise NotInPlanError("it may train")
    lowering.shape(node.inputs[0])
    lowering.alias(node)


@lowers("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(lowering: Lowering, node: Node) -> None:
    """What keeps each image's elements in their order, which NCHW and NHWC share where one of c and h·w is 1."""
    before, after = lowering.shape(node.inputs[0]), lowering.shape(node.outputs[0])
    old, new = layer_shape(before), layer_shape(after)
    if old == new:
        lowering.alias(node)
    elif all(c == 1 or h * w == 1 for h, w, c in (old, new)):
        lowering.emit(node, Reshape, shape=new)
    else:
        raise NotInPlanError("a reshape that mixes channels and space")


TABLE = _LOWERINGS
