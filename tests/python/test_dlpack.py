"""Arrays lent by DLPack: versions, devices, flags, ownership, hostile capsules; and results lent in turn."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from array_calls import WANT, WEIGHT, X, call, copied
from dlpack_producer import BFLOAT, COPIED, READ_ONLY, Producer, bfloat16

import sepconv
from sepconv import _core


@pytest.mark.parametrize("old", [False, True])
def test_memory_is_read_in_place_and_given_back_once(old: bool) -> None:
    producer = Producer(X, old=old)
    result = call(producer)
    assert type(result) is np.ndarray  # its module has no from_dlpack
    assert np.array_equal(result, WANT)
    assert copied() == {}
    assert producer.asked == ({} if old else {"max_version": (1, 1)})
    assert producer.capsule_name == b"used_" + producer.given_name
    assert producer.deleted == 1


def test_the_view_is_the_producers_memory() -> None:
    wide = np.zeros((2, 6, 14, 5), np.float32)[:, ::-1, ::2]
    wide[...] = X
    producer = Producer(wide)
    values, is_bfloat16, was_copied, versioned = _core.import_dlpack("x", producer.lend())
    assert (values.ctypes.data, values.strides, values.shape) == (wide.ctypes.data, wide.strides, wide.shape)
    assert (values.flags.writeable, is_bfloat16, was_copied, versioned) == (True, False, False, True)
    part = values[0]
    del values
    gc.collect()
    assert producer.deleted == 0
    assert np.array_equal(part, X[0])
    del part
    assert producer.deleted == 1
    assert np.array_equal(call(Producer(wide)), WANT)
    assert copied() == {}


def test_null_strides_offsets_and_pinned_memory() -> None:
    assert np.array_equal(call(Producer(X, strides=None)), WANT)
    whole = np.concatenate([[9, 9, 9], X.ravel()]).astype(np.float32)
    assert np.array_equal(call(Producer(X, data=whole.ctypes.data, byte_offset=12)), WANT)
    for device in ((1, 0), (3, 0), (11, 1)):
        assert np.array_equal(call(Producer(X, device=device, device_type=device[0])), WANT)
    assert np.array_equal(call(Producer(X, deleter=False)), WANT)
    assert np.array_equal(call(Producer(X, version=(1, 9))), WANT)
    # Strides of axes with one element say nothing.
    one = X[:1, :, :, :1]
    want = sepconv.depthwise_conv2d(one, WEIGHT[:, :, :1], padding=1)
    producer = Producer(one, strides=[2**62, 35, 5, -(2**63)])
    assert np.array_equal(sepconv.depthwise_conv2d(producer, WEIGHT[:, :, :1], padding=1), want)


def test_unaligned_memory_is_copied_and_said_to_be() -> None:
    raw = np.zeros(X.nbytes + 1, np.uint8)
    raw[1:] = X.view(np.uint8).ravel()
    assert np.array_equal(call(Producer(X, data=raw.ctypes.data, byte_offset=1)), WANT)
    assert copied() == {"x": "unaligned"}


def test_empty_arrays_need_no_memory() -> None:
    for strides in ([2**62] * 4, None):
        producer = Producer(np.empty((0, 6, 7, 5), np.float32), data=None, strides=strides)
        assert call(producer).shape == (0, 6, 7, 5)
        assert producer.deleted == 1
    with pytest.raises(ValueError, match="at least 1"):
        call(Producer(np.empty((1, 0, 7, 5), np.float32), data=None))


def test_types() -> None:
    for dtype in (np.float16, np.float64):
        x = X.astype(dtype)
        result = call(Producer(x))
        assert result.dtype == dtype
        assert np.array_equal(result, call(x))
        assert copied() == {"x": np.dtype(dtype).name}
    half = bfloat16(X)
    widened = (half.astype(np.uint32) << 16).view(np.float32)
    result = call(Producer(half, code=BFLOAT))
    assert result.dtype == np.float32  # numpy has no bfloat16
    assert np.array_equal(result, call(widened))
    out = np.zeros_like(half)
    producer = Producer(out, code=BFLOAT)
    assert call(X, out=producer) is producer
    assert copied() == {"out": "bfloat16"}
    assert np.array_equal(out, bfloat16(WANT))


def test_rounding_to_bfloat16() -> None:
    from sepconv.ops.arrays import as_bfloat16

    values = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    values = np.concatenate([values[np.isfinite(values)], np.array([0x3F808000, 0x3F818000], np.uint32).view("f")])
    values = values[np.abs(values) < 3e38]
    assert np.array_equal(as_bfloat16(values), bfloat16(values))
    special = np.array([0x7F800000, 0xFF800000, 0x7F800001, 0xFFC12345, 0x7F7FFFFF, 0x80000000], np.uint32)
    want = np.array([0x7F80, 0xFF80, 0x7FC0, 0xFFC1, 0x7F80, 0x8000], np.uint16)
    assert np.array_equal(as_bfloat16(special.view(np.float32)), want)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with np.errstate(invalid="ignore"):
        assert np.array_equal(as_bfloat16(values), values.astype(ml_dtypes.bfloat16).view(np.uint16))
    x = X.astype(ml_dtypes.bfloat16)
    result = call(x)
    assert result.dtype == x.dtype
    assert np.array_equal(result, call(x.astype(np.float32)).astype(x.dtype))


def test_flags() -> None:
    assert np.array_equal(call(Producer(X, flags=READ_ONLY)), WANT)
    assert copied() == {}
    assert np.array_equal(call(Producer(X, flags=COPIED)), WANT)
    assert copied() == {"x": "by its library"}
    out = np.zeros_like(WANT)
    assert np.array_equal(call(X, out=Producer(out)).values, WANT)
    assert np.array_equal(out, WANT)
    kept = out.copy()
    for wrong, message in (
        (Producer(out, flags=READ_ONLY), "out was read-only, must be writable"),
        (Producer(out, flags=COPIED), "out was a Producer that gave a copy of its memory, must give"),
        (Producer(out, old=True), "out was a Producer, whose DLPack is older than 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            call(X + 1, out=wrong)
        assert wrong.deleted == 1
        assert np.array_equal(out, kept)


def test_out_that_is_an_input_under_another_name() -> None:
    x = X.copy()
    call(Producer(x), out=Producer(x))
    assert np.array_equal(x, WANT)
    assert copied() == {"out": "may share memory with an input"}


HUGE = 2**62


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "changed, error, message",
    [
        ({"device_type": 2}, ValueError, r"on DLPack device \(2, 0\), must be in CPU memory"),
        ({"ndim": -1}, ValueError, "-1 dimensions, must have 0 to 32"),
        ({"ndim": 2**31 - 1}, ValueError, "2147483647 dimensions"),
        ({"ndim": 33}, ValueError, "33 dimensions"),
        ({"ndim": 0}, ValueError, r"x had shape \(\)"),
        ({"shape": None}, ValueError, "a shape of null"),
        ({"shape": [2, 6, -7, 5]}, ValueError, "a dimension of -7"),
        ({"shape": [HUGE, HUGE, HUGE, HUGE]}, ValueError, "reach further than there is memory"),
        ({"shape": [2**31, 2**31, 4, 5], "strides": None}, ValueError, "reach further than there is memory"),
        ({"strides": [HUGE, 35, 5, 1]}, ValueError, "reach further than there is memory"),
        ({"strides": [-(2**63), 35, 5, 1]}, ValueError, "reach further than there is memory"),
        ({"strides": [-(2**60), 35, 5, 1]}, ValueError, "reach out of memory"),
        ({"strides": [2**60] * 4, "shape": [2, 2, 2, 2]}, ValueError, "reach further than there is memory"),
        ({"byte_offset": 2**64 - 64}, ValueError, "reach out of memory"),
        ({"data": None}, ValueError, "data of null"),
        ({"lanes": 4}, TypeError, "x had dtype float32 in vectors of 4, must have float32"),
        ({"lanes": 0}, TypeError, "x had dtype float32 in vectors of 0"),
        ({"bits": 128}, TypeError, "x had dtype float128"),
        ({"bits": 0}, TypeError, "x had dtype float0"),
        ({"code": 0}, TypeError, "x had dtype int32"),
        ({"code": 4}, TypeError, "x had dtype bfloat32"),
        ({"code": 5, "bits": 64}, TypeError, "x had dtype complex64"),
        ({"code": 6, "bits": 8}, TypeError, "x had dtype bool8"),
        ({"code": 17, "bits": 4}, TypeError, "x had dtype DLPack type 17"),
    ],
)
def test_hostile_capsules_are_refused_and_given_back_once(
    old: bool, changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    producer = Producer(X, old=old, **changed)
    with pytest.raises(error, match=message):
        call(producer)
    gc.collect()
    assert producer.deleted == 1


@pytest.mark.parametrize(
    "changed, error, message",
    [
        ({"version": (2, 0)}, BufferError, r"x was given as DLPack 2.0, must be of version 1"),
        ({"version": (0, 8)}, BufferError, r"x was given as DLPack 0.8"),
        ({"device": (2, 1)}, ValueError, r"x was on DLPack device \(2, 1\) \(CUDA\), must be in CPU memory"),
        ({"device": (77, 0)}, ValueError, r"x was on DLPack device \(77, 0\), must be"),
        ({"device": None}, TypeError, r"__dlpack_device__\(\) is None, must be \(type, id\)"),
        ({"device": (1,)}, TypeError, "must be"),
        ({"device": ("cpu", 0)}, TypeError, "must be"),
        ({"device": RuntimeError("lost")}, BufferError, "x was a Producer that does not tell where .* lost"),
        ({"error": BufferError("busy")}, BufferError, "x was a Producer that does not give its memory: busy"),
        ({"error": RuntimeError("gone")}, BufferError, "does not give its memory: gone"),
        ({"error": TypeError("never")}, BufferError, "does not give its memory: never"),
        ({"name": b"used_dltensor"}, BufferError, "x gave a capsule named 'used_dltensor'"),
        ({"name": b"numpy"}, BufferError, "must give a capsule named 'dltensor' or 'dltensor_versioned'"),
    ],
)
def test_producers_that_fail_are_named(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    producer = Producer(X, **changed)
    with pytest.raises(error, match=message):
        call(producer)
    assert producer.deleted == ("version" in changed)  # of version 2, only the deleter may be touched


def test_what_is_no_capsule_and_what_interrupts() -> None:
    with pytest.raises(BufferError, match="x gave a list by __dlpack__"):
        _core.import_dlpack("x", [])
    with pytest.raises(KeyboardInterrupt):
        call(Producer(X, error=KeyboardInterrupt()))
    capsule = Producer(X).lend()
    _core.import_dlpack("x", capsule)
    with pytest.raises(BufferError, match="used_dltensor_versioned"):
        _core.import_dlpack("x", capsule)


def test_every_array_argument_may_be_lent() -> None:
    generator = np.random.default_rng(2)
    depthwise, pointwise = WEIGHT, generator.standard_normal((1, 1, 5, 4), dtype=np.float32)
    biases = generator.standard_normal(5, dtype=np.float32), generator.standard_normal(4, dtype=np.float32)
    residual = generator.standard_normal((2, 6, 7, 4), dtype=np.float32)
    arrays = (X, depthwise, pointwise, *biases)
    want = sepconv.separable_conv2d(*arrays, padding=1, residual=residual)
    lent = [Producer(array) for array in arrays]
    result = sepconv.separable_conv2d(*lent, padding=1, residual=Producer(residual))
    assert np.array_equal(result, want)
    assert copied() == {}
    assert [producer.deleted for producer in lent] == [1] * 5
    prepared = sepconv.prepare(Producer(WEIGHT), "depthwise", Producer(biases[0]))
    want = sepconv.depthwise_conv2d(X, WEIGHT, biases[0], padding=1)
    assert np.array_equal(sepconv.depthwise_conv2d(X, prepared, padding=1), want)


# --- Results


def test_results_can_be_borrowed() -> None:
    for array in (X, X[:, ::-1, ::2], X.astype(np.float16), X.astype(np.float64), X[:0]):
        lent = np.from_dlpack(_core.DLPackArray(array))
        assert np.array_equal(lent, array)
        if array.size:
            assert (lent.ctypes.data, lent.strides) == (array.ctypes.data, array.strides)
    values, is_bfloat16, _, versioned = _core.import_dlpack("x", _core.DLPackArray(bfloat16(X)).__dlpack__())
    assert (is_bfloat16, versioned) == (True, False)
    assert np.array_equal(values, bfloat16(X))
    assert _core.DLPackArray(X).__dlpack_device__() == (1, 0)


@pytest.mark.parametrize("max_version", [None, (0, 8), (1, 0), (2, 0)])
@pytest.mark.parametrize("consumed", [False, True])
def test_lent_memory_lives_as_long_as_it_is_lent(max_version: tuple[int, int] | None, consumed: bool) -> None:
    class Own(np.ndarray[Any, Any]):
        pass

    array = X.copy().view(Own)
    alive = weakref.ref(array)
    capsule = _core.DLPackArray(array).__dlpack__(max_version=max_version, dl_device=(1, 0), copy=False)
    del array
    values = _core.import_dlpack("x", capsule)[0] if consumed else None
    if values is not None:
        assert np.array_equal(values, X)
        del capsule
    assert alive() is not None
    values = capsule = None
    gc.collect()
    assert alive() is None


def test_what_a_consumer_may_ask_of_a_result() -> None:
    lender = _core.DLPackArray(X)
    values, _, was_copied, _ = _core.import_dlpack("x", lender.__dlpack__(max_version=(1, 0), copy=True))
    assert was_copied
    assert values.ctypes.data != X.ctypes.data
    with pytest.raises(ValueError, match="stream was given, must be None"):
        lender.__dlpack__(stream=1)
    with pytest.raises(BufferError, match=r"dl_device was \(2, 0\)"):
        lender.__dlpack__(dl_device=(2, 0))
    locked = X.copy()
    locked.flags.writeable = False
    assert not _core.import_dlpack("x", _core.DLPackArray(locked).__dlpack__(max_version=(1, 0)))[0].flags.writeable
    with pytest.raises(BufferError, match="read-only"):
        _core.DLPackArray(locked).__dlpack__()
    with pytest.raises(TypeError, match="dtype"):
        _core.DLPackArray(X.astype(np.int32))
    with pytest.raises(ValueError, match="strides"):
        _core.DLPackArray(np.zeros(9, np.dtype([("a", "f4"), ("b", "u1")]))["a"])
