"""Paddings, strides and dilations of up to 2^20: right, and in memory that follows the image and the weights."""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
from memory import Memory
from oracle import FUSIONS, Float32, every_isa, run

import sepconv
from sepconv import _core, graph

MOST = 1 << 20
MEMORY = 48 << 20  # bytes, of which the stacks of threads and pages touched by chance are most
SHAPE = (4, 5, 19)

# Kernel, stride, padding, dilation. Every output is small, and sees the image at least once.
GEOMETRIES: dict[str, tuple[Any, Any, Any, Any]] = {
    "padding": ((3, 3), (MOST // 2, MOST // 2), ((MOST, MOST), (MOST, MOST)), (1, 1)),
    "padding before": ((3, 2), (MOST, MOST), ((MOST, 0), (MOST, 1)), (1, 1)),
    "padding after": ((3, 2), (MOST, MOST), ((1, MOST), (0, MOST)), (1, 1)),
    "padding of one axis": ((2, 2), (1, MOST // 4), ((0, 1), (MOST, MOST)), (1, 1)),
    "dilation": ((3, 3), (1, 1), ((MOST // 2 - 2, MOST // 2 - 1), (MOST // 2, MOST // 2 - 1)), (MOST // 2, MOST // 2)),
    "dilation and stride": ((3, 1), (2, MOST), ((MOST, MOST), (MOST, 0)), (MOST - 1, 1)),
    "many columns": ((2, 3), (MOST // 2, MOST // 32), ((MOST, 3), (MOST, MOST)), (3, 2)),
}


def integers(*shape: int) -> Float32:
    return np.random.default_rng(0).integers(-4, 5, shape).astype(np.float32)


def expected(x: Float32, weight: Float32, stride: Any, padding: Any, dilation: Any, groups: int) -> Float32:
    """The convolution of one image [h, w, c] by its definition; nothing is padded."""
    kh, kw, inputs, outputs = weight.shape
    size = [(x.shape[i] + sum(padding[i]) - (weight.shape[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in range(2)]
    result = np.zeros((*size, outputs), np.float32)
    each = outputs // groups
    for y, column, r, s in product(range(size[0]), range(size[1]), range(kh), range(kw)):
        at = y * stride[0] - padding[0][0] + r * dilation[0], column * stride[1] - padding[1][0] + s * dilation[1]
        if 0 <= at[0] < x.shape[0] and 0 <= at[1] < x.shape[1]:
            for group in range(groups):
                to = slice(group * each, (group + 1) * each)
                result[y, column, to] += x[at][group * inputs : (group + 1) * inputs] @ weight[r, s, :, to]
    return result


def layers(layer: graph.Layer, behind: bool) -> list[graph.Layer]:
    """The layer as a network's first, or behind another that changes nothing."""
    first: list[graph.Layer] = [graph.Input(name="x0" if behind else "x", shape=SHAPE)]
    if behind:
        first.append(graph.Pad(name="x", inputs=("x0",), padding=((0, 0), (0, 0))))
    return [*first, layer]


@every_isa
@pytest.mark.parametrize("name", GEOMETRIES)
def test_convolutions_in_a_plan(name: str, isa: str) -> None:
    kernel, stride, padding, dilation = GEOMETRIES[name]
    x, weight = integers(1, *SHAPE), integers(*kernel, SHAPE[2], 21)
    layer = graph.Conv2d(
        name="y", inputs=("x",), weight=weight, stride=stride, padding=padding, dilation=dilation, activation="relu"
    )
    want = np.maximum(expected(x[0], weight, stride, padding, dilation, 1), 0)
    assert want.any()
    for behind, fusion, threads in ((False, "automatic", 1), *((True, fusion, 2) for fusion in FUSIONS)):
        with Memory() as memory:
            result = run(layers(layer, behind), [x], isa, fusion=fusion, threads=threads)["y"]
        assert np.array_equal(result[0], want), (behind, fusion)
        assert memory.most <= MEMORY, (behind, fusion)


@every_isa
@pytest.mark.parametrize("name", GEOMETRIES)
def test_depthwise_convolutions_and_their_pointwise_one(name: str, isa: str) -> None:
    kernel, stride, padding, dilation = GEOMETRIES[name]
    x, weight = integers(1, *SHAPE), integers(*kernel, SHAPE[2], 2)
    depthwise = graph.DepthwiseConv2d(
        name="d", inputs=("x",), weight=weight, stride=stride, padding=padding, dilation=dilation
    )
    pointwise = graph.Conv2d(name="y", inputs=("d",), weight=integers(1, 1, 2 * SHAPE[2], 3))
    flat = weight.reshape(*kernel, 1, -1)
    want = expected(x[0], flat, stride, padding, dilation, SHAPE[2])
    assert want.any()
    for fusion in FUSIONS:
        with Memory() as memory:
            network = [*layers(depthwise, False), pointwise]
            result = run(network, [x], isa, outputs=("d", "y"), fusion=fusion, threads=2)
        assert np.array_equal(result["d"][0], want)
        assert np.array_equal(result["y"][0], want @ np.asarray(pointwise.weight)[0, 0])
        assert memory.most <= MEMORY, fusion


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_operator(name: str, groups: int) -> None:
    kernel, stride, padding, dilation = GEOMETRIES[name]
    x, weight = integers(1, 4, 5, 18), integers(*kernel, 18 // groups, 21)
    want = expected(x[0], weight, stride, padding, dilation, groups)
    assert want.any()
    for threads in (1, 3):
        with Memory() as memory:
            result = sepconv.conv2d(
                x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups, threads=threads
            )
        assert np.array_equal(result[0], want)
        assert memory.most <= MEMORY
    planes, oihw = np.ascontiguousarray(x.transpose(0, 3, 1, 2)), weight.transpose(3, 2, 0, 1)
    result = sepconv.conv2d(
        planes, oihw, stride=stride, padding=padding, dilation=dilation, groups=groups, layout="NCHW"
    )
    assert np.array_equal(result[0].transpose(1, 2, 0), want)


@every_isa
def test_a_window_that_is_higher_than_any_networks(isa: str) -> None:
    """Pointers to 64 output rows' input rows would take a gigabyte."""
    x = integers(1, 4, 5, 2)
    weight = np.zeros((MOST, 1, 2, 1), np.float32)
    weight[7:11], weight[MOST - 3 :] = 2, 3
    layer = graph.DepthwiseConv2d(name="y", inputs=("x",), weight=weight, padding=((7, MOST), (0, 0)))
    network: list[graph.Layer] = [graph.Input(name="x", shape=x.shape[1:]), layer]
    with Memory() as memory:
        result = run(network, [x], isa)["y"]
    # Packed and copied weights, of a vector's width.
    assert memory.most <= 512 << 20
    assert np.array_equal(result[0, 0], 2 * x[0].sum(axis=0))


@every_isa
@pytest.mark.parametrize("side", (46341, 65536, 70000, MOST))
def test_an_average_over_more_than_2_31_places(side: int, isa: str) -> None:
    """The padding counts: their number is beyond an int."""
    padding = ((side - 1, 0), (side - 1, 0))
    layer = graph.AveragePool2d(
        name="y", inputs=("x",), kernel=(side, side), stride=(1, 1), padding=padding, include_padding=True
    )
    result = run([graph.Input(name="x", shape=(1, 1, 1)), layer], [np.ones((1, 1, 1, 1), np.float32)], isa)["y"]
    assert result.item() == pytest.approx(1 / side**2, rel=1e-6, abs=0)


def test_pooling_counts_what_lies_inside() -> None:
    g = _core.Graph()
    padding = ((MOST - 1, 0), (MOST - 1, 0))
    g.output(g.max_pool2d("pool", g.input("x", (2, 4, MOST)), (MOST, MOST), (1, 1), padding, "none"))
    assert max(op.macs for op in _core.Plan(g).describe()) == 2 * 4 * MOST * 2 * 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("inputs", [17, 31, 32, 100, 256, 257, 40_000])
def test_concatenation_of_many_inputs(inputs: int) -> None:
    g = _core.Graph()
    x = g.input("x", (1, 2, 3))
    slices = [g.channel_slice("slice", x, i, i + 1) for i in range(3)]
    with Memory() as memory:
        g.output(g.concat("concat", [slices[i % 3] for i in range(inputs)]))
        plan = _core.Plan(g)
    assert memory.most < MEMORY
    image = integers(1, 1, 2, 3)
    np.testing.assert_array_equal(plan.run([image], 1)[0], image[..., np.arange(inputs) % 3])


def test_gradients_take_memory_for_threads_that_have_work() -> None:
    x, weight, dy = integers(1, 256, 256, 8), integers(8, 1, 3, 3), integers(1, 256, 256, 8)
    arguments = (x, weight, dy, (1, 1), ((1, 1), (1, 1)), (1, 1), (True, True))
    want = _core.depthwise_grad(*arguments, 1)
    with Memory() as memory:
        result = _core.depthwise_grad(*arguments, 64)
    for got, expected in zip(result, want, strict=True):
        assert got is not None
        assert expected is not None
        np.testing.assert_array_equal(got, expected)
    assert memory.most <= MEMORY
