"""Convolutions whose shapes decide how they are computed: of an image, of what a layer gave, and on arrays."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from oracle import Float32, assert_layer, every_isa, run

import sepconv
from sepconv import graph
from sepconv.graph import Input


def normal(*shape: int) -> Float32:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def check(layer: graph.Conv2d | graph.DepthwiseConv2d, x: Float32, isa: str) -> None:
    """The same bits of an image and of a layer, on any number of threads, before an addend, and on arrays."""
    image = Input(name="x", shape=x.shape[1:])
    result = run([image, layer], [x], isa)["y"]
    assert_layer(layer, [x], result)
    positive = np.maximum(x, 0)
    rectified = graph.Activation(name="r", inputs=("x",), activation="relu")
    of_positive = run([image, layer], [positive], isa)["y"]
    of_layer = graph_after(layer, "r")
    for threads in (1, 2, 3):
        assert np.array_equal(run([image, rectified, of_layer], [x], isa, threads=threads)["y"], of_positive)
        assert np.array_equal(run([image, layer], [x], isa, threads=threads)["y"], result)
    if layer.activation == "none":
        addend = Input(name="z", shape=result.shape[1:])
        z = normal(*result.shape)
        total = graph.Add(name="sum", inputs=("z", "y"))
        assert np.array_equal(run([image, addend, layer, total], [x, z], isa)["sum"], result + z)
    if isa == sepconv.isa():
        depthwise = isinstance(layer, graph.DepthwiseConv2d)
        function: Any = sepconv.depthwise_conv2d if depthwise else sepconv.conv2d
        window = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        for threads in (1, 2, 3):
            y = function(x, layer.weight, layer.bias, **window, activation=layer.activation, threads=threads)
            assert np.array_equal(y, result)


def graph_after(layer: graph.Conv2d | graph.DepthwiseConv2d, name: str) -> graph.Convolution:
    kind: type[graph.Convolution] = type(layer)
    same = ("name", "weight", "bias", "activation", "stride", "padding", "dilation")
    return kind(inputs=(name,), **{field: getattr(layer, field) for field in same})


# Rows that fill no tiles, k in several parts, pixels that strides leave out.
@every_isa
@pytest.mark.parametrize(
    "shape, outputs, kernel, stride, dilation",
    [
        ((7, 7, 70), 100, (3, 3), (1, 1), (1, 1)),
        ((4, 4, 130), 64, (3, 3), (1, 1), (1, 1)),
        ((9, 5, 48), 70, (5, 5), (2, 2), (1, 1)),
        ((9, 9, 48), 40, (1, 1), (2, 2), (1, 1)),
        ((10, 20, 33), 65, (3, 2), (2, 1), (1, 1)),
        ((13, 8, 40), 80, (3, 3), (1, 1), (2, 3)),
        ((11, 10, 32), 40, (3, 1), (3, 2), (1, 1)),
        ((12, 9, 17), 64, (2, 4), (3, 3), (2, 1)),
        ((30, 3, 64), 33, (3, 3), (1, 1), (1, 1)),
        ((1, 1, 600), 80, (1, 1), (1, 1), (1, 1)),
    ],
)
@pytest.mark.parametrize("activation", ("none", "hard_swish", "silu"))
def test_dense(
    shape: graph.Shape,
    outputs: int,
    kernel: graph.Pair,
    stride: graph.Pair,
    dilation: graph.Pair,
    activation: Any,
    isa: str,
) -> None:
    sides = [(size - 1) * step // 2 for size, step in zip(kernel, dilation, strict=True)]
    layer = graph.Conv2d(
        name="y",
        inputs=("x",),
        weight=normal(*kernel, shape[2], outputs),
        bias=normal(outputs),
        stride=stride,
        padding=((sides[0], sides[0]), (sides[1], max(sides[1] - 1, 0))),
        dilation=dilation,
        activation=activation,
    )
    check(layer, normal(2, *shape), isa)


@every_isa
@pytest.mark.parametrize("kernel", (3, 5, 7))
def test_dilated_depthwise(kernel: int, isa: str) -> None:
    for (down, across), width, channels in product(((1, 2), (2, 1), (2, 2), (3, 4)), (3, 14, 23), (17, 48)):
        edge = (kernel // 2 * down, kernel // 2 * across)
        for left in (0, edge[1] - 1, edge[1]):
            layer = graph.DepthwiseConv2d(
                name="y",
                inputs=("x",),
                weight=normal(kernel, kernel, channels, 1),
                padding=((edge[0], edge[0]), (left, 2 * edge[1] - left)),
                dilation=(down, across),
                activation="relu6" if left else "hard_swish",
            )
            check(layer, normal(1, 7, width, channels), isa)
