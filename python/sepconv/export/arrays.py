"""Weights as channels-first formats hold them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sepconv.graph import Conv2d, Convolution, FullyConnected, Shape
from sepconv.lowering import folded

Float32 = NDArray[np.float32]


def float32(array: ArrayLike) -> Float32:
    return np.ascontiguousarray(array, dtype=np.float32)


def channels_first(layer: Convolution, weight: NDArray[np.float64]) -> tuple[Float32, int]:
    """A convolution's weight as [N, C / groups, kh, kw], and the number of groups."""
    if isinstance(layer, Conv2d):
        return float32(weight.transpose(3, 2, 0, 1)), 1
    kh, kw, channels, multiplier = weight.shape
    return float32(weight.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, kh, kw)), channels


def folded_channels_first(layer: Convolution) -> tuple[Float32, Float32, int]:
    """(weight [N, C / groups, kh, kw], bias [N], groups), batch norm folded in."""
    weight, bias = folded(layer)
    weights, groups = channels_first(layer, weight)
    return weights, float32(bias), groups


def fully_connected(layer: FullyConnected, x: Shape) -> tuple[Float32, Float32]:
    """(weight [N, c*h*w] for an input that is flattened channels first, bias [N])."""
    weight = np.asarray(layer.weight, dtype=np.float32)
    outputs = weight.shape[1]
    weight = weight.reshape(*x, outputs).transpose(3, 2, 0, 1).reshape(outputs, -1)
    bias = np.zeros(outputs) if layer.bias is None else layer.bias
    return float32(weight), float32(bias)
