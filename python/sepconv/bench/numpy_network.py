"""The layer list in NumPy: what one gets without any package for convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sepconv.graph import (
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
    Padding,
    Pair,
    PRelu,
    Reshape,
    Softmax,
    Upsample,
)

Array = NDArray[np.float32]
SIX = np.float32(6)


def run_network(layers: Sequence[Layer], outputs: Sequence[str], x: Array) -> list[Array]:
    """Results of the layers that ``outputs`` names, as [n, h, w, c]. Batch norms must be folded into the weights."""
    values: dict[str, Array] = {}
    for layer in layers:
        values[layer.name] = _run(layer, [values[name] for name in layer.inputs] or [x])
    return [values[name] for name in outputs]


def _run(layer: Layer, inputs: list[Array]) -> Array:
    x = inputs[0]
    match layer:
        case Input():
            return x
        case Convolution():
            return ACTIVATIONS[layer.activation](_convolution(layer, x))
        case FullyConnected():
            y = x.reshape(len(x), -1) @ np.asarray(layer.weight)
            y = y if layer.bias is None else y + np.asarray(layer.bias)
            return ACTIVATIONS[layer.activation](y[:, np.newaxis, np.newaxis])
        case Add():
            return ACTIVATIONS[layer.activation](x + inputs[1])
        case Mul():
            return ACTIVATIONS[layer.activation](x * inputs[1])
        case AveragePool2d():
            windows = sum(_taps(_padded(x, layer.padding), layer.kernel, layer.stride))
            ones = np.ones_like(x[:1, :, :, :1])
            outside = float(layer.include_padding)
            counts = sum(_taps(_padded(ones, layer.padding, outside), layer.kernel, layer.stride))
            return ACTIVATIONS[layer.activation](np.asarray(windows / counts, dtype=np.float32))
        case MaxPool2d():
            taps = _taps(_padded(x, layer.padding, -np.inf), layer.kernel, layer.stride)
            return ACTIVATIONS[layer.activation](np.maximum.reduce(taps))
        case GlobalAveragePool():
            return np.asarray(x.mean(axis=(1, 2), keepdims=True))
        case Activation():
            return ACTIVATIONS[layer.activation](x)
        case Softmax():
            powers = np.exp(np.float32(layer.beta) * (x - x.max(axis=-1, keepdims=True)))
            return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
        case PRelu():
            return np.where(x < 0, np.asarray(layer.slope, np.float32) * x, x)
        case LayerNorm():
            centered = x - x.mean(axis=-1, keepdims=True)
            deviation = np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + np.float32(layer.epsilon))
            scaled = centered / deviation
            if layer.scale is not None:
                scaled = scaled * np.asarray(layer.scale, np.float32)
            return np.asarray(scaled if layer.bias is None else scaled + np.asarray(layer.bias, np.float32))
        case Reshape():
            return x.reshape(len(x), *layer.shape)
        case Pad():
            return _padded(x, layer.padding)
        case Concat():
            return np.concatenate(inputs, axis=-1)
        case ChannelSlice():
            return x[..., layer.begin : layer.end]
        case ChannelShuffle():
            n, h, w, c = x.shape
            return x.reshape(n, h, w, layer.groups, -1).swapaxes(3, 4).reshape(n, h, w, c)
        case Upsample():
            rows, columns = (np.arange(n) * x.shape[1 + axis] // n for axis, n in enumerate(layer.size))
            return x[:, rows[:, np.newaxis], columns]
    raise TypeError(f"layer {layer.name!r} is a {type(layer).__name__}, must be one of the layers of sepconv.graph")


def _convolution(layer: Convolution, x: Array) -> Array:
    """A product for each tap of the window: of matrices where all channels meet, else elementwise."""
    weight = np.asarray(layer.weight)
    kh, kw = weight.shape[:2]
    y: Array | None = None
    taps = _taps(_padded(x, layer.padding), (kh, kw), layer.stride, layer.dilation)
    for tap, w in zip(taps, weight.reshape(kh * kw, *weight.shape[2:]), strict=True):
        if isinstance(layer, Conv2d):
            product = tap.reshape(-1, tap.shape[3]) @ w
            product = product.reshape(*tap.shape[:3], -1)
        else:
            assert isinstance(layer, DepthwiseConv2d)
            product = (tap[..., np.newaxis] * w).reshape(*tap.shape[:3], -1)
        if y is None:
            y = product
        else:
            y += product
    assert y is not None
    if layer.bias is not None:
        y += np.asarray(layer.bias)
    return y


def _padded(x: Array, padding: Padding, value: float = 0.0) -> Array:
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value) if any(map(any, padding)) else x


def _taps(x: Array, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> list[Array]:
    """For each position (r, s) of the window a view [n, oh, ow, c]: what all outputs read there."""
    oh, ow = ((x.shape[1 + axis] - (kernel[axis] - 1) * dilation[axis] - 1) // stride[axis] + 1 for axis in (0, 1))
    return [
        x[
            :,
            r * dilation[0] : r * dilation[0] + (oh - 1) * stride[0] + 1 : stride[0],
            s * dilation[1] : s * dilation[1] + (ow - 1) * stride[1] + 1 : stride[1],
        ]
        for r in range(kernel[0])
        for s in range(kernel[1])
    ]


def _relu6(x: Array) -> Array:
    return np.clip(x, np.float32(0), SIX)


def _hard_sigmoid(x: Array) -> Array:
    return _relu6(x + np.float32(3)) / SIX


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(0.5) * x))


def _normal(x: Array) -> Array:
    """The normal distribution. NumPy has no error function."""
    return np.asarray(np.vectorize(lambda y: 0.5 * math.erfc(-y * math.sqrt(0.5)), [np.float32])(x))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "relu6": _relu6,
    "hard_swish": lambda x: x * _hard_sigmoid(x),
    "hard_sigmoid": _hard_sigmoid,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * _normal(x),
    "gelu_tanh": lambda x: x * _sigmoid(np.float32(1.5957691216) * (x + np.float32(0.044715) * x * x * x)),
}
