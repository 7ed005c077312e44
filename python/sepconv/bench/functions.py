"""One operator's layers as a call of sepconv's functions on NHWC arrays: what ``sepconv bench --op`` times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sepconv
from sepconv.graph import Conv2d, DepthwiseConv2d, Input, Layer, array_shape

Array = NDArray[np.float32]
Call = Callable[[Array], Array]


def operator_call(layers: Sequence[Layer], threads: int, prepared: bool) -> Call:
    """The function that computes ``layers``: a depthwise convolution, one of all channels, or one after the other.

    ``prepared``: weights are packed here, once; else by each call. Raises TypeError for other layers.
    """
    match [layer for layer in layers if not isinstance(layer, Input)]:
        case [DepthwiseConv2d() as layer]:
            weights = _weights(layer, "depthwise", prepared)
            return lambda x: sepconv.depthwise_conv2d(x, *weights, **_window(layer), threads=threads)
        case [Conv2d() as layer] if _pointwise(layer) and layer.stride == (1, 1):
            weights = _weights(layer, "pointwise", prepared)
            return lambda x: sepconv.pointwise_conv2d(x, *weights, activation=layer.activation, threads=threads)
        case [Conv2d() as layer]:
            weights = _weights(layer, "conv", prepared)
            return lambda x: sepconv.conv2d(x, *weights, **_window(layer), threads=threads)
        case [DepthwiseConv2d() as first, Conv2d() as last] if _pointwise(last):
            (depthwise, *bias), (pointwise, *last_bias) = (
                _weights(first, "depthwise", prepared),
                _weights(last, "pointwise", prepared),
            )
            options = {**_window(first), "middle_activation": first.activation, "activation": last.activation}
            biases = (*bias, *last_bias)
            return lambda x: sepconv.separable_conv2d(x, depthwise, pointwise, *biases, **options, threads=threads)
    raise TypeError(f"layers are {[type(layer).__name__ for layer in layers]}, must be one operator's")


def _pointwise(layer: Conv2d) -> bool:
    return array_shape(layer.weight)[:2] == (1, 1)


def _weights(layer: Conv2d | DepthwiseConv2d, kind: Any, prepared: bool) -> tuple[Any, ...]:
    """The arguments that follow x: prepared weights, or weights and bias."""
    weight = np.ascontiguousarray(layer.weight, np.float32)
    bias = None if layer.bias is None else np.ascontiguousarray(layer.bias, np.float32)
    return (sepconv.prepare(weight, kind, bias),) if prepared else (weight, bias)


def _window(layer: Conv2d | DepthwiseConv2d) -> dict[str, Any]:
    return {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "activation": layer.activation,
    }
