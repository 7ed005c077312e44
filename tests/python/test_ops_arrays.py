"""What the operators take and give: kinds of arrays, types, results in place, and clear errors."""

from __future__ import annotations

import pickle
import threading
import weakref
from array import array
from typing import Any

import numpy as np
import pytest

import sepconv

X = np.random.default_rng(0).standard_normal((2, 6, 7, 5), dtype=np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((3, 3, 5, 1), dtype=np.float32)
WANT = sepconv.depthwise_conv2d(X, WEIGHT, padding=1)


class Shared:
    """An array of some library that has DLPack's protocol and a from_dlpack of its own."""

    def __init__(self, values: np.ndarray[Any, Any], device: tuple[int, int] = (1, 0)) -> None:
        self.values, self.device = values, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.values.__dlpack__(**arguments)

    def __array_namespace__(self) -> Any:
        class Namespace:
            @staticmethod
            def from_dlpack(x: Any) -> Shared:
                return Shared(np.from_dlpack(x))

        return Namespace


def test_results_are_of_the_callers_kind() -> None:
    shared = sepconv.depthwise_conv2d(Shared(X), Shared(WEIGHT), padding=1)
    assert isinstance(shared, Shared)
    assert np.array_equal(shared.values, WANT)
    buffer = memoryview(array("f", X.ravel().tolist())).cast("B").cast("f", shape=list(X.shape))
    assert np.array_equal(sepconv.depthwise_conv2d(buffer, WEIGHT, padding=1), WANT)
    assert np.array_equal(sepconv.depthwise_conv2d(X.view(type("Own", (np.ndarray,), {})), WEIGHT, padding=1), WANT)


def test_other_types_are_converted_and_said_to_be() -> None:
    for dtype in (np.float16, np.float64, np.dtype(">f4")):
        x = X.astype(dtype)
        result = sepconv.depthwise_conv2d(x, WEIGHT.astype(dtype), padding=1)
        assert result.dtype == dtype
        want = sepconv.depthwise_conv2d(x.astype(np.float32), WEIGHT.astype(dtype).astype(np.float32), padding=1)
        assert np.array_equal(result, want.astype(dtype))
        call = sepconv.last_call()
        assert call is None or "x" not in call.copied  # the last call was of float32
    sepconv.depthwise_conv2d(X.astype(np.float64), WEIGHT, padding=1)
    call = sepconv.last_call()
    assert call is not None
    assert call.copied == {"x": "float64"}
    assert (call.operator, call.packed, call.isa) == ("depthwise_conv2d", ("weight",), sepconv.isa())
    sepconv.depthwise_conv2d(X, sepconv.prepare(WEIGHT, "depthwise"), padding=1)
    call = sepconv.last_call()
    assert call is not None
    assert (call.copied, call.packed) == ({}, ())


def test_results_go_where_they_are_told_to() -> None:
    for dtype in (np.float32, np.float16, np.float64):
        out = np.full(WANT.shape, np.nan, dtype)
        assert sepconv.depthwise_conv2d(X, WEIGHT, padding=1, out=out) is out
        assert np.array_equal(out, WANT.astype(dtype))
    shared = Shared(np.zeros_like(WANT))
    assert sepconv.depthwise_conv2d(X, WEIGHT, padding=1, out=shared) is shared
    assert np.array_equal(shared.values, WANT)


def test_out_may_be_an_input() -> None:
    x = X.copy()
    assert sepconv.depthwise_conv2d(x, WEIGHT, padding=1, out=x) is x
    assert np.array_equal(x, WANT)
    whole = np.zeros((3, 6, 7, 5), np.float32)
    whole[:2] = X
    sepconv.depthwise_conv2d(whole[:2], WEIGHT, padding=1, out=whole[1:])
    assert np.array_equal(whole[1:], WANT)
    call = sepconv.last_call()
    assert call is not None
    assert "out" in call.copied
    matrix = np.random.default_rng(2).standard_normal((1, 1, 5, 5), dtype=np.float32)
    residual = X.copy()
    want = sepconv.pointwise_conv2d(X, matrix, residual=X)
    sepconv.pointwise_conv2d(X, matrix, residual=residual, out=residual)
    assert np.array_equal(residual, want)


def test_an_empty_batch_goes_where_it_is_told_to() -> None:
    out = np.empty((0, *WANT.shape[1:]), np.float32)
    assert sepconv.depthwise_conv2d(X[:0], WEIGHT, padding=1, out=out) is out


def test_inputs_are_never_written_to() -> None:
    x, weight, bias = X.copy(), WEIGHT.copy(), np.ones(5, np.float32)
    for operand in (x, weight, bias):
        operand.flags.writeable = False
    sepconv.depthwise_conv2d(x, weight, bias, padding=1)
    assert np.array_equal(x, X)
    assert np.array_equal(weight, WEIGHT)


def test_prepared_weights_take_lists() -> None:
    prepared = sepconv.prepare(WEIGHT, "depthwise")
    for _ in range(2):
        pairs: Any = {"stride": [1, 1], "padding": [[1, 1], (1, 1)]}
        assert np.array_equal(sepconv.depthwise_conv2d(X, prepared, **pairs), WANT)


def test_calls_from_many_threads() -> None:
    prepared = sepconv.prepare(WEIGHT, "depthwise")
    wrong: list[Any] = []

    def work() -> None:
        results = [sepconv.depthwise_conv2d(X, prepared, padding=1, threads=1 + i % 3) for i in range(100)]
        wrong.extend(result for result in results if not np.array_equal(result, WANT))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def call(**changed: Any) -> Any:
    arguments: dict[str, Any] = {"x": X, "weight": WEIGHT, "bias": None, **changed}
    return sepconv.depthwise_conv2d(arguments.pop("x"), arguments.pop("weight"), arguments.pop("bias"), **arguments)


READ_ONLY = np.zeros((2, 4, 5, 5), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "changed, error, message",
    [
        ({"x": X[0]}, ValueError, r"x had shape \(6, 7, 5\), must have \(n, h, w, c\)"),
        ({"x": X.astype(np.int32)}, TypeError, "x had dtype int32"),
        ({"x": X.astype(complex)}, TypeError, "x had dtype complex128"),
        ({"x": X.tolist()}, TypeError, "x was a list"),
        ({"x": None}, TypeError, "x was a NoneType"),
        ({"x": np.ma.masked_array(X)}, TypeError, "x was a masked array"),
        ({"x": Shared(X, (2, 0))}, ValueError, r"x was on DLPack device \(2, 0\)"),
        ({"x": X[:, :2, :2]}, ValueError, "weight spans a height of 3"),
        ({"x": X[:, :0]}, ValueError, "at least 1"),
        ({"weight": WEIGHT[..., 0]}, ValueError, "weight had shape"),
        ({"weight": WEIGHT[:, :, :4]}, ValueError, "weight had 4 channels"),
        ({"weight": sepconv.prepare(WEIGHT, "conv")}, ValueError, "prepared as 'conv'"),
        (
            {"weight": sepconv.prepare(WEIGHT, "depthwise"), "bias": np.ones(5, "f")},
            ValueError,
            "bias was given",
        ),
        ({"bias": np.ones(4, np.float32)}, ValueError, r"bias had shape \(4,\)"),
        ({"stride": 0}, ValueError, "stride was 0"),
        ({"stride": 1.0}, TypeError, "stride was 1.0"),
        ({"stride": (1, 2, 3)}, TypeError, "stride was"),
        ({"stride": 2**70}, ValueError, "stride was"),
        ({"dilation": True}, TypeError, "dilation was True"),
        ({"padding": -1}, ValueError, "padding was -1"),
        ({"padding": "full"}, ValueError, "padding was 'full'"),
        ({"padding": ((1, 1), (1,))}, TypeError, "padding was"),
        ({"padding": 2**20, "stride": 1}, ValueError, "the result is 20971"),
        ({"activation": "softplus"}, ValueError, "activation was 'softplus'"),
        ({"layout": "CHWN"}, ValueError, "layout was 'CHWN'"),
        ({"layout": np.array("NHWC")}, ValueError, r"layout was array\('NHWC'"),
        ({"activation": np.array("relu")}, ValueError, r"activation was array\('relu'"),
        ({"threads": 0}, ValueError, "threads was 0"),
        ({"threads": 1.5}, TypeError, "threads was 1.5"),
        ({"out": np.zeros((1, 4, 5, 5), np.float32)}, ValueError, "out had shape"),
        ({"out": READ_ONLY}, ValueError, "out was read-only"),
        ({"out": np.zeros((2, 4, 5, 5), np.int32)}, TypeError, "out had dtype int32"),
        (
            {"out": np.lib.stride_tricks.as_strided(np.zeros(5, np.float32), (2, 4, 5, 5), (0, 0, 0, 4))},
            ValueError,
            "must not share memory between its elements",
        ),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(**changed)


@pytest.mark.parametrize("argument", ["stride", "padding", "dilation"])
def test_a_good_call_makes_no_bad_one_good(argument: str) -> None:
    """1 == True == 1.0, in the keys of what was checked before."""
    depthwise = sepconv.prepare(WEIGHT, "depthwise")
    pointwise = sepconv.prepare(np.ones((1, 1, 5, 4), "f"), "pointwise")
    good: list[Any] = [1, (1, 1), *([((1, 1), (1, 1))] if argument == "padding" else [])]
    bad: list[Any] = [True, 1.0, np.True_, (1, True), (1.0, 1), ((1, 1), (True, 1)), ((1, 1), (1, 1.0))]
    for weight in (WEIGHT, depthwise):
        want = [call(weight=weight, **{argument: value}) for value in good]
        for value in bad:
            with pytest.raises(TypeError, match=f"{argument} was "):
                call(weight=weight, **{argument: value})
        for value, result in zip(good, want, strict=True):
            again = call(weight=weight, **{argument: np.int64(1) if value == 1 else value})
            assert np.array_equal(again, result)
    for value in good:
        sepconv.separable_conv2d(X, depthwise, pointwise, **{argument: value})
    for value in bad:
        with pytest.raises(TypeError, match=f"{argument} was "):
            sepconv.separable_conv2d(X, depthwise, pointwise, **{argument: value})


def test_bad_arguments_of_the_others_are_named() -> None:
    matrix = np.ones((1, 1, 5, 4), np.float32)
    with pytest.raises(ValueError, match="window of 3x3"):
        sepconv.pointwise_conv2d(X, np.ones((3, 3, 5, 4), np.float32))
    with pytest.raises(ValueError, match="4 input channels, must have the 5"):
        sepconv.pointwise_conv2d(X, matrix.transpose(0, 1, 3, 2))
    with pytest.raises(ValueError, match="residual had shape"):
        sepconv.pointwise_conv2d(X, matrix, residual=X)
    with pytest.raises(ValueError, match="pointwise_weight had 5 input channels, must have the 10"):
        sepconv.separable_conv2d(X, np.ones((3, 3, 5, 2), np.float32), matrix)
    with pytest.raises(ValueError, match="groups was 3"):
        sepconv.conv2d(X, np.ones((3, 3, 5, 4), np.float32), groups=3)
    for groups in (True, 1.0):
        for dense in (WEIGHT, sepconv.prepare(WEIGHT, "conv")):
            with pytest.raises(TypeError, match=f"groups was {groups}, must be an int"):
                sepconv.conv2d(X, dense, groups=groups)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expand_bias was given without"):
        sepconv.inverted_residual(X, None, WEIGHT, matrix, np.ones(5, np.float32))
    with pytest.raises(ValueError, match="kind was 'dense'"):
        sepconv.prepare(WEIGHT, "dense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"kind was array\('conv'"):
        sepconv.prepare(WEIGHT, np.array("conv"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layout was 'HWIO'"):
        sepconv.prepare(WEIGHT, "conv", layout="HWIO")  # type: ignore[arg-type]


@pytest.mark.parametrize("out", [False, True])
def test_float32_by_another_name_is_float32(out: bool) -> None:
    values = np.zeros_like(WANT) if out else X
    for given in (
        pickle.loads(pickle.dumps(values)),
        values.astype(np.dtype("f4", metadata={"of": "a file"})),
        values.view(np.dtype(">f4").newbyteorder("<")),
        np.ctypeslib.as_array(np.ctypeslib.as_ctypes(values)),
    ):
        if out:
            assert sepconv.depthwise_conv2d(X, WEIGHT, padding=1, out=given) is given
            assert np.array_equal(given, WANT)
        else:
            assert np.array_equal(sepconv.depthwise_conv2d(given, WEIGHT, padding=1), WANT)
    call = sepconv.last_call()
    assert call is not None
    assert not call.copied


def test_strides_that_reach_no_element_may_be_anything() -> None:
    weight = np.ones((1, 1, 3, 4), np.float32)
    records = np.zeros(5, dtype=[("image", "f4", (8, 8, 3)), ("label", "u1")])  # of 769 bytes
    records["image"] = np.arange(5 * 192, dtype=np.float32).reshape(5, 8, 8, 3)
    into = np.zeros(5, dtype=[("y", "f4", (8, 8, 4)), ("label", "u1")])["y"]
    for i in range(5):
        one = records["image"][i : i + 1]
        want = sepconv.pointwise_conv2d(one.copy(), weight)
        assert np.array_equal(sepconv.pointwise_conv2d(one, weight, out=into[i : i + 1]), want)
        assert np.array_equal(sepconv.pointwise_conv2d(one, weight, residual=into[i : i + 1]), 2 * want)
    unaligned = np.frombuffer(bytearray(289), np.uint8)[1:].view(np.float32).reshape(2, 3, 4, 3)
    assert sepconv.pointwise_conv2d(unaligned[:0], weight).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("channels", [(256, 1024), (512, 512)])
def test_out_may_be_a_weight(channels: tuple[int, int]) -> None:
    """Large weights of one image are packed bit by bit while the result is written."""
    rng = np.random.default_rng(3)
    inputs, outputs = channels
    weight = rng.standard_normal((outputs, inputs, 1, 1), dtype=np.float32)
    x = rng.standard_normal((1, inputs, 16, inputs // 16), dtype=np.float32)
    want = sepconv.pointwise_conv2d(x, weight.copy(), layout="NCHW")
    sepconv.pointwise_conv2d(x, weight, layout="NCHW", out=weight.reshape(1, outputs, 16, inputs // 16))
    assert np.array_equal(weight.reshape(want.shape), want)


def test_memory_that_is_gone_is_named() -> None:
    memory = memoryview(bytearray(4))
    memory.release()
    with pytest.raises(ValueError, match=r"^x was a memoryview that gives no memory: "):
        sepconv.depthwise_conv2d(memory, WEIGHT)


def test_calls_that_were_checked_look_at_where_results_go_all_the_same() -> None:
    source = np.random.default_rng(5)
    memory = source.random((2, 6, 6, 8), dtype=np.float32)
    x, weight = memory[:1].copy(), sepconv.prepare(source.random((1, 1, 8, 8), dtype=np.float32), "pointwise")
    residual = source.random(x.shape, dtype=np.float32)
    want, added = sepconv.pointwise_conv2d(x, weight), sepconv.pointwise_conv2d(x, weight, residual=residual)
    for _ in range(2):
        out = np.empty_like(want)
        assert sepconv.pointwise_conv2d(x, weight, out=out) is out
        assert np.array_equal(out, want)
        assert sepconv.pointwise_conv2d(x, weight, residual=residual, out=out) is out
        assert np.array_equal(out, added)
        same = x.copy()
        assert np.array_equal(sepconv.pointwise_conv2d(same, weight, out=same), want)
        last = sepconv.last_call()
        assert last is not None
        assert "out" in last.copied
        same = residual.copy()
        assert np.array_equal(sepconv.pointwise_conv2d(x, weight, residual=same, out=same), added)
        shifted = np.empty(x.size + 8, np.float32)
        shifted[: x.size] = x.ravel()
        overlapping = shifted[8:].reshape(x.shape)
        assert np.array_equal(sepconv.pointwise_conv2d(shifted[:-8].reshape(x.shape), weight, out=overlapping), want)
        for out in (
            np.zeros((1, 6, 6, 16), np.float32)[..., ::2],
            np.zeros(want.shape),
            np.zeros((1, 6, 8, 6), "f4").swapaxes(2, 3),
        ):
            assert sepconv.pointwise_conv2d(x, weight, out=out) is out
            assert np.array_equal(out.astype(np.float32), want)
        for out, match in (
            (np.broadcast_to(np.zeros(8, np.float32), want.shape), "read-only"),
            (np.zeros((2, 6, 6, 8), np.float32), "out had shape"),
            (np.zeros(want.shape, np.int32), "out had dtype"),
        ):
            with pytest.raises((TypeError, ValueError), match=match):
                sepconv.pointwise_conv2d(x, weight, out=out)
        with pytest.raises(ValueError, match="residual had shape"):
            sepconv.pointwise_conv2d(x, weight, residual=residual[:, :5])


@pytest.mark.parametrize("kind", ["depthwise", "pointwise", "conv"])
def test_prepared_weights_keep_no_array(kind: Any) -> None:
    weight = np.ones((1, 1, 600, 1 if kind == "depthwise" else 600), np.float32)
    kept = sepconv.prepare(weight, kind)
    alive = weakref.ref(weight)
    del weight
    assert alive() is None
    assert kept.packed is not None


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_distance_of_pixels_changes_no_bit(kernel: int, stride: int) -> None:
    """Some share sets of L1, and are copied by the core."""
    source = np.random.default_rng(kernel)
    x = source.random((2, 11, 13, 27), dtype=np.float32)
    weight = sepconv.prepare(source.random((kernel, kernel, 27, 1), dtype=np.float32), "depthwise")
    want = sepconv.depthwise_conv2d(x, weight, stride=stride, padding="same")
    for distance in (28, 256, 512, 1000, 1024):
        wide = np.full((2, 11, 13, distance), np.nan, np.float32)
        wide[..., :27] = x
        for threads in (1, 2):
            got = sepconv.depthwise_conv2d(wide[..., :27], weight, stride=stride, padding="same", threads=threads)
            assert np.array_equal(got, want), (distance, threads)


@pytest.mark.parametrize("channels", [64, 192, 208, 512])
@pytest.mark.parametrize("kernel, stride, dilation", [(3, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 2)])
def test_where_an_array_begins_changes_no_bit(channels: int, kernel: int, stride: int, dilation: int) -> None:
    values = np.random.default_rng(2).standard_normal((2, 9, 10, channels), dtype=np.float32)
    filters = np.random.default_rng(3).standard_normal((kernel, kernel, channels, 1), dtype=np.float32)
    mix = np.random.default_rng(4).standard_normal((1, 1, channels, 24), dtype=np.float32)
    window: dict[str, Any] = {"stride": stride, "padding": kernel // 2, "dilation": dilation}
    want = sepconv.depthwise_conv2d(values, filters, **window)
    separable = sepconv.separable_conv2d(values, filters, mix, **window)
    prepared = sepconv.prepare(filters, "depthwise")
    memory, target = np.empty(values.size + 64, np.float32), np.empty(want.size + 64, np.float32)
    for at in (0, 1, 4, 7, 8, 12, 15):
        x = memory[at : at + values.size].reshape(values.shape)
        x[:] = values
        for threads in (1, 2):
            assert np.array_equal(sepconv.depthwise_conv2d(x, prepared, **window, threads=threads), want)
            assert np.array_equal(sepconv.separable_conv2d(x, prepared, mix, **window, threads=threads), separable)
        cut = sepconv.depthwise_conv2d(x[:, 1:, 2:], prepared, **window)
        assert np.array_equal(cut, sepconv.depthwise_conv2d(values[:, 1:, 2:].copy(), filters, **window))
        for place in (0, 4, at):
            out = target[place : place + want.size].reshape(want.shape)
            assert sepconv.depthwise_conv2d(x, prepared, **window, out=out) is out
            assert np.array_equal(out, want)
