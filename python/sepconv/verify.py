"""Every layer of a model against its naive oracle in float64.

The network is run once more with nothing fused and every layer's result kept. Each result is then compared with the
oracle's for the very values that the layer read, so that an error shows where it arises. Convolutions must stay
within (K + 4) · 2^-24 · Σ|x·w| plus one unit in the last place, K the products in the sum: what one float32 rounding
for each product and sum, and for the folded weight, allows; each may be a denormal too, which counts as zero. Beyond
float32 infinity is right. At last the fused model must give the unfused one's bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .compile import compile_graph
from .graph import (
    NO_PADDING,
    Activation,
    Add,
    AveragePool2d,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Conv2d,
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
)
from .lowering import folded
from .table import format_table

if TYPE_CHECKING:
    from .model import Model

Plan, ref = _core.Plan, _core.ref
Float64 = NDArray[np.float64]
UNIT = 2.0**-24
# Relative error of the kernels for sigmoid and exp, over an already rounded argument.
TRANSCENDENTAL = 6e-7
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class LayerError:
    """One layer's largest absolute error, the largest share of the bound that an error took, and the verdict."""

    name: str
    type: str
    max_error: float
    share_of_bound: float

    @property
    def ok(self) -> bool:
        return self.share_of_bound <= 1.0


@dataclass(frozen=True)
class Verification:
    """What :meth:`sepconv.Model.verify` found; ``str`` gives a table."""

    layers: tuple[LayerError, ...]
    fused_matches: bool

    @property
    def ok(self) -> bool:
        return self.fused_matches and all(layer.ok for layer in self.layers)

    def __str__(self) -> str:
        rows = [
            (row.name, row.type, f"{row.max_error:.3g}", f"{row.share_of_bound:.1%}", "ok" if row.ok else "FAIL")
            for row in self.layers
        ]
        table = format_table(("layer", "type", "max error", "of the bound", ""), rows, align="<<>><")
        same = "the same bits as" if self.fused_matches else "FAIL: other bits than"
        return f"{table}\nThe fused plan gives {same} the layers one by one."


def verify(model: Model, *inputs: NDArray[Any]) -> Verification:
    """See the module. ``inputs`` as for calling the model; only their first images are used."""
    first = [x[:1] for x in model.prepared(*inputs)]
    fused = model(*first)
    fused_outputs = fused if isinstance(fused, tuple) else (fused,)
    names = [layer.name for layer in model.layers]
    plan = Plan(compile_graph(model.layers, names), "never")
    values = dict(zip(names, plan.run(first, 1), strict=True))
    errors = [
        _layer_error(layer, [values[name][0] for name in layer.inputs], values[layer.name][0])
        for layer in model.layers
        if not isinstance(layer, Input)
    ]
    matches = all(
        np.array_equal(result.ravel(), values[port.name].ravel(), equal_nan=True)
        for result, port in zip(fused_outputs, model.outputs, strict=True)
    )
    return Verification(tuple(errors), matches)


def _layer_error(layer: Layer, inputs: list[NDArray[np.float32]], result: NDArray[np.float32]) -> LayerError:
    # Denormals count as zero inside a run.
    x = [np.where(np.abs(value) < SMALLEST, 0.0, value.astype(np.float64)) for value in inputs]
    want, bound = oracle(layer, x)
    with np.errstate(invalid="ignore", over="ignore"):
        overflows = np.isinf(result) & (want.astype(np.float32) == result)
        right = (want == result) | overflows | (np.isnan(want) & np.isnan(result))
        error = np.where(right, 0.0, np.abs(result - want))
        allowed = bound + np.abs(want) * 2 * UNIT + SMALLEST
        share = np.where(error == 0, 0.0, error / allowed)
    share = np.where(np.isnan(share), np.inf, share)
    return LayerError(layer.name, type(layer).__name__, float(np.max(error)), float(np.max(share)))


def oracle(layer: Layer, x: list[Float64]) -> tuple[Float64, Float64]:
    """What the layer should give for inputs [h, w, c], and by how much float32 arithmetic may miss it."""
    match layer:
        case Conv2d() | DepthwiseConv2d():
            weight, bias = folded(layer)
            convolve = ref.conv2d if isinstance(layer, Conv2d) else ref.depthwise_conv2d
            want, magnitude = convolve(x[0], weight, bias, layer.stride, layer.padding, layer.dilation)
            products = weight.shape[0] * weight.shape[1] * (weight.shape[2] if isinstance(layer, Conv2d) else 1)
            return _activated(layer.activation, want, _rounding(products, magnitude))
        case FullyConnected():
            weight = np.asarray(layer.weight, dtype=np.float64).reshape(*x[0].shape, -1)
            bias = np.zeros(weight.shape[3]) if layer.bias is None else np.asarray(layer.bias, dtype=np.float64)
            want, magnitude = ref.conv2d(x[0], weight, bias, (1, 1), NO_PADDING, (1, 1))
            return _activated(layer.activation, want, _rounding(x[0].size, magnitude))
        case Add():
            return _activated(layer.activation, x[0] + x[1], UNIT * np.abs(x[0] + x[1]))
        case Mul():
            want = ref.mul(x[0], x[1])
            return _activated(layer.activation, want, UNIT * np.abs(want))
        case AveragePool2d():
            window = (layer.kernel, layer.stride, layer.padding, layer.include_padding)
            magnitude = ref.average_pool2d(np.abs(x[0]), *window)
            bound = _rounding(layer.kernel[0] * layer.kernel[1], magnitude)
            return _activated(layer.activation, ref.average_pool2d(x[0], *window), bound)
        case MaxPool2d():
            want = ref.max_pool2d(x[0], layer.kernel, layer.stride, layer.padding)
            return _activated(layer.activation, want, np.zeros_like(want))
        case GlobalAveragePool():
            pixels = x[0].shape[0] * x[0].shape[1]
            return ref.global_average_pool(x[0]), _rounding(pixels, ref.global_average_pool(np.abs(x[0])))
        case Activation():
            return _activated(layer.activation, x[0], np.zeros_like(x[0]))
        case Softmax():
            want = ref.softmax(x[0], layer.beta)
            # The argument of each exponential is rounded: an error of its size times the result.
            span = np.abs(layer.beta) * (np.abs(x[0]) + np.max(np.abs(x[0]), axis=-1, keepdims=True))
            return want, want * (TRANSCENDENTAL + 2 * UNIT * (span + np.max(span, axis=-1, keepdims=True)))
        case PRelu():
            want = np.where(x[0] < 0, np.asarray(layer.slope, np.float32).astype(np.float64) * x[0], x[0])
            return want, UNIT * np.abs(want)
        case LayerNorm():
            return _layer_norm(layer, x[0])
        case Reshape():
            return _exact(x[0].reshape(layer.shape))
        case Pad():
            return _exact(np.pad(x[0], (*layer.padding, (0, 0))))
        case Concat():
            return _exact(ref.concat(x))
        case ChannelSlice():
            return _exact(ref.channel_slice(x[0], layer.begin, layer.end))
        case ChannelShuffle():
            return _exact(ref.channel_shuffle(x[0], layer.groups))
        case Upsample():
            return _exact(ref.upsample(x[0], layer.size))
    raise ValueError(f"layer {layer.name!r} is a {type(layer).__name__}, which has no oracle")


def _layer_norm(layer: LayerNorm, x: Float64) -> tuple[Float64, Float64]:
    channels = x.shape[-1]
    scale, bias = (
        np.full(channels, missing) if array is None else np.asarray(array, np.float32).astype(np.float64)
        for array, missing in ((layer.scale, 1.0), (layer.bias, 0.0))
    )
    want = ref.layer_norm(x, scale.tolist(), bias.tolist(), layer.epsilon)
    # The kernels find mean and variance in float64 and round what remains of x, the factors and the results.
    spread = np.abs(x) + np.mean(np.abs(x), axis=-1, keepdims=True)
    factor = np.abs(scale) / np.sqrt(np.var(x, axis=-1, keepdims=True) + layer.epsilon)
    return want, 4 * UNIT * (spread * factor + np.abs(bias))


def _rounding(terms: int, magnitude: Float64) -> Float64:
    """By how much a sum of so many terms, whose absolute values add up to ``magnitude``, may miss."""
    return (terms + 4) * (UNIT * magnitude + SMALLEST)


def _exact(want: Float64) -> tuple[Float64, Float64]:
    return want, np.zeros_like(want)


def _activated(activation: str, want: Float64, bound: Float64) -> tuple[Float64, Float64]:
    result = ref.activate(activation, want)
    if activation in ("none", "relu", "relu6"):
        return result, bound
    # Their slopes are at most 1.5 (hard_swish's just below 3); and they round a few times more.
    return result, 1.5 * bound + TRANSCENDENTAL * np.maximum(np.abs(want), 1.0)
