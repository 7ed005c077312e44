"""Activations, and layers that move elements."""

from __future__ import annotations

import math

import numpy as np

from sepconv.graph import (
    Activation,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    DepthwiseConv2d,
    LayerNorm,
    Pad,
    PRelu,
    Reshape,
    Softmax,
    Upsample,
)
from sepconv.onnx.ir import OWN_DOMAIN, Graph, Node
from sepconv.onnx.lowering.base import Lowering, NotInPlanError, layer_shape, lowers
from sepconv.onnx.lowering.weighted import per_channel
from sepconv.onnx.ops.elementwise import activation_name, trains
from sepconv.onnx.ops.registry import normal_axis


@lowers("Relu", "Sigmoid", "HardSwish", "Gelu")
@lowers("Activation", domain=OWN_DOMAIN)
def _activation(lowering: Lowering, node: Node) -> None:
    lowering.shape(node.inputs[0])
    lowering.emit(node, Activation, activation=activation_name(node))


@lowers("LayerNorm", domain=OWN_DOMAIN)
def _layer_norm(lowering: Lowering, node: Node) -> None:
    """Over axis 1."""
    lowering.shape(node.inputs[0])
    scale, bias = (lowering.constant(name) if name else None for name in (node.input(1), node.input(2)))
    lowering.emit(node, LayerNorm, scale=scale, bias=bias, epsilon=float(node.attribute("epsilon")))


@lowers("LayerNormalization")
def _layer_normalization(lowering: Lowering, node: Node) -> None:
    """Of vectors: the last axis holds the channels."""
    shape = lowering.shape(node.inputs[0])
    if len(shape) != 2 or node.attribute("axis", -1) not in (-1, 1):
        raise NotInPlanError("a normalisation of other than one vector an image")
    arrays = [lowering.constant(name) for name in node.inputs[1:] if name]
    if any(math.prod(array.shape[:-1]) != 1 for array in arrays):
        raise NotInPlanError("a scale or bias that differs between images")
    flat = [array.reshape(-1) for array in (*arrays, np.zeros(1, np.float32))]
    scale, bias = (np.broadcast_to(array, shape[1:]) for array in flat[:2])
    lowering.emit(node, LayerNorm, scale=scale, bias=bias, epsilon=float(node.attribute("epsilon", 1e-5)))


@lowers("LeakyRelu", "PRelu")
def _prelu(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    slope = np.full(1, node.attribute("alpha", 0.01), np.float32)
    if node.op == "PRelu":
        slope = lowering.constant(node.inputs[1])
        if slope.dtype != np.float32 or not (
            per_channel(slope, shape) or (node.opset < 7 and slope.shape == shape[1:2])
        ):
            raise NotInPlanError("a slope that differs within a channel")
    lowering.emit(node, PRelu, slope=np.broadcast_to(slope.reshape(-1), shape[1:2]))


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
        read = lowering.emit(node, DepthwiseConv2d, part="scaled", inputs=(read,), weight=weight, bias=bias)
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
    if value != 0.0 or pads is None or axes is None or np.ndim(axes) != 1 or np.shape(pads) != (2 * len(axes),):
        return None
    if any(np.asarray(numbers).dtype.kind != "i" for numbers in (pads, axes)):
        return None
    if any(not -rank <= axis < rank for axis in axes):
        return None
    begins, ends = [0] * rank, [0] * rank
    for position, axis in enumerate(int(a) for a in axes):
        begins[axis] = int(pads[position])
        ends[axis] = int(pads[position + len(axes)])
    if any(begins[:2]) or any(ends[:2]) or min(begins + ends) < 0:
        return None
    return begins[2:], ends[2:]


@lowers("Concat")
def _concat(lowering: Lowering, node: Node) -> None:
    rank = len(lowering.shape(node.inputs[0]))
    if normal_axis(int(node.attribute("axis", 1)), rank) != 1:
        raise NotInPlanError("a concatenation along another axis than channels")
    lowering.emit(node, Concat, inputs=[lowering.layer(name) for name in node.inputs])


@lowers("Split")
def _split(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    if normal_axis(int(node.attribute("axis", 0)), len(shape)) != 1:
        raise NotInPlanError("a split along another axis than channels")
    begin = 0
    for name in node.outputs:
        size = lowering.shape(name)[1] if name else 0
        if not name:
            raise NotInPlanError("a part of a split that nobody wants")
        lowering.emit(node, ChannelSlice, value=name, begin=begin, end=begin + size)
        begin += size
    if begin != shape[1]:
        raise ValueError(f"the parts of a split sum to {begin}, must to {shape[1]}")


@lowers("Slice")
def _slice(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    names = ("starts", "ends", "axes", "steps")
    if node.opset < 10:
        numbers = [node.attribute(name) for name in names]
    else:
        numbers = [lowering.constant(node.input(i + 1)) if node.input(i + 1) else None for i in range(4)]
    starts, ends, axes, steps = (None if array is None else [int(n) for n in array] for array in numbers)
    if starts is None or ends is None or (axes or [0]) not in ([1], [1 - len(shape)]) or (steps or [1]) != [1]:
        raise NotInPlanError("a slice of other than channels")
    begin, end, _ = slice(starts[0], ends[0]).indices(shape[1])
    if begin >= end:
        raise NotInPlanError("an empty slice")
    lowering.emit(node, ChannelSlice, begin=begin, end=end)


@lowers("ChannelShuffle", domain=OWN_DOMAIN)
def _shuffle(lowering: Lowering, node: Node) -> None:
    lowering.shape(node.inputs[0])
    lowering.emit(node, ChannelShuffle, groups=int(node.attribute("groups")))


@lowers("Resize", "Upsample")
def _resize(lowering: Lowering, node: Node) -> None:
    """Nearest neighbours at a whole factor, where all ways to round agree but those that move by half a pixel."""
    before, after = lowering.shape(node.inputs[0]), lowering.shape(node.outputs[0])
    h, w, c = layer_shape(before)
    tall, wide, channels = layer_shape(after)
    transform = node.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = node.attribute("nearest_mode", "round_prefer_floor")
    legacy = node.op == "Upsample" or node.opset < 11
    same = (transform, rounding) == ("asymmetric", "floor") or (
        transform in ("half_pixel", "pytorch_half_pixel") and rounding in ("round_prefer_floor", "round_prefer_ceil")
    )
    if node.attribute("mode", "nearest") != "nearest" or not (legacy or same):
        raise NotInPlanError("a resize by other than repeated pixels")
    if c != channels or tall % h or wide % w or node.attribute("antialias", 0) or node.attribute("axes"):
        raise NotInPlanError("a resize by other than a whole factor")
    place = 1 if legacy else 2
    scales = node.attribute("scales") if not node.input(place) else lowering.constant(node.inputs[place])
    if scales is not None and len(scales):
        ratios = [new / old for old, new in zip(before, after, strict=True)]
        if len(scales) != len(ratios) or any(float(a) != b for a, b in zip(scales, ratios, strict=True)):
            raise NotInPlanError("a resize whose factor is not the sizes' ratio")
    lowering.emit(node, Upsample, size=(tall, wide))


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
