"""Shapes and checks of the layer list."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sepconv.graph import (
    MAX_ELEMENTS,
    Activation,
    Add,
    AveragePool2d,
    BatchNorm,
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
    infer_shapes,
    outputs,
    same_padding,
)
from sepconv.lowering import vectors

INPUT = Input(name="x", shape=(8, 9, 4))


class ShapeOnly:
    """An array-like that must not be made an array of."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        raise AssertionError("a shape check asked for the values")


def changed(layer: Layer, **changes: Any) -> Layer:
    """The layer with other arguments, of other types too."""
    return dataclasses.replace(layer, **changes)


def batch_norm(channels: int, **changes: Any) -> BatchNorm:
    arrays = {part: ShapeOnly(channels) for part in ("gamma", "beta", "mean", "variance")}
    return BatchNorm(**{**arrays, "epsilon": 1e-3, **changes})


def shape_of(layer: Layer, *more: Layer) -> tuple[int, int, int]:
    return infer_shapes([INPUT, *more, layer])[layer.name]


CONV = Conv2d(name="conv", inputs=("x",), weight=ShapeOnly(3, 3, 4, 6))
DEPTHWISE = DepthwiseConv2d(name="dw", inputs=("x",), weight=ShapeOnly(3, 3, 4, 2))
DENSE = FullyConnected(name="fc", inputs=("x",), weight=ShapeOnly(8 * 9 * 4, 5))
POOL = AveragePool2d(name="pool", inputs=("x",), kernel=(2, 2), stride=(2, 2))
MAX_POOL = MaxPool2d(name="max", inputs=("x",), kernel=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize(
    "layer, expected",
    [
        (CONV, (6, 7, 6)),
        (changed(CONV, stride=(2, 3), padding=((0, 1), (2, 0))), (4, 3, 6)),
        (changed(CONV, dilation=(2, 4)), (4, 1, 6)),
        (changed(CONV, bias=ShapeOnly(6), batch_norm=batch_norm(6)), (6, 7, 6)),
        (DEPTHWISE, (6, 7, 8)),
        (changed(DEPTHWISE, bias=ShapeOnly(8), batch_norm=batch_norm(8)), (6, 7, 8)),
        (DENSE, (1, 1, 5)),
        (POOL, (4, 4, 4)),
        (MAX_POOL, (4, 5, 4)),
        (Add(name="add", inputs=("x", "x"), activation="relu"), (8, 9, 4)),
        (GlobalAveragePool(name="gap", inputs=("x",)), (1, 1, 4)),
        (Activation(name="act", inputs=("x",), activation="silu"), (8, 9, 4)),
        (Softmax(name="softmax", inputs=("x",)), (8, 9, 4)),
        (PRelu(name="prelu", inputs=("x",), slope=ShapeOnly(4)), (8, 9, 4)),
        (LayerNorm(name="norm", inputs=("x",)), (8, 9, 4)),
        (LayerNorm(name="norm", inputs=("x",), scale=ShapeOnly(4), bias=ShapeOnly(4), epsilon=0), (8, 9, 4)),
        (Reshape(name="reshape", inputs=("x",), shape=(1, 1, 288)), (1, 1, 288)),
        (Pad(name="pad", inputs=("x",), padding=((1, 2), (0, 3))), (11, 12, 4)),
        (Mul(name="mul", inputs=("x", "x")), (8, 9, 4)),
        (Concat(name="concat", inputs=("x",)), (8, 9, 4)),
        (Concat(name="concat", inputs=("x", "x", "x")), (8, 9, 12)),
        (ChannelSlice(name="slice", inputs=("x",), begin=1, end=4), (8, 9, 3)),
        (ChannelShuffle(name="shuffle", inputs=("x",), groups=2), (8, 9, 4)),
        (Upsample(name="up", inputs=("x",), size=(16, 9)), (16, 9, 4)),
    ],
)
def test_output_shape(layer: Layer, expected: tuple[int, int, int]) -> None:
    assert shape_of(layer) == expected


@pytest.mark.parametrize(
    "layer, argument",
    [
        (changed(CONV, weight=ShapeOnly(3, 3, 5, 6)), r"weight shape was \[3, 3, 5, 6\], must be \[kh, kw"),
        (changed(CONV, weight=ShapeOnly(3, 4, 6)), "weight shape"),
        (changed(CONV, weight=ShapeOnly(3, 3, 4, 0)), "weight shape"),
        (changed(CONV, weight=[[1.0], [1.0, 2.0]]), "weight was a list"),
        (
            changed(CONV, weight=ShapeOnly(9, 3, 4, 6)),
            "padded input height was 8, must be at least the win",
        ),
        (changed(CONV, dilation=(1, 5)), "padded input width"),
        (changed(CONV, stride=(0, 1)), r"stride was \(0, 1\), must be"),
        (changed(CONV, stride=2), "stride was 2"),
        (changed(CONV, stride=(1.0, 1)), "stride"),
        (changed(CONV, stride=(1, 2**31)), "stride"),
        (changed(CONV, dilation=(-1, 1)), "dilation"),
        (changed(CONV, padding=((0, -1), (0, 0))), "padding"),
        (changed(CONV, padding=(1, 1)), "padding"),
        (changed(CONV, padding=((2**31, 0), (0, 0))), "padding"),
        (changed(CONV, bias=ShapeOnly(4)), r"bias shape was \[4\], must be \[N\] = \[6\]"),
        (changed(CONV, bias=ShapeOnly(1, 6)), "bias shape"),
        (changed(CONV, activation="relu7"), "activation was 'relu7', must be one of none, relu"),
        (changed(CONV, batch_norm=batch_norm(6, mean=ShapeOnly(5))), "batch_norm.mean shape"),
        (changed(CONV, batch_norm=batch_norm(6, epsilon=float("nan"))), "batch_norm.epsilon"),
        (changed(CONV, batch_norm=batch_norm(6, epsilon=-1e-3)), "batch_norm.epsilon"),
        (changed(CONV, batch_norm=batch_norm(6, epsilon="a")), "batch_norm.epsilon was 'a'"),
        (changed(CONV, batch_norm=5), "batch_norm was 5, must be a BatchNorm or None"),
        (changed(CONV, inputs=("x", "x")), "number of inputs was 2, must be 1"),
        (changed(CONV, inputs=()), "number of inputs was 0"),
        (changed(DEPTHWISE, weight=ShapeOnly(3, 3, 1, 4)), "weight shape"),
        (changed(DEPTHWISE, bias=ShapeOnly(4)), r"must be \[N\] = \[8\]"),
        (changed(DENSE, weight=ShapeOnly(4, 5)), r"must be \[C, N\] = \[288, any\]"),
        (changed(DENSE, bias=ShapeOnly(6)), "bias shape"),
        (changed(POOL, kernel=(0, 2)), "kernel"),
        (changed(POOL, kernel=(9, 2)), "padded input height"),
        (changed(POOL, padding=((2, 0), (0, 0))), "padding was .* no window lies wholly in it"),
        (changed(POOL, padding=((0, 2), (0, 0))), "padding was .* no window lies wholly in it"),
        (changed(POOL, padding=((0, 2), (0, 0)), stride=(5, 2)), "padding was .* less than the kernel"),  # as in Model
        (changed(POOL, include_padding="no"), "include_padding was 'no', must be True or False"),
        (changed(POOL, include_padding=None), "include_padding was None"),
        (changed(POOL, activation="swish"), "activation"),
        (Add(name="add", inputs=("x",)), "number of inputs was 1, must be 2"),
        (Activation(name="act", inputs=("x",), activation="softplus"), "activation"),  # type: ignore[arg-type]
        (LayerNorm(name="norm", inputs=("x",), scale=ShapeOnly(3)), r"scale shape was \[3\], must be \[C\] = \[4\]"),
        (LayerNorm(name="norm", inputs=("x",), bias=ShapeOnly(4, 1)), "bias shape was"),
        (PRelu(name="prelu", inputs=("x",), slope=ShapeOnly(1)), r"slope shape was \[1\], must be \[C\] = \[4\]"),
        (PRelu(name="prelu", inputs=("x",), slope=ShapeOnly()), "slope shape was"),
        (LayerNorm(name="norm", inputs=("x",), epsilon=-1.0), "epsilon was -1.0, must be a finite number"),
        (Softmax(name="softmax", inputs=("x",), beta=float("inf")), "beta"),
        (Softmax(name="softmax", inputs=("x",), beta=1e300), "beta was 1e.300, must be a number, finite in float32"),
        (Softmax(name="softmax", inputs=("x",), beta=10**300), "beta was 1000"),
        (Reshape(name="reshape", inputs=("x",), shape=(1, 1, 287)), "shape was .* as many elements as the input"),
        (Reshape(name="reshape", inputs=("x",), shape=(-1, -1, 288)), "shape"),
        (Pad(name="pad", inputs=("x",), padding=((0, 0), (0, -1))), "padding"),
        (Pad(name="pad", inputs=("x",), padding=((MAX_ELEMENTS, 0), (0, 0))), "output shape"),
        (Mul(name="mul", inputs=("x", "x"), activation="swish"), "activation"),  # type: ignore[arg-type]
        (Concat(name="concat", inputs=()), "number of inputs was 0, must be at least 1"),
        (ChannelSlice(name="slice", inputs=("x",), begin=2, end=2), r"begin, end was \(2, 2\), must be .* <= 4"),
        (ChannelSlice(name="slice", inputs=("x",), begin=-1, end=2), "begin, end"),
        (ChannelSlice(name="slice", inputs=("x",), begin=0, end=5), "begin, end"),
        (ChannelSlice(name="slice", inputs=("x",), begin=0, end=2.0), "begin, end"),  # type: ignore[arg-type]
        (ChannelShuffle(name="shuffle", inputs=("x",), groups=3), "groups was 3, must be .* divides the 4 channels"),
        (ChannelShuffle(name="shuffle", inputs=("x",), groups=0), "groups was 0"),
        (
            Upsample(name="up", inputs=("x",), size=(7, 9)),
            r"size was \(7, 9\), must be .* at least the input's \(8, 9\)",
        ),
        (Upsample(name="up", inputs=("x",), size=2), "size was 2"),  # type: ignore[arg-type]
        (Input(name="y", shape=(0, 1, 1)), "output shape"),
        (Input(name="y", shape=(1, 1, 1), dtype="float16"), "dtype was 'float16'"),
        (Input(name="y", shape=(1, 1, 1), dtype="uint8", scale=0.0), "scale"),
        (Input(name="y", shape=(1, 1, 1), scale="a"), "scale was 'a'"),  # type: ignore[arg-type]
        (Input(name="y", shape=(1, 1, 1), scale=10**400), "scale was 1000"),
        (Input(name="y", shape=(1, 1, 1), zero_point="a"), "zero_point was 'a'"),  # type: ignore[arg-type]
        (Input(name="y", shape=(1, 1, 1), dtype="uint8", zero_point=10**400), "zero_point was 1000"),
        (changed(CONV, name="x"), "name was 'x', must be unlike"),
        (changed(CONV, name=""), "name was ''"),
        (changed(CONV, inputs=("y",)), r"inputs was \('y',\), must be names of earlier layers"),
        (changed(CONV, inputs=("conv",)), "earlier layers"),
        (changed(CONV, inputs="x"), "inputs was 'x', must be a tuple"),
        (changed(CONV, inputs=[["x"]]), r"inputs was \[\['x'\]\], must be a tuple"),
        (changed(CONV, inputs=5), "inputs was 5, must be a tuple"),
        (changed(CONV, activation=np.array("relu")), "activation was array"),
    ],
)
def test_rejects(layer: Layer, argument: str) -> None:
    with pytest.raises(ValueError, match=rf"layer '{layer.name}' \({type(layer).__name__}\): .*{argument}"):
        shape_of(layer)


def test_add_rejects_two_shapes() -> None:
    with pytest.raises(ValueError, match=r"second input's shape was \(6, 7, 6\), must be the first's \(8, 9, 4\)"):
        shape_of(Add(name="add", inputs=("x", "conv")), CONV)


def test_mul_scales_channels_and_rejects_other_shapes() -> None:
    mean = GlobalAveragePool(name="mean", inputs=("x",))
    assert shape_of(Mul(name="mul", inputs=("x", "mean")), mean) == (8, 9, 4)
    message = r"second input's shape was \(8, 9, 4\), must be the first's \(1, 1, 4\) or \(1, 1, 4\)"
    with pytest.raises(ValueError, match=message):
        shape_of(Mul(name="mul", inputs=("mean", "x")), mean)
    with pytest.raises(ValueError, match=r"second input's shape was \(6, 7, 6\)"):
        shape_of(Mul(name="mul", inputs=("x", "conv")), CONV)


def test_concat_rejects_other_sizes() -> None:
    with pytest.raises(ValueError, match=r"input shape was \(6, 7, 6\), must be of the first input's height and width"):
        shape_of(Concat(name="concat", inputs=("x", "conv")), CONV)


def test_rejects_what_is_no_network() -> None:
    with pytest.raises(ValueError, match="at least one Input"):
        infer_shapes([])
    with pytest.raises(TypeError, match=r"layers\[1\] was str, must be one of Input, Conv2d"):
        infer_shapes([INPUT, "conv"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"layers\[0\] was Layer"):
        infer_shapes([Layer(name="x", inputs=())])


def test_rejects_names_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match=r"name was '\\udcff', must be a non-empty string that UTF-8 can say"):
        shape_of(changed(CONV, name="\udcff"))


def test_lists_are_taken_for_tuples() -> None:
    sizes: Any = {"kernel": [2, 2], "stride": [2, 2], "padding": [[0, 1], [0, 0]]}
    pool = AveragePool2d(name="pool", inputs=("y",), **sizes)
    assert (pool.kernel, pool.padding) == ((2, 2), ((0, 1), (0, 0)))
    shape: Any = [4, 4, 3]
    y, flat = Input(name="y", shape=shape), Reshape(name="flat", inputs=("y",), shape=[1, 1, 48])  # type: ignore[arg-type]
    assert (y.shape, flat.shape) == ((4, 4, 3), (1, 1, 48))
    assert vectors([y, flat]) == {"flat"}
    both = Add(name="add", inputs=("y", "act"))
    assert infer_shapes([y, Activation(name="act", inputs=("y",), activation="relu"), both])["add"] == (4, 4, 3)
    assert both.output_shape(shape, (4, 4, 3)) == (4, 4, 3)


def test_numpys_small_integers_are_sizes_as_any() -> None:
    n: Any = np.uint8(200)
    one: Any = np.int8(1)
    weight = np.ones((1, 1, 512, 1), np.float32)
    y = Input(name="y", shape=(4, 4, 512))
    padded = Pad(name="pad", inputs=("y",), padding=((n, n), (0, one)))
    conv = Conv2d(name="conv", inputs=("y",), weight=weight, padding=((n, n), (n, n)), stride=(n, n))
    shuffled = ChannelShuffle(name="shuffle", inputs=("y",), groups=one + one)
    shapes = infer_shapes([y, padded, conv, shuffled])
    assert (shapes["pad"], shapes["conv"], shapes["shuffle"]) == ((404, 5, 512), (3, 3, 1), (4, 4, 512))


def test_outputs_are_what_no_layer_reads() -> None:
    assert outputs([INPUT, Input(name="y", shape=(1, 1, 1)), CONV]) == ("conv",)
    assert outputs([INPUT]) == ("x",)
    assert outputs([INPUT, CONV, POOL]) == ("conv", "pool")
    assert outputs([INPUT, CONV, changed(DENSE, inputs=("conv",))]) == ("fc",)


@pytest.mark.parametrize(
    "layer, macs, weights, params",
    [
        (CONV, 6 * 7 * 3 * 3 * 4 * 6, 216, 216),
        (changed(CONV, bias=ShapeOnly(6), batch_norm=batch_norm(6)), 6 * 7 * 3 * 3 * 4 * 6, 216, 216 + 18),
        (DEPTHWISE, 6 * 7 * 3 * 3 * 8, 72, 72),
        (changed(DENSE, bias=ShapeOnly(5)), 288 * 5, 288 * 5, 288 * 5 + 5),
        (POOL, 0, 0, 0),
    ],
)
def test_counts(layer: Layer, macs: int, weights: int, params: int) -> None:
    assert layer.macs([INPUT.shape], layer.output_shape(INPUT.shape)) == macs
    assert (layer.weight_count(), layer.params()) == (weights, params)


def test_layers_compare_by_identity() -> None:
    # Else a comparison of arrays would raise from within == or hash.
    layer = Conv2d(name="conv", inputs=("x",), weight=np.ones((1, 1, 4, 2)))
    assert layer == layer
    assert layer != changed(layer)
    assert len({layer, changed(layer)}) == 2


SIZES = st.integers(1, 300)
WINDOWS = st.tuples(SIZES, st.integers(1, 12), st.integers(1, 5), st.integers(1, 4))


@given(WINDOWS)
def test_same_padding_gives_ceil(window: tuple[int, int, int, int]) -> None:
    size, kernel, stride, dilation = window
    before, after = same_padding(size, kernel, stride, dilation)
    assert 0 <= before <= after <= before + 1
    outputs_ = (size + before + after - (kernel - 1) * dilation - 1) // stride + 1
    assert outputs_ == -(-size // stride)


@pytest.mark.parametrize(
    ("window", "name"),
    [((-1, 3, 1, 1), "size"), ((5, 0, 1, 1), "kernel"), ((5, 3, 0, 1), "stride"), ((5, 3, 1, 0), "dilation")],
)
def test_same_padding_of_no_window(window: tuple[int, int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} was .*, must be at least"):
        same_padding(*window)


@pytest.mark.parametrize("size, expected", [(224, (0, 1)), (75, (1, 1)), (7, (1, 1)), (1, (1, 1)), (2, (0, 1))])
def test_same_padding_at_stride_two_puts_the_odd_element_after(size: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, 3, 2) == expected


def brute_force_positions(size: int, kernel: int, stride: int, dilation: int, padding: Sequence[int]) -> int:
    extent = (kernel - 1) * dilation + 1
    return sum(1 for start in range(0, size + sum(padding), stride) if start + extent <= size + sum(padding))


@given(st.tuples(WINDOWS, WINDOWS), st.tuples(*[st.integers(0, 9)] * 4))
def test_window_counts_its_positions(windows: Any, pads: tuple[int, int, int, int]) -> None:
    sizes, kernels, strides, dilations = zip(*windows, strict=True)
    padding = (pads[:2], pads[2:])
    layer = Conv2d(
        name="conv", inputs=("x",), weight=ShapeOnly(*kernels, 1, 2), stride=strides, dilation=dilations,
        padding=((pads[0], pads[1]), (pads[2], pads[3])),
    )  # fmt: skip
    expected = tuple(map(brute_force_positions, sizes, kernels, strides, dilations, padding))
    if min(expected) > 0:
        assert layer.output_shape((*sizes, 1)) == (*expected, 2)
    else:
        with pytest.raises(ValueError, match="padded input"):
            layer.output_shape((*sizes, 1))
