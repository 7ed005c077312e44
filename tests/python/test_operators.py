"""Every operator alone, on every ISA, over thousands of random shapes: within float32's error bound of the oracle."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import FUSIONS, ISAS, Float32, assert_layer, describe, every_isa, normal, run

from sepconv import graph
from sepconv.graph import Input, Layer, Padding, Shape

ACTIVATIONS = get_args(graph.ActivationName)
CLAMPS = ("none", "relu", "relu6")
# Around the vector widths 4, 8 and 16, and the panels of two vectors.
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 40, 49)


@dataclass
class Draw:
    """Random layers, all from one Random, so that hypothesis can shrink them."""

    random: Random
    integers: bool = False  # small integers: sums without rounding

    def size(self, most: int = 20) -> int:
        return self.random.choice((1, 2, 3)) if self.random.random() < 0.4 else self.random.randint(1, most)

    def channels(self) -> int:
        return self.random.choice(CHANNELS)

    def shape(self) -> Shape:
        return self.size(), self.size(), self.channels()

    def array(self, *shape: int, low: float | None = None) -> Float32:
        generator = np.random.default_rng(self.random.getrandbits(32))
        if self.integers:
            return generator.integers(-8, 9, shape).astype(np.float32)
        values = generator.standard_normal(shape, dtype=np.float32)
        return values if low is None else np.maximum(np.abs(values), np.float32(low))

    def activation(self) -> Any:
        return self.random.choice(CLAMPS if self.integers else ACTIVATIONS)

    def kernel(self) -> tuple[int, int]:
        square = self.random.choice((1, 2, 3, 3, 3, 5, 5, 7))
        return (
            (square, square) if self.random.random() < 0.7 else (self.random.randint(1, 7), self.random.randint(1, 7))
        )

    def stride(self) -> tuple[int, int]:
        both = self.random.choice((1, 1, 2, 2, 3))
        return (both, both) if self.random.random() < 0.8 else (self.random.randint(1, 4), self.random.randint(1, 4))

    def padding(self, shape: Shape, extent: tuple[int, int], most: tuple[int, int]) -> Padding:
        """Each side at most ``most`` of its axis, enough for the window to fit (if the limit allows it)."""
        sides = []
        for axis in (0, 1):
            before, after = self.random.randint(0, most[axis]), self.random.randint(0, most[axis])
            missing = extent[axis] - shape[axis] - before - after
            if missing > 0:
                before, after = before + missing // 2, after + missing - missing // 2
            sides.append((before, after))
        return sides[0], sides[1]

    def window(self, shape: Shape, kernel: tuple[int, int]) -> tuple[Padding, tuple[int, int]]:
        """Padding, now and then larger than the window and the input, and dilation."""
        dilation = (1, 1) if self.random.random() < 0.7 else (self.random.randint(1, 3), self.random.randint(1, 3))
        extent = (kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1
        wild = self.random.random() < 0.15
        return self.padding(shape, extent, (8, 8) if wild else (extent[0] // 2, extent[1] // 2)), dilation

    def bias(self, channels: int) -> Float32 | None:
        return self.array(channels) if self.random.random() < 0.7 else None

    def batch_norm(self, channels: int) -> graph.BatchNorm | None:
        if self.integers or self.random.random() < 0.6:
            return None
        gamma, beta, mean = (self.array(channels) for _ in range(3))
        return graph.BatchNorm(
            gamma=gamma,
            beta=beta,
            mean=mean,
            variance=self.array(channels, low=0.05),
            epsilon=self.random.choice((1e-3, 0)),
        )

    def convolution(self, shape: Shape, name: str, x: str, *, depthwise: bool) -> Layer:
        kernel, last = self.kernel(), self.random.choice((1, 1, 1, 2, 3, 4)) if depthwise else self.channels()
        outputs = shape[2] * last if depthwise else last
        padding, dilation = self.window(shape, kernel)
        kind: type[graph.Convolution] = graph.DepthwiseConv2d if depthwise else graph.Conv2d
        return kind(
            name=name,
            inputs=(x,),
            weight=self.array(*kernel, shape[2], last),
            bias=self.bias(outputs),
            batch_norm=self.batch_norm(outputs),
            stride=self.stride(),
            padding=padding,
            dilation=dilation,
            activation=self.activation(),
        )

    def pool(self, shape: Shape, name: str, x: str, *, largest: bool) -> Layer:
        kernel = tuple(self.random.randint(1, 6) for _ in range(2))
        stride = self.stride()
        sides = []
        for axis in (0, 1):  # as much padding as leaves no window without an element
            before = self.random.randint(0, kernel[axis] - 1)
            after = max(self.random.randint(0, kernel[axis] - 1), kernel[axis] - shape[axis] - before)
            while (before + shape[axis] + after - kernel[axis]) // stride[axis] * stride[axis] - before >= shape[axis]:
                after -= 1
            sides.append((before, after))
        window: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": tuple(sides)}
        activation, include = self.activation(), self.random.random() < 0.5
        if largest:
            return graph.MaxPool2d(name=name, inputs=(x,), **window, activation=activation)
        return graph.AveragePool2d(name=name, inputs=(x,), **window, activation=activation, include_padding=include)


Make = Callable[[Draw, Shape], Layer]


def reshaped(draw: Draw, shape: Shape) -> Layer:
    height, width, channels = shape
    to = draw.random.choice(
        [
            (1, 1, height * width * channels),
            (width, height, channels),
            (channels, width, height),
            (1, height * width, channels),
        ]
    )
    return graph.Reshape(name="y", inputs=("x",), shape=to)


def fully_connected(draw: Draw, shape: Shape) -> Layer:
    rows, outputs = shape[0] * shape[1] * shape[2], draw.random.choice((*CHANNELS, 100, 129))
    return graph.FullyConnected(
        name="y",
        inputs=("x",),
        weight=draw.array(rows, outputs),
        bias=draw.bias(outputs),
        activation=draw.activation(),
    )


def channel_slice(draw: Draw, shape: Shape) -> Layer:
    begin = draw.random.randint(0, shape[2] - 1)
    return graph.ChannelSlice(name="y", inputs=("x",), begin=begin, end=draw.random.randint(begin + 1, shape[2]))


def channel_shuffle(draw: Draw, shape: Shape) -> Layer:
    groups = [g for g in range(1, shape[2] + 1) if shape[2] % g == 0]
    return graph.ChannelShuffle(name="y", inputs=("x",), groups=draw.random.choice(groups))


def upsample(draw: Draw, shape: Shape) -> Layer:
    height, width = (draw.random.choice((n, 2 * n, draw.random.randint(n, 3 * n))) for n in shape[:2])
    return graph.Upsample(name="y", inputs=("x",), size=(height, width))


def zeros_around(draw: Draw, shape: Shape) -> Layer:
    sides = [(draw.random.randint(0, 5), draw.random.randint(0, 5)) for _ in range(2)]
    return graph.Pad(name="y", inputs=("x",), padding=(sides[0], sides[1]))


def layer_norm(draw: Draw, shape: Shape) -> Layer:
    scale, bias = (draw.random.choice((None, draw.array(shape[2]))) for _ in range(2))
    return graph.LayerNorm(name="y", inputs=("x",), scale=scale, bias=bias, epsilon=draw.random.choice((1e-5, 0.1)))


OPERATORS: dict[str, Make] = {
    "conv2d": lambda draw, shape: draw.convolution(shape, "y", "x", depthwise=False),
    "depthwise_conv2d": lambda draw, shape: draw.convolution(shape, "y", "x", depthwise=True),
    "fully_connected": fully_connected,
    "average_pool2d": lambda draw, shape: draw.pool(shape, "y", "x", largest=False),
    "max_pool2d": lambda draw, shape: draw.pool(shape, "y", "x", largest=True),
    "global_average_pool": lambda draw, shape: graph.GlobalAveragePool(name="y", inputs=("x",)),
    "add": lambda draw, shape: graph.Add(name="y", inputs=("x", "x2"), activation=draw.activation()),
    "activation": lambda draw, shape: graph.Activation(name="y", inputs=("x",), activation=draw.activation()),
    "softmax": lambda draw, shape: graph.Softmax(name="y", inputs=("x",), beta=draw.random.choice((1.0, 0.5, 3.0))),
    "layer_norm": layer_norm,
    "prelu": lambda draw, shape: graph.PRelu(name="y", inputs=("x",), slope=draw.array(shape[2])),
    "reshape": reshaped,
    "pad": zeros_around,
    "mul": lambda draw, shape: graph.Mul(name="y", inputs=("x", "x2"), activation=draw.activation()),
    "concat": lambda draw, shape: graph.Concat(name="y", inputs=draw.random.choice((("x", "x"), ("x",) * 19))),
    "channel_slice": channel_slice,
    "channel_shuffle": channel_shuffle,
    "upsample": upsample,
}
# Whose result on integers is one, or a clamp of one.
EXACT: tuple[str, ...] = (
    "conv2d",
    "depthwise_conv2d",
    "fully_connected",
    "max_pool2d",
    "add",
    "activation",
    "reshape",
    "pad",
    "mul",
)
EXACT += ("concat", "channel_slice", "channel_shuffle", "upsample")
# How many random layers each gets, on each ISA.
COUNTS = {"conv2d": 900, "depthwise_conv2d": 1200, "fully_connected": 200, "average_pool2d": 400, "max_pool2d": 300}


def check(make: Make, draw: Draw, isas: list[str], *, exact: bool = False) -> None:
    """One random layer, on a random batch, number of threads and fusion."""
    shape = draw.shape()
    layer = make(draw, shape)
    layers: list[Layer] = [Input(name=name, shape=shape) for name in ("x", "x2") if name in layer.inputs]
    inputs = [draw.array(draw.random.choice((1, 1, 2)), *shape)]
    inputs += [draw.array(*inputs[0].shape) for _ in layers[1:]]
    read = [inputs[("x", "x2").index(name)] for name in layer.inputs]
    fusion, threads = draw.random.choice(FUSIONS), draw.random.choice((1, 1, 3))
    for isa in isas:
        result = run([*layers, layer], inputs, isa, fusion=fusion, threads=threads)["y"]
        assert_layer(layer, read, result, exact=exact)


@every_isa
@pytest.mark.parametrize("operator", OPERATORS)
def test_random_shapes_stay_within_the_bound(operator: str, isa: str) -> None:
    for seed in range(COUNTS.get(operator, 100)):
        check(OPERATORS[operator], Draw(Random(seed)), [isa])


@every_isa
@pytest.mark.parametrize("operator", EXACT)
def test_small_integers_are_exact(operator: str, isa: str) -> None:
    for seed in range(COUNTS.get(operator, 100) // 4):
        check(OPERATORS[operator], Draw(Random(seed), integers=True), [isa], exact=True)


@pytest.mark.parametrize("operator", ("conv2d", "depthwise_conv2d", "average_pool2d"))
@settings(max_examples=60)
@given(source=st.randoms(use_true_random=False), integers=st.booleans())
def test_shrinkable(operator: str, source: random.Random, integers: bool) -> None:
    check(OPERATORS[operator], Draw(source, integers), ISAS, exact=integers and operator in EXACT)


# --- What random shapes meet too seldom


def single(layer: Layer, x: Float32, isa: str, threads: int = 1) -> Float32:
    return run([Input(name="x", shape=x.shape[1:]), layer], [x], isa, threads=threads)["y"]


@every_isa
@pytest.mark.parametrize(
    "shape, outputs", [((7, 7, 1024), 1024), ((14, 14, 512), 512), ((1, 1, 1280), 1000), ((56, 56, 64), 128)]
)
def test_pointwise_of_real_networks(shape: Shape, outputs: int, isa: str) -> None:
    layer = graph.Conv2d(name="y", inputs=("x",), weight=normal(1, 1, shape[2], outputs), bias=normal(outputs))
    x = normal(1, *shape)
    results = [single(layer, x, isa, threads) for threads in (1, 2, 5)]
    assert_layer(layer, [x], results[0])
    assert all(np.array_equal(result, results[0]) for result in results)


@every_isa
@pytest.mark.parametrize("kernel", (3, 5, 7))
@pytest.mark.parametrize("stride", (1, 2))
def test_depthwise_fast_paths_at_every_small_size(kernel: int, stride: int, isa: str) -> None:
    edge = kernel // 2
    for height in range(1, 10):
        for width in range(1, 20):
            for padding in ((edge, edge), (0, 1), (edge, 0), (edge, edge + 1)):
                if min(height, width) + sum(padding) < kernel:
                    continue
                layer = graph.DepthwiseConv2d(
                    name="y",
                    inputs=("x",),
                    weight=normal(kernel, kernel, 17, 1),
                    stride=(stride, stride),
                    padding=(padding, padding),
                    activation="relu6",
                )
                x = normal(1, height, width, 17)
                assert_layer(layer, [x], single(layer, x, isa))


@every_isa
def test_tall_images_pass_through_several_strips(isa: str) -> None:
    for width, channels in ((1, 3), (2, 17), (5, 33)):
        x = normal(1, 203, width, channels)
        for kernel, stride in ((3, 1), (3, 2), (5, 1), (4, 3)):
            common: dict[str, Any] = {"name": "y", "inputs": ("x",), "padding": ((1, 2), (2, 2))}
            common["stride"] = (stride, stride)
            depthwise = graph.DepthwiseConv2d(weight=normal(kernel, kernel, channels, 1), **common)
            dense = graph.Conv2d(weight=normal(kernel, kernel, channels, 5), **common)
            for convolution in (depthwise, dense):
                assert_layer(convolution, [x], single(convolution, x, isa, threads=3))


@every_isa
def test_nan_and_infinity_reach_the_output(isa: str) -> None:
    for activation in ("none", "relu", "relu6"):
        x = normal(1, 4, 4, 20)
        x[0, 1, 1, 18] = np.nan
        weight = normal(1, 1, 20, 35)
        layer = graph.Conv2d(name="y", inputs=("x",), weight=weight, activation=activation)
        result = single(layer, x, isa)
        assert np.isnan(result[0, 1, 1]).all()
        assert np.isnan(result).sum() == 35
    # Padding is zeros that take part: 0 * NaN and 0 * inf are NaN.
    for special in (np.nan, np.inf):
        for kind in (graph.Conv2d, graph.DepthwiseConv2d):
            weight = np.ones((3, 3, 1, 1), np.float32)
            weight[0] = special
            padded = kind(name="y", inputs=("x",), weight=weight, padding=((1, 1), (1, 1)))
            assert np.isnan(single(padded, np.ones((1, 4, 4, 1), np.float32), isa)[0, 0]).all()
    softmax = graph.Softmax(name="y", inputs=("x",))
    x = np.array([[1, np.nan, 2], [0, 1, 2]], np.float32).reshape(2, 1, 1, 3)
    result = single(softmax, x, isa)
    assert np.isnan(result[0]).all()
    assert np.isfinite(result[1]).all()


@every_isa
def test_denormals_count_as_zero(isa: str) -> None:
    tiny, huge = np.float32(1e-40), np.float32(1e30)
    for weight, value in ((tiny, huge), (huge, tiny)):
        layer = graph.Conv2d(
            name="y",
            inputs=("x",),
            weight=np.full((1, 1, 3, 5), weight),
            bias=np.full(5, 7, np.float32),
            activation="relu",
        )
        assert np.all(single(layer, np.full((1, 2, 2, 3), value), isa) == 7)


@every_isa
def test_denormals_count_as_zero_where_nothing_is_computed(isa: str) -> None:
    x = np.array([1e-40, -1e-40, 2e-38, -0.0, np.nan, np.inf] * 4, np.float32).reshape(1, 2, 2, 6)
    want = np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)
    pool: dict[str, Any] = {"name": "y", "inputs": ("x",), "kernel": (1, 1), "stride": (1, 1)}
    for layer in (
        graph.Activation(name="y", inputs=("x",), activation="none"),
        graph.PRelu(name="y", inputs=("x",), slope=np.ones(6, np.float32)),
        graph.MaxPool2d(**pool),
        graph.Pad(name="y", inputs=("x",), padding=((0, 0), (0, 0))),
        graph.Reshape(name="y", inputs=("x",), shape=(2, 2, 6)),
        graph.ChannelShuffle(name="y", inputs=("x",), groups=1),
    ):
        result = single(layer, x, isa)
        assert np.array_equal(result, want, equal_nan=True), describe(layer, [x])
        assert np.array_equal(np.signbit(result), np.signbit(want)), describe(layer, [x])


@every_isa
def test_views_of_weights_are_read_as_they_are(isa: str) -> None:
    whole = normal(6, 4, 10, 12)
    views = {
        "reversed": whole[::-1, ::-1, ::-1, ::-1],
        "stepped": whole[::2, 1::2, ::3, 2::2],
        "transposed": whole.transpose(1, 0, 3, 2),
        "broadcast": np.broadcast_to(whole[:, :, :, :1], whole.shape),
    }
    for name, weight in views.items():
        weight.flags.writeable = False
        channels = weight.shape[2]
        x = normal(1, 7, 7, channels)
        for kind in (graph.Conv2d, graph.DepthwiseConv2d):
            layer = kind(name="y", inputs=("x",), weight=weight)
            copied = dataclasses.replace(layer, weight=weight.copy())
            assert np.array_equal(single(layer, x, isa), single(copied, x, isa)), f"{name}: {describe(layer, [x])}"
