"""Convolutions whose shapes decide how they are computed: of an image, of what a layer gave, and on arrays."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
from oracle import Float32, assert_layer, every_isa, normal, run

import sepconv
from sepconv import graph
from sepconv.graph import Input


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


# Images of which a pixel at a stride lies six floats from the next, to outputs that fill half a vector at most.
@every_isa
@pytest.mark.parametrize("outputs", (1, 2, 3, 8))
@pytest.mark.parametrize("channels, stride", [(3, 2), (6, 1), (2, 3), (1, 6)])
def test_few_outputs_of_an_image(channels: int, stride: int, outputs: int, isa: str) -> None:
    shapes = product((1, 2, 9, 33, 70), ((3, 3), (1, 1), (5, 7), (2, 9)), ((0, 1), (2, 2), (40, 3)))
    for turn, (width, kernel, (left, right)) in enumerate(shapes):
        if width + left + right < kernel[1]:
            continue
        activations: tuple[Any, ...] = ("none", "relu6", "hard_swish", "silu")
        layer = graph.Conv2d(
            name="y",
            inputs=("x",),
            weight=normal(*kernel, channels, outputs),
            bias=normal(outputs),
            stride=(1 + turn % 3, stride),
            padding=((turn % 2, kernel[0] - 1), (left, right)),
            activation=activations[turn % 4],
        )
        check(layer, normal(1, 11, width, channels), isa)


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


# Pixels that share memory with their neighbours, as the frames of a signal do, up to a page that must not be read.
FRAMES_BEFORE_A_GUARD_PAGE = """
import ctypes, mmap, numpy as np, sepconv
hop = int({hop})
channels, pixels = hop + 3, 7
floats = (pixels - 1) * hop + channels
libc = ctypes.CDLL(None, use_errno=True)
size = -(-4 * floats // mmap.PAGESIZE) * mmap.PAGESIZE
memory = mmap.mmap(-1, size + mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert libc.mprotect(ctypes.c_void_p(start + size), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
signal = np.frombuffer(memory, np.float32, floats, size - 4 * floats)
signal[:] = np.arange(floats) % 11
frames = np.lib.stride_tricks.sliding_window_view(signal, channels)[::hop]
x = np.broadcast_to(frames, (1, 7, pixels, channels))
weight = np.ones((3, 3, channels, 64), np.float32)
for stride in (1, 2):
    got = sepconv.conv2d(x, weight, stride=stride, padding=1)
    assert np.array_equal(got, sepconv.conv2d(x.copy(), weight, stride=stride, padding=1))
print("intact")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect by its name in libc")
@pytest.mark.parametrize("hop", (4, 8, 16))
def test_nothing_is_read_behind_pixels_that_overlap(hop: int) -> None:
    code = FRAMES_BEFORE_A_GUARD_PAGE.format(hop=hop)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout.strip() == "intact", result.stderr


def test_windows_and_strides_of_many_rows() -> None:
    rows = 8192
    x, weight = normal(1, rows, 2, 16), normal(rows, 1, 16, 16)
    for stride in ((1 << 20, 2), (rows, 2), (4097, 2)):
        y = sepconv.conv2d(x, weight, stride=stride)
        assert np.allclose(y[0, 0, 0], np.einsum("rc,rcn->n", x[0, :, 0], weight[:, 0]), rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [96, 512])
def test_arrays_may_begin_anywhere_in_a_vector(channels: int, stride: int) -> None:
    """Blocks of channels begin where the arrays' vectors do."""
    memory = np.full((2, 8 * 8 * channels + 64), np.nan, np.float32)
    starts = [row.ctypes.data % 64 // 4 for row in memory]
    values = np.random.default_rng(4).standard_normal((1, 8, 8, channels), dtype=np.float32)
    weight = np.random.default_rng(5).standard_normal((3, 3, channels, 1), dtype=np.float32)
    want = sepconv.depthwise_conv2d(values, weight, stride=stride, padding=1)
    for phases in ((0, 0), (4, 4), (12, 4), (1, 1), (8, 0)):
        memory[:] = np.nan
        x, y = (
            row[(phase - start) % 16 + 16 :][: array.size].reshape(array.shape)
            for row, phase, start, array in zip(memory, phases, starts, (values, want), strict=True)
        )
        x[:] = values
        sepconv.depthwise_conv2d(x, weight, stride=stride, padding=1, out=y)
        assert np.array_equal(y, want)
        assert np.count_nonzero(~np.isnan(memory[1])) == want.size
