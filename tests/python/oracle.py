"""What the engine's tests share: the ISAs to test, layers run without a Model, and their results in float64.

The oracle is numpy alone, apart from csrc/ref and sepconv.verify: it agrees with them only where all are right.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sepconv import _core, graph
from sepconv.compile import compile_graph

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

UNIT = 2.0**-24  # the relative error of one float32 rounding
# Relative error allowed to sigmoid, silu, hard_swish and softmax, over values of at least 1.
TRANSCENDENTAL = 6e-7

FUSIONS = ("never", "automatic", "always")
ISAS = [os.environ["SEPCONV_ISA"]] if os.environ.get("SEPCONV_ISA") else _core.supported_isas()
every_isa = pytest.mark.parametrize("isa", ISAS)


def normal(*shape: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def run(
    layers: Sequence[graph.Layer],
    inputs: Sequence[Float32],
    isa: str,
    *,
    outputs: Sequence[str] | None = None,
    fusion: str = "automatic",
    threads: int = 1,
) -> dict[str, Float32]:
    """The outputs (None: those of no reader) by name, [n, h, w, c], on an ISA that need not be the one in use."""
    names = graph.outputs(layers) if outputs is None else tuple(outputs)
    plan = _core.Plan(compile_graph(layers, names, isa), fusion)
    return dict(zip(names, plan.run([np.ascontiguousarray(x) for x in inputs], threads), strict=True))


def assert_layer(layer: graph.Layer, inputs: Sequence[Float32], result: Float32, *, exact: bool = False) -> None:
    """That ``result`` [n, h, w, c] is what the layer makes of ``inputs``; ``exact``: without any rounding."""
    assert np.all(np.isfinite(result)), describe(layer, inputs)
    for image in range(len(result)):
        want, bound = expected(layer, [x[image].astype(np.float64) for x in inputs])
        assert result[image].shape == want.shape, describe(layer, inputs)
        error = np.abs(result[image] - want)
        allowed = np.zeros(()) if exact else bound + np.spacing(np.abs(want).astype(np.float32))
        at = np.unravel_index(np.argmax(error - allowed), error.shape)
        assert np.all(error <= allowed), (
            f"{describe(layer, inputs)}: at {at} of image {image} {result[image][at]!r}, must be {want[at]!r}: "
            f"an error of {error[at]:.3g} where {np.broadcast_to(allowed, error.shape)[at]:.3g} is allowed"
        )


def describe(layer: graph.Layer, inputs: Sequence[Float32]) -> str:
    """A layer with shapes in place of its arrays, for messages."""
    fields = {name: value for name, value in vars(layer).items() if name not in ("name", "inputs")}
    shown = {name: list(value.shape) if isinstance(value, np.ndarray) else value for name, value in fields.items()}
    shown["batch_norm"] = shown.get("batch_norm") is not None
    return f"{type(layer).__name__} of {[x.shape for x in inputs]} with {shown}"


def expected(layer: graph.Layer, x: Sequence[Float64]) -> tuple[Float64, Float64]:
    """What the layer gives of one image's inputs, and by how much float32 may miss it, beyond one ulp."""
    match layer:
        case graph.Conv2d():
            weight, bias = _folded(layer)
            want, magnitude = _dense(_windows(x[0], weight.shape[:2], layer), weight, bias)
            products = weight[..., 0].size
        case graph.FullyConnected():
            weight, bias = _float64(layer.weight), _float64(layer.bias, len(np.asarray(layer.weight)[0]))
            want, magnitude = _dense(x[0].reshape(1, 1, -1), weight, bias)
            products = len(weight)
        case graph.DepthwiseConv2d():
            weight, bias = _folded(layer)
            windows = _windows(x[0], weight.shape[:2], layer)
            want, magnitude = (
                np.einsum("yxijc,ijcm->yxcm", a, b).reshape(*windows.shape[:2], -1) + c
                for a, b, c in ((windows, weight, bias), (np.abs(windows), np.abs(weight), np.abs(bias)))
            )
            products = weight[..., 0, 0].size
        case graph.Add():
            want = x[0] + x[1]
            return _activated(layer.activation, want, np.zeros_like(want))  # the ulp is all that it may miss
        case graph.Mul():
            want = x[0] * x[1]
            return _activated(layer.activation, want, np.zeros_like(want))
        case graph.MaxPool2d():
            want = _pool_windows(x[0], layer, -np.inf).max(axis=(2, 3))
            return _activated(layer.activation, want, np.zeros_like(want))
        case graph.AveragePool2d():
            inside = _pool_windows(np.ones_like(x[0]), layer, 1.0 if layer.include_padding else 0.0).sum(axis=(2, 3))
            want = _pool_windows(x[0], layer, 0.0).sum(axis=(2, 3)) / inside
            magnitude = _pool_windows(np.abs(x[0]), layer, 0.0).sum(axis=(2, 3)) / inside
            products = layer.kernel[0] * layer.kernel[1]
        case graph.GlobalAveragePool():
            want, magnitude = x[0].mean(axis=(0, 1), keepdims=True), np.abs(x[0]).mean(axis=(0, 1), keepdims=True)
            products = x[0].shape[0] * x[0].shape[1]
        case graph.Activation():
            return _activated(layer.activation, x[0], np.zeros_like(x[0]))
        case graph.Softmax():
            scaled = layer.beta * x[0]
            power = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
            want = power / power.sum(axis=-1, keepdims=True)
            # The argument of each exponential is rounded twice; its error is the exponential's relative one.
            span = 2 * UNIT * (np.abs(scaled) + 2 * np.abs(scaled).max(axis=-1, keepdims=True))
            return want, want * (TRANSCENDENTAL + span + span.max(axis=-1, keepdims=True))
        case graph.PRelu():
            want = np.where(x[0] < 0, np.asarray(layer.slope, np.float64) * x[0], x[0])
            return want, UNIT * np.abs(want)
        case graph.LayerNorm():
            centered = x[0] - x[0].mean(axis=-1, keepdims=True)
            deviation = np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + layer.epsilon)
            scale, bias = (np.asarray(0.0 if a is None else a, np.float64) for a in (layer.scale, layer.bias))
            scale = np.asarray(1.0) if layer.scale is None else scale
            spread = (np.abs(x[0]) + np.abs(x[0]).mean(axis=-1, keepdims=True)) / deviation * np.abs(scale)
            return centered / deviation * scale + bias, 4 * UNIT * (spread + np.abs(bias))
        case graph.Reshape():
            return x[0].reshape(layer.shape), np.zeros(layer.shape)
        case graph.Pad():
            want = np.pad(x[0], (*layer.padding, (0, 0)))
            return want, np.zeros_like(want)
        case graph.Concat():
            want = np.concatenate(x, axis=2)
            return want, np.zeros_like(want)
        case graph.ChannelSlice():
            want = x[0][:, :, layer.begin : layer.end]
            return want, np.zeros_like(want)
        case graph.ChannelShuffle():
            channels = np.arange(x[0].shape[2]).reshape(layer.groups, -1).T.reshape(-1)
            return x[0][:, :, channels], np.zeros_like(x[0])
        case graph.Upsample():
            rows, columns = (
                [i * n // size for i in range(size)] for n, size in zip(x[0].shape, layer.size, strict=False)
            )
            want = x[0][rows][:, columns]
            return want, np.zeros_like(want)
        case _:
            raise AssertionError(f"no oracle for {type(layer).__name__}")
    return _activated(getattr(layer, "activation", "none"), want, (products + 4) * UNIT * magnitude)


def _float64(array: Any, channels: int = 0) -> Float64:
    return np.zeros(channels) if array is None else np.asarray(array, dtype=np.float64)


def _folded(layer: graph.Conv2d | graph.DepthwiseConv2d) -> tuple[Float64, Float64]:
    weight = _float64(layer.weight)
    per_channel = weight.shape[3:] if isinstance(layer, graph.Conv2d) else weight.shape[2:]
    bias = _float64(layer.bias, int(np.prod(per_channel)))
    norm = layer.batch_norm
    if norm is None:
        return weight, bias
    scale = _float64(norm.gamma) / np.sqrt(_float64(norm.variance) + norm.epsilon)
    return weight * scale.reshape(per_channel), (bias - _float64(norm.mean)) * scale + _float64(norm.beta)


def _dense(windows: Float64, weight: Float64, bias: Float64) -> tuple[Float64, Float64]:
    rows = windows.reshape(*windows.shape[:2], -1)
    matrix = weight.reshape(rows.shape[2], -1)
    return rows @ matrix + bias, np.abs(rows) @ np.abs(matrix) + np.abs(bias)


def _windows(x: Float64, kernel: tuple[int, ...], layer: graph.Conv2d | graph.DepthwiseConv2d) -> Float64:
    """[out_h, out_w, kh, kw, c]."""
    padded = np.pad(x, (*layer.padding, (0, 0)))
    (kh, kw), (dh, dw), (sh, sw) = kernel, layer.dilation, layer.stride
    views = np.lib.stride_tricks.sliding_window_view(padded, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), (0, 1))
    return np.moveaxis(views[::sh, ::sw, :, ::dh, ::dw], 2, 4)


def _pool_windows(x: Float64, layer: graph.Pool2d, fill: float) -> Float64:
    """[out_h, out_w, kh, kw, c], ``fill`` where the window lies outside."""
    padded = np.pad(x, (*layer.padding, (0, 0)), constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(padded, layer.kernel, (0, 1))
    return np.moveaxis(views[:: layer.stride[0], :: layer.stride[1]], 2, 4)


def _activated(name: str, x: Float64, bound: Float64) -> tuple[Float64, Float64]:
    if name in ("none", "relu", "relu6"):
        return {"none": x, "relu": np.maximum(x, 0), "relu6": np.clip(x, 0, 6)}[name], bound
    sixth = np.clip(x + 3, 0, 6) / 6
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-x))
        normal = np.vectorize(lambda y: math.erfc(-y * math.sqrt(0.5)) / 2, [np.float64])(x)
        tanh = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    result = {
        "hard_sigmoid": sixth,
        "hard_swish": x * sixth,
        "sigmoid": sigmoid,
        "silu": x * sigmoid,
        "gelu": x * normal,
        "gelu_tanh": x * (1 + tanh) / 2,
    }[name]
    # The steepest slope is hard_swish's just below 3.
    return result, 1.5 * bound + TRANSCENDENTAL * np.maximum(np.abs(x), 1.0)
