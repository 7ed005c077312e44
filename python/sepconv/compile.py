"""From the layer list to the core's graph: one call a layer, weights as float32 arrays that live only that long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .graph import (
    Activation,
    Add,
    AveragePool2d,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Conv2d,
    Convolution,
    DepthwiseConv2d,
    FullyConnected,
    GlobalAveragePool,
    Input,
    Layer,
    LayerNorm,
    MaxPool2d,
    Mul,
    Pad,
    PRelu,
    Reshape,
    Softmax,
    Upsample,
    WeightedLayer,
)
from .graph.weighted import BATCH_NORM_ARRAYS
from .lowering import folded, real_numbers
from .mapping import release_pages

FLOAT_BYTES = 4
RELEASE_BYTES = 1 << 20  # of weights packed, after which the pages that they came from are given back

Float32 = NDArray[np.float32]
BatchNormArrays = tuple[Float32, Float32, Float32, Float32, float]


def compile_graph(layers: Sequence[Layer], outputs: Sequence[str], isa: str | None = None) -> _core.Graph:
    """The core's graph of these layers, weights packed for ``isa`` (None: the one in use).

    Raises:
        ValueError: a layer is inconsistent, with its name; see :func:`sepconv.graph.infer_shapes`.
        TypeError: weights are not real numbers.
        MemoryError: the weights do not fit.
    """
    graph = _core.Graph(isa, sum(layer.weight_count() for layer in layers) * FLOAT_BYTES)
    nodes: dict[str, int] = {}
    unpacked = 0
    for layer in layers:
        nodes[layer.name] = _add(graph, layer, [nodes[name] for name in layer.inputs])
        unpacked += layer.weight_count() * FLOAT_BYTES
        if unpacked > RELEASE_BYTES:
            release_pages()
            unpacked = 0
    release_pages()
    for name in outputs:
        graph.output(nodes[name])
    return graph


def _float32(layer: Layer, argument: str, array: ArrayLike) -> Float32:
    return real_numbers(layer, argument, array).astype(np.float32, copy=False)


def _bias(layer: WeightedLayer) -> Float32 | None:
    return None if layer.bias is None else _float32(layer, "bias", layer.bias)


def _convolution(layer: Convolution) -> tuple[Float32, Float32 | None, BatchNormArrays | None]:
    """Weight, bias and batch norm, which the core folds in float64; what float32 would round is folded here."""
    norm, bias = layer.batch_norm, layer.bias
    weight = real_numbers(layer, "weight", layer.weight)
    if norm is None:
        return weight.astype(np.float32, copy=False), _bias(layer), None
    parts = [real_numbers(layer, f"batch_norm.{name}", getattr(norm, name)) for name in BATCH_NORM_ARRAYS]
    given = [weight, *parts, *([] if bias is None else [real_numbers(layer, "bias", bias)])]
    if not all(np.can_cast(array.dtype, np.float32) for array in given):
        weight, shift = folded(layer)
        return weight.astype(np.float32), shift.astype(np.float32), None
    gamma, beta, mean, variance = (array.astype(np.float32, copy=False) for array in parts)
    return weight.astype(np.float32, copy=False), _bias(layer), (gamma, beta, mean, variance, norm.epsilon)


def _add(graph: _core.Graph, layer: Layer, inputs: list[int]) -> int:
    name = layer.name
    match layer:
        case Input():
            return graph.input(name, layer.shape)
        case Conv2d() | DepthwiseConv2d():
            add = graph.conv2d if isinstance(layer, Conv2d) else graph.depthwise_conv2d
            return add(
                name,
                inputs[0],
                *_convolution(layer),
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.activation,
            )
        case FullyConnected():
            weight = _float32(layer, "weight", layer.weight)[np.newaxis, np.newaxis]
            return graph.fully_connected(name, inputs[0], weight, _bias(layer), layer.activation)
        case Add():
            return graph.add(name, inputs[0], inputs[1], layer.activation)
        case Mul():
            return graph.mul(name, inputs[0], inputs[1], layer.activation)
        case AveragePool2d():
            return graph.average_pool2d(
                name, inputs[0], layer.kernel, layer.stride, layer.padding, layer.include_padding, layer.activation
            )
        case MaxPool2d():
            return graph.max_pool2d(name, inputs[0], layer.kernel, layer.stride, layer.padding, layer.activation)
        case GlobalAveragePool():
            return graph.global_average_pool(name, inputs[0])
        case Activation():
            return graph.activation(name, inputs[0], layer.activation)
        case Softmax():
            return graph.softmax(name, inputs[0], layer.beta)
        case PRelu():
            return graph.prelu(name, inputs[0], _float32(layer, "slope", layer.slope))
        case LayerNorm():
            scale, bias = (
                None if array is None else _float32(layer, argument, array)
                for argument, array in (("scale", layer.scale), ("bias", layer.bias))
            )
            return graph.layer_norm(name, inputs[0], scale, bias, float(layer.epsilon))
        case Reshape():
            return graph.reshape(name, inputs[0], layer.shape)
        case Pad():
            return graph.pad(name, inputs[0], layer.padding)
        case Concat():
            return graph.concat(name, inputs)
        case ChannelSlice():
            return graph.channel_slice(name, inputs[0], layer.begin, layer.end)
        case ChannelShuffle():
            return graph.channel_shuffle(name, inputs[0], layer.groups)
        case Upsample():
            return graph.upsample(name, inputs[0], layer.size)
    raise ValueError(f"layer {name!r} is a {type(layer).__name__}, must be one of the layers of sepconv.graph")
