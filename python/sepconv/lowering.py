"""What all that runs or writes the layer list shares: BatchNorm folded, and which results are vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sepconv.graph import (
    Activation,
    Add,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Conv2d,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    LayerNorm,
    Mul,
    PRelu,
    Reshape,
    Softmax,
    array_shape,
)
from sepconv.graph.base import reject_masked

MAX_GROUPS = 64  # of a convolution that becomes one for each group
_FOLLOWERS = (Softmax, LayerNorm, PRelu, Activation, Add, Mul, Concat, ChannelSlice, ChannelShuffle)


def folded(layer: Convolution) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight, in the layer's own layout, and bias [channels of the output], with the batch norm folded in, in float64.

    So does the core when it packs weights.
    """
    weight = np.asarray(layer.weight, dtype=np.float64)
    dense = isinstance(layer, Conv2d)
    shape = array_shape(layer.weight)
    channels = shape[3] if dense else shape[2] * shape[3]
    bias = np.zeros(channels) if layer.bias is None else np.asarray(layer.bias, dtype=np.float64)
    norm = layer.batch_norm
    if norm is None:
        return weight, bias
    gamma, beta, mean, variance = (
        np.asarray(array, dtype=np.float64) for array in (norm.gamma, norm.beta, norm.mean, norm.variance)
    )
    scale = gamma / np.sqrt(variance + float(norm.epsilon))
    return weight * (scale if dense else scale.reshape(shape[2:])), (bias - mean) * scale + beta


def real_numbers(layer: Layer, argument: str, array: ArrayLike) -> NDArray[Any]:
    """The array that a layer has for ``argument``. Raises TypeError for a masked one, and for no real numbers."""
    reject_masked(f"layer {layer.name!r}: {argument}", array)
    try:
        values = np.asarray(array)
    except (RuntimeError, TypeError, ValueError) as error:  # what torch refuses to give
        raise TypeError(
            f"layer {layer.name!r}: {argument} was a {type(array).__name__} that NumPy cannot read: {error}"
        ) from error
    # ml_dtypes' bfloat16 and its like are void to NumPy, and become float32 without loss.
    is_number = values.dtype.kind in "fiub" or (values.dtype.kind == "V" and np.can_cast(values.dtype, np.float32))
    if not is_number:
        raise TypeError(f"layer {layer.name!r}: {argument} had dtype {values.dtype}, must have one of real numbers")
    return values


def folded_layers(layers: Sequence[Layer]) -> list[Layer]:
    """The same network with contiguous float32 arrays and no batch norm."""
    return [_folded_layer(layer) for layer in layers]


def vectors(layers: Sequence[Layer]) -> set[str]:
    """Names of the layers whose result is a vector an image, given as [n, c] rather than [n, 1, 1, c]."""
    found: set[str] = set()
    for layer in layers:
        starts = isinstance(layer, FullyConnected | GlobalAveragePool) or (
            isinstance(layer, Reshape) and layer.shape[:2] == (1, 1)
        )
        follows = isinstance(layer, _FOLLOWERS) and all(name in found for name in layer.inputs)
        if starts or follows:
            found.add(layer.name)
    return found


def float32_repeats(before: int, after: int, step: float | None = None) -> bool:
    """Whether Upsample's pixels are found in float32 too, as other runtimes do, by ``step`` (None: before / after)."""
    steps = np.float32(before) / np.float32(after) if step is None else np.float32(step)
    theirs = np.minimum((np.arange(after, dtype=np.float32) * steps).astype(np.int64), before - 1)
    return np.array_equal(theirs, np.arange(after, dtype=np.int64) * before // after)


def _folded_layer(layer: Layer) -> Layer:
    if isinstance(layer, Convolution):
        weight, bias = (np.ascontiguousarray(array, dtype=np.float32) for array in folded(layer))
        return dataclasses.replace(layer, weight=weight, bias=bias, batch_norm=None)
    if isinstance(layer, FullyConnected):
        zeros = np.zeros(array_shape(layer.weight)[1])
        arrays = (layer.weight, zeros if layer.bias is None else layer.bias)
        weight, bias = (np.ascontiguousarray(array, dtype=np.float32) for array in arrays)
        return dataclasses.replace(layer, weight=weight, bias=bias)
    return layer
