"""Networks of several layers, on every ISA: fused or not they give one result, to the bit, and each layer its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import FUSIONS, ISAS, Float32, assert_layer, every_isa, run

from sepconv import _core, graph
from sepconv.compile import compile_graph
from sepconv.graph import Input, Layer, Shape
from sepconv.models import (
    efficientnet_lite0_layers,
    efficientnet_lite_layers,
    feature_pyramid_layers,
    mnasnet_layers,
    mobilenet_v1_layers,
    mobilenet_v2_layers,
    mobilenet_v3_layers,
    mobilenet_v4_conv_layers,
    shufflenet_v2_layers,
    ssdlite_layers,
)

CLAMPS = ("none", "relu", "relu6")
ACTIVATIONS = (*CLAMPS, "hard_swish", "sigmoid")


def normal(random: Random, *shape: int) -> Float32:
    return np.random.default_rng(random.getrandbits(32)).standard_normal(shape, dtype=np.float32)


@dataclass
class Builder:
    """Grows a random network; each method appends layers and returns the last one's name."""

    random: Random
    layers: list[Layer] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def append(self, kind: type[Layer], *inputs: str, **arguments: Any) -> str:
        name = f"n{len(self.layers)}"
        layer = kind(name=name, inputs=inputs, **arguments)
        self.shapes[name] = layer.output_shape(*(self.shapes[x] for x in inputs))
        self.layers.append(layer)
        return name

    def input(self, shape: Shape | None = None) -> str:
        size = [self.random.choice((1, 2, 3, self.random.randint(4, 24))) for _ in range(2)]
        return self.append(Input, shape=shape or (size[0], size[1], self.random.choice((1, 3, 8, 16, 19))))

    def convolution(
        self, kind: type[graph.Convolution], x: str, weight: Float32, activation: str, **window: Any
    ) -> str:
        channels = weight.shape[2] * weight.shape[3] if kind is graph.DepthwiseConv2d else weight.shape[3]
        weight *= np.float32(
            1 / np.sqrt(weight[..., :1, 0].size if kind is graph.DepthwiseConv2d else weight[..., 0].size)
        )
        norm = None
        if self.random.random() < 0.5:
            gamma, beta, mean, variance = (normal(self.random, channels) for _ in range(4))
            norm = graph.BatchNorm(
                gamma=gamma, beta=beta, mean=mean, variance=variance**2 + np.float32(0.3), epsilon=1e-3
            )
        bias = normal(self.random, channels) if self.random.random() < 0.5 else None
        return self.append(kind, x, weight=weight, bias=bias, batch_norm=norm, activation=activation, **window)

    def pointwise(self, x: str, channels: int | None = None, activation: str | None = None) -> str:
        weight = normal(self.random, 1, 1, self.shapes[x][2], channels or self.random.choice((1, 5, 8, 16, 24, 33, 48)))
        return self.convolution(
            graph.Conv2d, x, weight, self.random.choice(ACTIVATIONS) if activation is None else activation
        )

    def dense(self, x: str) -> str:
        weight = normal(self.random, 3, 3, self.shapes[x][2], self.random.choice((4, 16, 20)))
        return self.convolution(graph.Conv2d, x, weight, self.random.choice(CLAMPS), **self.window(x, 3))

    def depthwise(self, x: str, stride: int | None = None) -> str:
        kernel = self.random.choice((1, 3, 3, 3, 5))
        weight = normal(self.random, kernel, kernel, self.shapes[x][2], self.random.choice((1, 1, 1, 2)))
        window = self.window(x, kernel, stride)
        return self.convolution(graph.DepthwiseConv2d, x, weight, self.random.choice(ACTIVATIONS), **window)

    def window(self, x: str, kernel: int, stride: int | None = None) -> dict[str, Any]:
        step = stride or self.random.choice((1, 1, 1, 2))
        sides = [graph.same_padding(self.shapes[x][axis], kernel, step) for axis in (0, 1)]
        if self.random.random() < 0.2:  # also more than the window can use
            sides = [(before + self.random.randint(0, 4), after + self.random.randint(0, 4)) for before, after in sides]
        return {"stride": (step, step), "padding": tuple(sides)}

    def separable(self, x: str) -> str:
        return self.pointwise(self.depthwise(x))

    def inverted_residual(self, x: str) -> str:
        shape = self.shapes[x]
        expanded = self.pointwise(x, self.random.choice((8, 24, 35)), "relu6")
        sides = tuple(graph.same_padding(shape[axis], 3, 1) for axis in (0, 1))
        weight = normal(self.random, 3, 3, self.shapes[expanded][2], 1)
        middle = self.convolution(graph.DepthwiseConv2d, expanded, weight, "relu6", padding=sides)
        projected = self.pointwise(middle, shape[2], "none")
        if self.random.random() < 0.3:
            return self.add(projected, x)
        return self.add(x, projected)

    def add(self, a: str, b: str) -> str:
        added = self.append(graph.Add, a, b, activation=self.random.choice(("none", "none", "relu", "hard_swish")))
        return self.activation(added) if self.random.random() < 0.3 else added

    def twice(self, x: str) -> str:
        return self.append(graph.Add, x, x)

    def residual(self, x: str) -> str:
        """Adds two results of one shape, where there is another one than ``x``."""
        others = [name for name, shape in self.shapes.items() if shape == self.shapes[x] and name != x]
        return self.add(x, self.random.choice(others)) if others else self.pointwise(x, self.shapes[x][2], "none")

    def two_branches(self, x: str) -> str:
        channels = self.random.choice((8, 17))
        return self.add(self.pointwise(x, channels, "none"), self.pointwise(x, channels, "none"))

    def pad_then_convolution(self, x: str) -> str:
        sides = [(self.random.randint(0, 3), self.random.randint(0, 3)) for _ in range(2)]
        padded = self.append(graph.Pad, x, padding=(sides[0], sides[1]))
        return self.random.choice((self.depthwise, self.dense, self.pointwise))(padded)

    def activation(self, x: str) -> str:
        return self.append(graph.Activation, x, activation=self.random.choice(("none", *ACTIVATIONS)))

    def pool(self, x: str) -> str:
        kind: type[Layer] = self.random.choice((graph.AveragePool2d, graph.MaxPool2d))
        kernel = tuple(min(2, n) for n in self.shapes[x][:2])
        return self.append(kind, x, kernel=kernel, stride=(1, 2))

    def reshape(self, x: str) -> str:
        height, width, channels = self.shapes[x]
        return self.append(
            graph.Reshape, x, shape=self.random.choice(((height, width, channels), (width, height, channels)))
        )

    def squeeze_and_excite(self, x: str) -> str:
        mean = self.append(graph.GlobalAveragePool, x)
        factors = self.pointwise(self.pointwise(mean), self.shapes[x][2], self.random.choice(("hard_sigmoid", "relu6")))
        return self.multiply(x, factors)

    def multiply(self, a: str, b: str | None = None) -> str:
        others = [name for name, shape in self.shapes.items() if shape in (self.shapes[a], (1, 1, self.shapes[a][2]))]
        activation = self.random.choice(("none", "none", "relu", "hard_swish"))
        return self.append(graph.Mul, a, b or self.random.choice(others), activation=activation)

    def concat(self, x: str) -> str:
        others = [name for name, shape in self.shapes.items() if shape[:2] == self.shapes[x][:2]]
        count = self.random.choice((0, 1, 1, 2, 20))
        together = [x, *self.random.choices(others, k=count)]
        self.random.shuffle(together)
        if sum(self.shapes[name][2] for name in together) > 200:
            together = together[:2]
        return self.append(graph.Concat, *together)

    def split(self, x: str) -> str:
        channels = self.shapes[x][2]
        middle = self.random.randint(1, channels)
        first = self.append(graph.ChannelSlice, x, begin=0, end=middle)
        rest = self.append(graph.ChannelSlice, x, begin=min(middle, channels - 1), end=channels)
        return self.random.choice((first, rest))

    def shuffle(self, x: str) -> str:
        channels = self.shapes[x][2]
        groups = [g for g in range(1, channels + 1) if channels % g == 0]
        return self.append(graph.ChannelShuffle, x, groups=self.random.choice(groups))

    def shuffle_unit(self, x: str) -> str:
        """Half of the channels through a convolution, then interleaved with the other half, and split again."""
        if self.shapes[x][2] % 2:
            x = self.pointwise(x, 2 * self.random.choice((3, 8, 16, 29)))
        half = self.shapes[x][2] // 2
        kept = self.append(graph.ChannelSlice, x, begin=0, end=half)
        other = self.pointwise(self.append(graph.ChannelSlice, x, begin=half, end=2 * half), half)
        return self.append(graph.ChannelShuffle, self.append(graph.Concat, kept, other), groups=2)

    def upsample(self, x: str) -> str:
        height, width, _ = self.shapes[x]
        if height * width > 400:
            return self.pool(x)
        return self.append(
            graph.Upsample, x, size=(height * self.random.choice((1, 2)), width + self.random.randint(0, width))
        )

    def prelu(self, x: str) -> str:
        return self.append(graph.PRelu, x, slope=normal(self.random, self.shapes[x][2]))

    def layer_norm(self, x: str) -> str:
        channels = self.shapes[x][2]
        scale, bias = (self.random.choice((None, normal(self.random, channels))) for _ in range(2))
        return self.append(graph.LayerNorm, x, scale=scale, bias=bias, epsilon=self.random.choice((1e-6, 1e-2)))

    def softmax(self, x: str) -> str:
        return self.append(graph.Softmax, x)

    def head(self, x: str) -> str:
        pooled = self.append(graph.GlobalAveragePool, x)
        weight = normal(self.random, self.shapes[pooled][2], self.random.choice((3, 20)))
        return self.append(graph.FullyConnected, pooled, weight=weight, bias=normal(self.random, weight.shape[1]))


STEPS = (
    *(Builder.separable, Builder.inverted_residual, Builder.inverted_residual, Builder.residual) * 2,
    *(Builder.pointwise, Builder.depthwise, Builder.dense, Builder.two_branches, Builder.twice),
    *(Builder.pad_then_convolution, Builder.activation, Builder.pool, Builder.reshape, Builder.softmax),
    *(Builder.layer_norm, Builder.prelu),
    *(Builder.squeeze_and_excite, Builder.multiply, Builder.concat, Builder.split, Builder.shuffle),
    *(Builder.shuffle_unit, Builder.upsample),
)


def random_network(random: Random) -> Builder:
    builder = Builder(random)
    starts = [builder.input()]
    while random.random() > 0.7:
        starts.append(builder.input(random.choice((None, builder.shapes[starts[0]]))))
    last = random.choice(starts)
    for _ in range(random.randint(1, 6)):
        if random.random() < 0.2:
            last = random.choice(list(builder.shapes))  # another consumer of an earlier result
        last = random.choice(STEPS)(builder, last)
    if random.random() < 0.3:
        builder.head(last)
    return builder


def check(builder: Builder, isas: Sequence[str]) -> None:
    layers, random = builder.layers, builder.random
    names = [layer.name for layer in layers]
    batch = random.choice((1, 2, 9))
    inputs = [normal(random, batch, *layer.shape) for layer in layers if isinstance(layer, Input)]
    finals = graph.outputs(layers)
    # Dead layers, outputs in the middle, one output asked for twice.
    chosen = [finals, random.choices(names, k=random.randint(1, 3))]
    for isa in isas:
        values = run(layers, inputs, isa, outputs=names, fusion="never")
        for layer in layers:
            if not isinstance(layer, Input):
                assert_layer(layer, [values[x] for x in layer.inputs], values[layer.name])
        for fusion in FUSIONS:
            for outputs in (*chosen, names):
                plan = _core.Plan(compile_graph(layers, outputs, isa), fusion)
                results = plan.run(inputs, random.choice((1, 2, 5)))
                for name, result in zip(outputs, results, strict=True):
                    assert result.tobytes() == values[name].tobytes(), (
                        f"{name} differs with fusion {fusion!r}, outputs {outputs} in\n"
                        + "\n".join(map(summary, layers))
                    )


def summary(layer: Layer) -> str:
    arguments = {name: getattr(value, "shape", value) for name, value in vars(layer).items() if name != "batch_norm"}
    return f"{type(layer).__name__} {arguments}"


@pytest.mark.parametrize("block", range(10))
@every_isa
def test_random_networks(block: int, isa: str) -> None:
    for seed in range(30 * block, 30 * block + 30):
        check(random_network(Random(seed)), [isa])


@settings(max_examples=40)
@given(source=st.randoms(use_true_random=False))
def test_shrinkable(source: Random) -> None:
    check(random_network(source), ISAS)


@every_isa
@pytest.mark.parametrize("step", (Builder.separable, Builder.inverted_residual, Builder.pad_then_convolution))
def test_chains_at_every_small_size(step: Any, isa: str) -> None:
    for height in range(1, 6):
        for width in (1, 2, 3, 7, 60):
            builder = Builder(Random(height * 100 + width))
            last = builder.input((height, width, 9))
            for _ in range(3):
                last = step(builder, last)
            check(builder, [isa])


@every_isa
def test_chains_of_more_layers_than_a_step_holds(isa: str) -> None:
    builder = Builder(Random(0))
    last = builder.input((40, 9, 5))
    for _ in range(25):
        last = builder.pointwise(builder.depthwise(last, stride=1), 6, "relu")
    check(builder, [isa])


REAL = {
    "v1": mobilenet_v1_layers(alpha=0.5, resolution=96, classes=11),
    "v1_full": mobilenet_v1_layers(alpha=0.25, resolution=65, classes=11, variant="full"),
    "v1_shallow": mobilenet_v1_layers(alpha=0.5, resolution=97, classes=11, variant="shallow"),
    "v1_wide": mobilenet_v1_layers(resolution=224),  # large enough to be streamed of its own accord
    "v2": mobilenet_v2_layers(resolution=97, classes=11),
    "v2_wide": mobilenet_v2_layers(resolution=224),
    "lite0": efficientnet_lite0_layers(resolution=81, classes=11),
    "lite2": efficientnet_lite_layers(2, resolution=65, classes=11),
    "v3_large": mobilenet_v3_layers("large", resolution=97, classes=11),
    "v3_small": mobilenet_v3_layers("small", alpha=0.75, resolution=96, classes=11),
    "v3_minimalistic": mobilenet_v3_layers("large", alpha=0.5, resolution=64, classes=11, minimalistic=True),
    "v4_small": mobilenet_v4_conv_layers("small", resolution=96, classes=11),
    "v4_medium": mobilenet_v4_conv_layers("medium", alpha=0.5, resolution=64, classes=11),
    "mnasnet_a1": mnasnet_layers(resolution=65, classes=11, variant="a1"),
    "mnasnet_b1": mnasnet_layers(0.5, resolution=64, classes=11),
    "shufflenet": shufflenet_v2_layers(resolution=96, classes=11),
    "shufflenet_half": shufflenet_v2_layers(0.5, resolution=65, classes=11),
    "ssdlite": ssdlite_layers(0.35, resolution=96, classes=5),
    "pyramid": feature_pyramid_layers(0.5, resolution=97, channels=24),
}


@every_isa
@pytest.mark.parametrize("name", REAL)
def test_fusion_keeps_the_bits_of_real_networks(name: str, isa: str) -> None:
    layers = REAL[name]
    x = normal(Random(1), 1, *layers[0].output_shape())
    results = [
        np.concatenate([y.reshape(-1) for y in run(layers, [x], isa, fusion=fusion, threads=threads).values()])
        for fusion, threads in (("never", 1), ("automatic", 1), ("automatic", 3), ("always", 1), ("always", 2))
    ]
    assert np.std(results[0]) > 0
    assert all(result.tobytes() == results[0].tobytes() for result in results)


@every_isa
@pytest.mark.parametrize("name", ("v3_small", "v4_small", "shufflenet"))
def test_a_batch_keeps_the_bits_of_its_images(name: str, isa: str) -> None:
    layers = REAL[name]
    x = normal(Random(2), 9, *layers[0].output_shape())
    (output,) = graph.outputs(layers)
    together = run(layers, [x], isa, threads=2)[output]
    alone = [run(layers, [x[i : i + 1]], isa)[output] for i in range(len(x))]
    assert together.tobytes() == np.concatenate(alone).tobytes()
