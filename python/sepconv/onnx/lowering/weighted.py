"""Convolutions, products, and a factor or term for each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sepconv.graph import Add, ChannelSlice, Concat, Conv2d, DepthwiseConv2d, FullyConnected, Mul
from sepconv.lowering import MAX_GROUPS
from sepconv.onnx.geometry import windows
from sepconv.onnx.ir import Array, Node
from sepconv.onnx.lowering.base import Lowering, NotInPlanError, layer_shape, lowers
from sepconv.onnx.lowering.pools import pads_of, pair_of
from sepconv.onnx.ops.elementwise import aligns_by_axis, batch_norm_factors, trains
from sepconv.onnx.ops.windows import bias_vector


@lowers("Conv")
def _conv(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    weight = lowering.constant(node.inputs[1])
    if len(shape) not in (3, 4) or weight.ndim != len(shape):
        raise NotInPlanError(f"a convolution of rank {len(shape)}")
    groups, channels = int(node.attribute("group", 1)), shape[1]
    outputs, inner, *kernel = weight.shape
    if inner * groups != channels or outputs % groups:
        raise ValueError(f"group is {groups}; x has {channels} channels, the weight {outputs} times {inner}")
    bias = bias_vector(lowering.constant(node.inputs[2]), outputs) if node.input(2) else None
    space = windows(node, shape[2:], kernel)
    square = weight.reshape(outputs, inner, *pair_of(kernel))
    arguments: dict[str, Any] = {
        "bias": bias,
        "stride": pair_of(space.stride),
        "padding": pads_of(space),
        "dilation": pair_of(space.dilation),
        "activation": node.activation,
    }
    if groups == 1:
        lowering.emit(node, Conv2d, weight=square.transpose(2, 3, 1, 0), **arguments)
    elif groups == channels:
        split = square.reshape(channels, outputs // channels, *square.shape[2:])
        lowering.emit(node, DepthwiseConv2d, weight=split.transpose(2, 3, 0, 1), **arguments)
    else:
        _grouped(lowering, node, square, groups, arguments)


def _grouped(lowering: Lowering, node: Node, weight: Array, groups: int, arguments: dict[str, Any]) -> None:
    """One convolution for each group's channels, and their results joined."""
    outputs, inner = weight.shape[0] // groups, weight.shape[1]
    if groups > MAX_GROUPS:
        raise NotInPlanError(f"a convolution in {groups} groups")
    bias = arguments["bias"]
    read = lowering.layer(node.inputs[0])
    parts = []
    for g in range(groups):
        part = lowering.emit(node, ChannelSlice, part=f"{g}/in", inputs=(read,), begin=g * inner, end=(g + 1) * inner)
        own = weight[g * outputs : (g + 1) * outputs].transpose(2, 3, 1, 0)
        share = {**arguments, "bias": None if bias is None else bias[g * outputs : (g + 1) * outputs]}
        parts.append(lowering.emit(node, Conv2d, part=f"{g}", inputs=(part,), weight=own, **share))
    lowering.emit(node, Concat, inputs=parts)


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
    if node.op == "Gemm" and node.input(2) and beta != 0.0:
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
    if trains(node) or not node.attribute("spatial", 1):
        raise NotInPlanError("it trains, or its spatial is 0")
    arrays = (lowering.constant(name).astype(np.float64) for name in node.inputs[1:5])
    _affine(lowering, node, node.inputs[0], *batch_norm_factors(node, *arrays))


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
    if aligns_by_axis(node):
        raise NotInPlanError("an operand that is aligned with an axis")
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
    shapes = [layer_shape(lowering.shape(name)) for name in (a, b)]
    if len(lowering.shape(a)) != len(lowering.shape(b)) or node.op not in ("Add", "Sub", "Mul"):
        raise NotInPlanError(f"{node.op} of two values")
    if shapes[0] != shapes[1] and node.op != "Mul":
        raise NotInPlanError("an addition that broadcasts")
    if node.op == "Mul" and shapes[0][:2] == (1, 1):  # a gate for each channel comes second
        a, b = b, a
    reads = [lowering.layer(a), lowering.layer(b)]
    if node.op == "Sub":
        minus = np.full((1, 1, shapes[0][2], 1), -1, np.float32)
        reads[1] = lowering.emit(node, DepthwiseConv2d, part="negated", inputs=(reads[1],), weight=minus)
    lowering.emit(node, Mul if node.op == "Mul" else Add, inputs=reads, activation=node.activation)
