"""BatchNorm folded into a convolution's weight and bias, in float64, as the core does it when it packs weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sepconv.graph import Conv2d, Convolution, array_shape


def folded(layer: Convolution) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight, in the layer's own layout, and bias [channels of the output], with the batch norm folded in."""
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
    scale = gamma / np.sqrt(variance + norm.epsilon)
    return weight * (scale if dense else scale.reshape(shape[2:])), (bias - mean) * scale + beta
