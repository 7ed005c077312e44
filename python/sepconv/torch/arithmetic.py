"""Convolutions and their gradients on NHWC arrays with torch's weights: float32 on the kernels, float64 on the oracles.

The oracles are written to be read, not to be fast, and run on one thread. They are there so that gradients can be
checked in a precision in which a check says something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sepconv import _core, ops

Array: TypeAlias = NDArray[Any]  # float32 or float64, contiguous
Gradients: TypeAlias = tuple["Array | None", "Array | None", "Array | None"]
ArgumentPair: TypeAlias = tuple[int, int]
Window: TypeAlias = tuple[ArgumentPair, tuple[ArgumentPair, ArgumentPair], ArgumentPair]  # stride, padding, dilation

CLAMPS = ("none", "relu", "relu6")  # whose slope can be told from their result
SINGLE = np.dtype(np.float32)


def same_sides(kernel: Sequence[Any], dilation: Sequence[int]) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """((top, bottom), (left, right)) of torch's padding "same", which is of stride 1: the odd pixel comes after."""
    height, width = ((size - 1) * step for size, step in zip(kernel, dilation, strict=True))
    return (height // 2, height - height // 2), (width // 2, width - width // 2)


def separable(
    x: Array,
    weights: Sequence[Any],
    residual: Array | None,
    window: Window,
    activations: tuple[str, str],
    threads: int,
) -> Array:
    """[n, oh, ow, N] of [n, h, w, C], weights [C*M, 1, kh, kw] and [N, C*M, 1, 1], each with its bias or None."""
    depthwise_weight, depthwise_bias, pointwise_weight, pointwise_bias = weights
    middle = depthwise(x, depthwise_weight, depthwise_bias, window, activations[0], threads)
    return pointwise(middle, pointwise_weight, pointwise_bias, residual, activations[1], threads)


def depthwise(
    x: Array,
    weight: Array,
    bias: Array | None,
    window: Window,
    activation: str,
    threads: int,
    out: Array | None = None,
) -> Array:
    """[n, oh, ow, C*M] of [n, h, w, C], weight [C*M, 1, kh, kw]; in float32 into ``out``, where given."""
    stride, padding, dilation = window
    if x.dtype == SINGLE:
        result: Array = ops.depthwise_conv2d(
            x,
            _spread(x.shape[3], weight),
            bias,
            stride=stride,
            padding=padding,
            dilation=dilation,
            activation=activation,
            out=out,
            threads=threads,
        )
        return result
    oracle, given = _core.ref.depthwise_conv2d, np.zeros(len(weight)) if bias is None else bias
    filters = _spread(x.shape[3], weight)
    images = [oracle(image, filters, given, stride, padding, dilation)[0] for image in x]
    return np.stack([_core.ref.activate(activation, image) for image in images])


def depthwise_grad(
    x: Array, weight: Array, dy: Array, window: Window, needs: tuple[bool, bool], threads: int
) -> Gradients:
    """The gradients with respect to x, weight and bias; of the first, and of the others, where they are needed."""
    stride, padding, dilation = window
    if x.dtype == SINGLE:
        return _core.depthwise_grad(x, weight, dy, stride, padding, dilation, needs, threads)
    filters = _spread(x.shape[3], weight)
    each = [_core.ref.depthwise_grad(*pair, stride, padding, dilation) for pair in _with(filters, x, dy)]
    dx, dweights, dbias = zip(*each, strict=True)
    return np.stack(dx), sum(dweights).transpose(2, 3, 0, 1).reshape(weight.shape), sum(dbias)


def pointwise(
    x: Array,
    weight: Array,
    bias: Array | None,
    residual: Array | None,
    activation: str,
    threads: int,
    out: Array | None = None,
) -> Array:
    """[n, h, w, N] of [n, h, w, C], weight [N, C, 1, 1]; in float32 into ``out``, where given."""
    matrix = weight.transpose(2, 3, 1, 0)
    if x.dtype == SINGLE:
        options: Any = {"activation": activation, "residual": residual, "out": out, "threads": threads}
        result: Array = ops.pointwise_conv2d(x, matrix, bias, **options)
        return result
    given = np.zeros(len(weight)) if bias is None else bias
    plain = (1, 1), ((0, 0), (0, 0)), (1, 1)
    sums = np.stack([_core.ref.conv2d(image, matrix, given, *plain)[0] for image in x])
    if residual is not None:
        sums += residual
    return np.stack([_core.ref.activate(activation, image) for image in sums])


def pointwise_grad(
    x: Array, weight: Array, dy: Array, needs: tuple[bool, bool], threads: int, out: Array | None = None
) -> Gradients:
    """As :func:`depthwise_grad`; in float32 the first into ``out``, where given."""
    if x.dtype != SINGLE:
        matrix = weight[:, :, 0, 0].T
        each = [_core.ref.pointwise_grad(*pair) for pair in _with(matrix, x, dy)]
        dx, dweights, dbias = zip(*each, strict=True)
        return np.stack(dx), sum(dweights).T.reshape(weight.shape), sum(dbias)
    pixels, gradients = x.reshape(-1, x.shape[3]), dy.reshape(-1, dy.shape[3])
    into = None if out is None else out.reshape(pixels.shape)
    back, filters, bias = _core.pointwise_grad(pixels, weight[:, :, 0, 0], gradients, needs, threads, into)
    return (
        None if back is None else back.reshape(x.shape),
        None if filters is None else filters.reshape(weight.shape),
        bias,
    )


def activation_grad(activation: str, value: Array, dy: Array, threads: int, out: Array | None = None) -> Array:
    """dy times the slope at ``value``: of what came out of a clamp, of what went into any other activation.

    Into ``out``, where given, which may be either; dy itself where there is no activation.
    """
    return dy if activation == "none" else _core.activation_grad(activation, value, dy, threads, out)


def _spread(channels: int, weight: Array) -> Array:
    """[C*M, 1, kh, kw] as [kh, kw, C, M]."""
    outputs, _, kh, kw = weight.shape
    if outputs % channels:
        raise ValueError(f"weight had {outputs} filters, must have a multiple of the {channels} channels")
    return weight.reshape(channels, outputs // channels, kh, kw).transpose(2, 3, 0, 1)


def _with(weight: Array, x: Array, dy: Array) -> list[tuple[Array, Array, Array]]:
    return [(image, weight, gradient) for image, gradient in zip(x, dy, strict=True)]
