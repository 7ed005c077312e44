"""The N-d operators against NumPy: every type, broadcast and stride; and windows against the package onnx."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sepconv import _core

nd = _core.nd
Array = np.ndarray[Any, Any]
ROWS = np.ones((2, 3), np.float32)
TYPES = ("float32", "int8", "uint8", "int32", "int64")


def random(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    source = np.random.default_rng(seed)
    if dtype == "float32":
        return source.standard_normal(shape).astype(np.float32)
    if dtype == "bool":
        return source.random(shape) < 0.5
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return source.integers(max(low, -1000), min(high, 1000), shape).astype(dtype)


def quotient(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return a / b
    safe = np.where(b == 0, 1, b)
    whole = np.trunc(a.astype(np.float64) / safe)
    return np.where(b == 0, 0, whole).astype(np.int64).astype(a.dtype)


BINARY: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": quotient, "max": np.maximum, "min": np.minimum,
    "equal": np.equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal,
}  # fmt: skip


@settings(max_examples=60)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=5, max_side=4, min_side=0), st.integers(0, 99))
def test_binary_functions_broadcast_as_numpy(shapes: hnp.BroadcastableShapes, seed: int) -> None:
    dtype = TYPES[seed % len(TYPES)]
    a, b = (random(shape, dtype, seed + index) for index, shape in enumerate(shapes.input_shapes))
    for name, function in BINARY.items():
        with np.errstate(all="ignore"):
            want = function(a, b)
        got = nd.binary(name, a, b, 1 + seed % 3)
        assert got.shape == shapes.result_shape
        assert got.dtype == want.dtype
        assert np.array_equal(got, want, equal_nan=dtype == "float32"), name


def test_binary_functions_at_their_edges() -> None:
    for dtype in ("int8", "int32", "int64"):
        least = np.array([np.iinfo(dtype).min], dtype)
        minus, zero = np.array([-1], dtype), np.array([0], dtype)
        assert nd.binary("div", least, minus, 1)[0] == least[0]  # wraps; no trap
        assert nd.binary("div", least, zero, 1)[0] == 0
        assert nd.binary("mod", least, minus, 1)[0] == 0
        assert nd.binary("mod", least, zero, 1)[0] == 0
        assert nd.binary("pow", np.array([2], dtype), np.array([-1], dtype), 1)[0] == 0
    x = np.array([-7, -7, 7, 7], np.int32)
    y = np.array([3, -3, 3, -3], np.int32)
    assert nd.binary("mod", x, y, 1).tolist() == np.mod(x, y).tolist()
    assert nd.binary("fmod", x, y, 1).tolist() == np.fmod(x, y).tolist()
    nan = np.array([np.nan], np.float32)
    for name in ("max", "min"):
        assert np.isnan(nd.binary(name, nan, np.ones(1, np.float32), 1)[0])
        assert np.isnan(nd.binary(name, np.ones(1, np.float32), nan, 1)[0])
    bytes_of_bools = np.array([[0, 1, 2, 255]], np.uint8)
    a, b = bytes_of_bools.repeat(4, 0).view(bool), bytes_of_bools.T.repeat(4, 1).view(bool)
    for name, function in (("and", np.minimum), ("or", np.maximum), ("xor", np.not_equal), ("equal", np.equal)):
        want = function(a.view(np.uint8) != 0, b.view(np.uint8) != 0)
        assert nd.binary(name, a, b, 1).view(np.uint8).tolist() == want.astype(np.uint8).tolist(), name
    assert nd.cast(a, np.dtype(np.int32), 1).tolist() == 4 * [[0, 1, 1, 1]]


@settings(max_examples=60)
@given(hnp.array_shapes(max_dims=6, max_side=5), st.data())
def test_copies_of_any_view(shape: tuple[int, ...], data: Any) -> None:
    x = random(shape, data.draw(st.sampled_from((*TYPES, "bool"))))
    view = x.transpose(data.draw(st.permutations(range(len(shape)))))
    steps = tuple(slice(None, None, data.draw(st.sampled_from((1, 2, -1, -2)))) for _ in shape)
    view = view[steps]
    assert np.array_equal(nd.dense(view, data.draw(st.integers(1, 3))), view)
    wide = np.broadcast_to(view, (3, *view.shape))
    target = np.zeros((*wide.shape[::-1],), x.dtype).T
    nd.copy(target, wide, 1)
    assert np.array_equal(target, wide)


def test_copies_of_many_threads() -> None:
    x = random((37, 64, 33, 5), "float32")
    for order in ((0, 2, 3, 1), (3, 1, 2, 0), (1, 0, 3, 2), (2, 3, 0, 1)):
        assert np.array_equal(nd.dense(x.transpose(order), 3), x.transpose(order))


@pytest.mark.parametrize("to", (*TYPES, "bool", "float64"))
def test_casts(to: str) -> None:
    for source in (*TYPES, "bool"):
        x = np.abs(random((7, 9), source)) if to == "uint8" and source == "float32" else random((7, 9), source)
        assert np.array_equal(nd.cast(x, np.dtype(to), 2), x.astype(to))
    far = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32)
    got = nd.cast(far, np.dtype(to), 1)  # out of range is the nearest there is: never undefined
    if np.dtype(to).kind in "iu":
        assert got.tolist() == [0, np.iinfo(to).max, np.iinfo(to).min, np.iinfo(to).max, np.iinfo(to).min]


REDUCE: dict[str, Callable[[Array], Any]] = {
    "sum": lambda x: x.sum(1), "mean": lambda x: x.mean(1), "max": lambda x: x.max(1), "min": lambda x: x.min(1),
    "prod": lambda x: x.prod(1), "l1": lambda x: np.abs(x).sum(1), "l2": lambda x: np.sqrt((x * x).sum(1)),
    "sum_square": lambda x: (x * x).sum(1), "log_sum_exp": lambda x: np.log(np.exp(x).sum(1)),
}  # fmt: skip


def test_reductions() -> None:
    x = random((13, 37), "float32")
    for name, function in REDUCE.items():
        want = function(x.astype(np.float64))
        np.testing.assert_allclose(nd.reduce(name, x, 2), want, rtol=1e-6, atol=1e-9, err_msg=name)
    for dtype in ("int32", "int64", "int8", "uint8"):
        whole = random((5, 9), dtype)
        for name in ("sum", "max", "min"):
            want = REDUCE[name](whole).astype(dtype)
            assert np.array_equal(nd.reduce(name, whole, 1), want), (name, dtype)
    assert nd.reduce("sum", np.zeros((3, 0), np.float32), 1).tolist() == [0, 0, 0]
    assert np.isnan(nd.reduce("max", np.array([[1, np.nan, 3]], np.float32), 1)[0])


def test_reductions_down_columns() -> None:
    x = random((3, 11, 29), "float32")
    for name in ("sum", "mean", "max", "min", "l1", "l2", "sum_square"):
        want = REDUCE[name](x.astype(np.float64))
        np.testing.assert_allclose(nd.reduce(name, x, 2), want, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("offset", (0.0, 1e4))
def test_sums_are_as_precise_as_doubles(offset: float) -> None:
    x = (random((4, 60_001), "float32", 5) + np.float32(offset)).astype(np.float32)
    wide = x.astype(np.float64)
    for name in ("sum", "mean", "l2", "sum_square"):
        want = np.array([math.fsum(row) for row in (wide if name in ("sum", "mean") else wide * wide)])
        want = {"mean": want / 60_001, "l2": np.sqrt(want)}.get(name, want)
        limit = 0.5001 * np.spacing(np.abs(want).astype(np.float32)) + 1e-12 * np.abs(wide).sum(1)
        for got in (nd.reduce(name, x, 2), nd.reduce(name, np.ascontiguousarray(x.T)[None], 2)[0]):
            assert (np.abs(got - want) <= limit).all(), name
    y, _, _ = nd.normalize(x, 0.0, True, 2)
    want = (wide - wide.mean(1)[:, None]) / wide.std(1)[:, None]
    assert (np.abs(y - want) <= 0.5001 * np.spacing(np.abs(want).astype(np.float32)) + 1e-10).all()


def test_normalised_rows_scaled() -> None:
    x = random((6, 12), "float32")
    normal, _, _ = nd.normalize(x, 1e-5, True, 1)
    for count, run in ((12, 1), (3, 4), (6, 12), (4, 6), (1, 1)):
        scale, bias = random((count,), "float32", 1), random((count,), "float32", 2)
        places = np.arange(72).reshape(6, 12) // run % count
        y, _, _ = nd.normalize(x, 1e-5, True, 1, scale, bias, run)
        np.testing.assert_allclose(y, normal * scale[places] + bias[places], rtol=1e-5, atol=1e-6)
        y, _, _ = nd.normalize(x, 1e-5, True, 1, scale, None, run)
        np.testing.assert_allclose(y, normal * scale[places], rtol=1e-6)


def test_normalised_rows() -> None:
    x = random((6, 50), "float32") * 3 + 1
    wide = x.astype(np.float64)
    y, mean, inverse = nd.normalize(x, 1e-5, True, 2)
    variance = wide.var(1)
    np.testing.assert_allclose(mean, wide.mean(1), rtol=1e-6)
    np.testing.assert_allclose(inverse, 1 / np.sqrt(variance + 1e-5), rtol=1e-6)
    np.testing.assert_allclose(
        y, (wide - wide.mean(1)[:, None]) / np.sqrt(variance + 1e-5)[:, None], rtol=1e-5, atol=1e-6
    )
    soft = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    np.testing.assert_allclose(nd.softmax(x, False, 1), soft, rtol=5e-6)
    np.testing.assert_allclose(nd.softmax(x, True, 1), np.log(soft), rtol=5e-6)


@pytest.mark.parametrize(
    "call, message",
    (
        (lambda: nd.binary("add", np.ones((2, 3), np.float32), np.ones(4, np.float32), 1), "do not broadcast"),
        (lambda: nd.binary("add", np.ones(2, np.float32), np.ones(2, np.int32), 1), "must have one dtype"),
        (
            lambda: nd.binary("and", np.ones(2, np.float32), np.ones(2, np.float32), 1),
            "'and' does not exist for float32",
        ),
        (lambda: nd.binary("add", np.ones(2, bool), np.ones(2, bool), 1), "'add' does not exist for bool"),
        (lambda: nd.binary("add", np.ones((4, 4), np.float32).T, np.ones(4, np.float32), 1), "C-contiguous"),
        (lambda: nd.binary("add", np.ones(2, ">f4"), np.ones(2, ">f4"), 1), "has dtype"),
        (lambda: nd.binary("join", np.ones(2, np.float32), np.ones(2, np.float32), 1), "no function 'join'"),
        (lambda: nd.unary("launch", np.ones(2, np.float32), 0, 0, 1), "no function 'launch'"),
        (lambda: nd.unary("relu", np.ones(2, np.float32), 0, 0, 0), "threads is 0"),
        (lambda: nd.copy(np.ones(2, np.float32), np.ones(3, np.float32), 1), "same shape"),
        (lambda: nd.copy(np.ones(2, np.float32), np.ones(2), 1), "same dtype"),
        (lambda: nd.copy(np.broadcast_to(np.float32(1), (2,)), np.ones(2, np.float32), 1), "must be writeable"),
        (lambda: nd.dense(np.array([None]), 1), "objects"),
        (lambda: nd.dense(np.zeros(1, [("a", object)]), 1), "objects"),
        (lambda: nd.gather(np.ones((2, 2), np.float32), [[2], []], np.zeros(1, np.float32), 1), "lies outside axis 0"),
        (lambda: nd.gather(np.ones((2, 2), np.float32), [[0]], np.zeros(1, np.float32), 1), "a table for each axis"),
        (lambda: nd.matmul(np.ones((2, 3), np.float32), nd.PackedMatrix(np.ones((4, 2), np.float32)), 1), "k = 4"),
        (lambda: nd.PackedMatrix(np.ones((0, 2), np.float32)), "each side of the matrix"),
        (lambda: nd.PackedMatrix(np.ones((3, 2), np.float32), np.ones(3, np.float32)), "for each column"),
        (lambda: nd.softmax(np.ones((2, 0), np.float32), False, 1), "at least one element"),
        (lambda: nd.reduce("mean", np.ones((2, 2), np.int32), 1), "'mean' does not exist for int32"),
        (lambda: nd.reduce("prod", np.ones((2, 2, 2), np.float32), 1), "needs \\[rows, n\\]"),
        (lambda: nd.reduce("sum", np.ones(2, np.float32), 1), "x must be \\[rows, n\\] or"),
        (lambda: nd.normalize(ROWS, 0.0, True, 1, ROWS), "scale and bias must have one axis"),
        (lambda: nd.normalize(ROWS, 0.0, True, 1, ROWS[0], ROWS[0, :1]), "as many elements as scale"),
        (lambda: nd.normalize(ROWS, 0.0, True, 1, None, ROWS[0]), "as many elements as scale"),
        (lambda: nd.normalize(ROWS, 0.0, True, 1, ROWS[0], None, 0), "run must be at least 1"),
        (
            lambda: nd.resample(np.ones((1, 2, 1), np.float32), np.array([[2]]), np.ones((1, 1), np.float32), 1),
            "index lies",
        ),
        (
            lambda: nd.pool("max", np.ones((1, 1, 2), np.float32), [2], [1], [1], [1], [0], [1], False, 1),
            "wholly in the",
        ),
        (
            lambda: nd.pool("max", np.ones((1, 1, 2), np.float32), [3], [1], [1], [0], [0], [1], False, 1),
            "wholly in the",
        ),
        (
            lambda: nd.pool("average_padded", np.ones((1, 1, 4), np.float32), [2], [1], [1], [0], [-3], [1], False, 1),
            "end must be at least 0",
        ),
        (
            lambda: nd.pool("max", np.ones((1, 1, 4), np.float32), [2], [1], [1], [-1], [0], [1], False, 1),
            "begin must be at least 0",
        ),
        (
            lambda: nd.pool("max", np.ones((1, 1, 2), np.float32), [2], [0], [1], [0], [0], [1], False, 1),
            "between 1 and",
        ),
        (
            lambda: nd.conv(
                np.ones((1, 3, 4), np.float32), np.ones((2, 6), np.float32), 1, [4], [1], [1], [0], [0], [1], 1
            ),
            "do not fit",
        ),
        (
            lambda: nd.conv(
                np.ones((1, 3, 4), np.float32), np.ones((2, 4), np.float32), 4, [4], [1], [1], [0], [0], [1], 1
            ),
            "between 1 and",
        ),
        (lambda: nd.products(np.ones((2, 3), np.float32), np.ones((4, 2), np.float32), 1), "do not fit"),
        (lambda: nd.products(np.ones((2, 3), np.int32), np.ones((3, 2), np.float32), 1), "need float32"),
        (lambda: nd.products(np.ones(3, np.float32), np.ones((3, 2), np.float32), 1), "has rank 1"),
        (lambda: nd.products(np.ones((2, 1, 1), np.float32), np.ones((3, 1, 1), np.float32), 1), "broadcast"),
    ),
)
def test_bad_arguments_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@settings(max_examples=150)
@given(
    hnp.mutually_broadcastable_shapes(signature="(m,k),(k,n)->(m,n)", max_dims=3, max_side=20, min_side=0),
    st.integers(0, 999),
)
def test_products_of_any_strides_are_those_of_numpy(shapes: hnp.BroadcastableShapes, seed: int) -> None:
    source = np.random.default_rng(seed)

    def operand(shape: tuple[int, ...]) -> Array:
        x: Array = source.integers(-9, 9, shape).astype(np.float32)
        match int(source.integers(5)):
            case 0:
                return np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
            case 1:
                return np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1]
            case 2:
                return np.repeat(x, 2, axis=-1)[..., ::2]
            case 3 if x.size:  # what lies between its rows is no multiple of four bytes
                apart = np.zeros((*shape[:-1], 4 * shape[-1] + 1), np.uint8)
                apart[..., 1:] = x.view(np.uint8)
                return apart[..., 1:].view(np.float32)
        return x

    a, b = (operand(shape) for shape in shapes.input_shapes)
    want = np.matmul(a, b)
    got = nd.products(a, b, 1 + seed % 3)
    assert got.shape == want.shape
    assert np.array_equal(got, want)


# --- Operators of ONNX that the suite has few cases of


def _random_conv(source: np.random.Generator, transposed: bool) -> tuple[Any, Array]:
    from onnx_models import Builder

    rank, groups = int(source.integers(1, 4)), int(source.integers(1, 4))
    inputs, outputs = groups * int(source.integers(1, 4)), groups * int(source.integers(1, 5))
    kernel = [int(n) for n in source.integers(1, 4, rank)]
    sizes = [int(n) for n in source.integers(5, 10, rank)]
    strides, dilations = ([int(n) for n in source.integers(1, 3, rank)] for _ in range(2))
    pads = [int(n) for n in source.integers(0, 2, 2 * rank)]
    b = Builder(int(source.integers(1000)))
    if transposed:
        groups = 1  # with more the package's own implementation fails on some shapes
        weight = b.weight(inputs, outputs, *kernel)
        y = b.node("ConvTranspose", "x", weight, b.weight(outputs), strides=strides, dilations=dilations, pads=pads)
    else:
        weight = b.weight(outputs, inputs // groups, *kernel)
        auto = {"auto_pad": "SAME_LOWER"} if source.random() < 0.3 else {"pads": pads}
        if "auto_pad" in auto:
            dilations = [1] * rank
        y = b.node("Conv", "x", weight, b.weight(outputs), group=groups, strides=strides, dilations=dilations, **auto)
    shape = (2, inputs, *sizes)
    return b.model({"x": shape}, [y]), source.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("transposed", (False, True), ids=("Conv", "ConvTranspose"))
def test_convolutions_of_every_kind(transposed: bool) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")
    import onnxruntime
    from onnx_models import loaded

    source = np.random.default_rng(8)
    for _ in range(60):
        proto, x = _random_conv(source, transposed)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        (want,) = session.run(None, {"x": x})
        for plans in (True, False):
            got = loaded(proto, plans=plans)(x)
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ("MaxPool", "AveragePool"))
def test_poolings_of_every_kind(kind: str) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")
    import onnxruntime
    from onnx_models import Builder, loaded

    source = np.random.default_rng(9)
    for _ in range(80):
        rank = int(source.integers(1, 4))
        kernel = [int(n) for n in source.integers(1, 4, rank)]
        extra: dict[str, Any] = {"pads": [int(n) for side in range(2) for n in source.integers(0, kernel)]}
        if kind == "AveragePool":
            extra["count_include_pad"] = int(source.integers(2))
        strides = [int(n) for n in source.integers(1, 4, rank)]
        shape = (2, 3, *(int(n) for n in source.integers(5, 9, rank)))
        b = Builder()
        y = b.node(kind, "x", kernel_shape=kernel, strides=strides, ceil_mode=int(source.integers(2)), **extra)
        proto = b.model({"x": shape}, [y], opset=19)
        x = source.standard_normal(shape).astype(np.float32)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        (want,) = session.run(None, {"x": x})
        for plans in (True, False):
            np.testing.assert_allclose(loaded(proto, plans=plans)(x), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ("nearest", "linear", "cubic"))
def test_resizes_of_every_kind(mode: str) -> None:
    pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")
    from onnx_models import Builder, assert_agrees

    transforms = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
    source = np.random.default_rng(10)
    for transform in transforms:
        for scale in (2.0, 0.6, 1.7):
            b = Builder()
            rounding = str(source.choice(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]))
            y = b.conv("x", 3, 4)
            extra = {"nearest_mode": rounding} if mode == "nearest" else {"exclude_outside": int(mode == "cubic")}
            scales = b.constant([1, 1, scale, 2.0])
            y = b.node("Resize", y, "", scales, mode=mode, coordinate_transformation_mode=transform, **extra)
            assert_agrees(b.model({"x": [1, 3, 7, 5]}, [y]), source.standard_normal((1, 3, 7, 5)).astype(np.float32))
