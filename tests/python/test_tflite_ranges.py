"""Quantised ranges that operators without an activation imply, keep or contradict; and what small files may ask for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tflite", reason="writing the files needs the packages of the extra bench")
pytest.importorskip("sepconv._core", reason="needs the built engine")

from tflite_builder import CONV

import sepconv
from sepconv.errors import ModelFormatError
from sepconv.export.tflite_builder import TfliteBuilder
from sepconv.io import read_tflite

Options = dict[str, Any]
POOL: Options = {"options": "Pool2DOptions", "StrideW": 2, "StrideH": 2, "FilterWidth": 2, "FilterHeight": 2}


def quantised(
    kind: str, shape: tuple[int, ...], *more: Any, scale: float = 0.05, zero_point: int = -128, **options: Any
) -> bytes:
    """One operator of a [1, 2, 4, 4] activation in steps of 0.05 around 0, dequantised."""
    b = TfliteBuilder()
    x = b.input((1, 2, 4, 4), "INT8", scale=0.05, zero_point=0)
    inputs = [x, *([x] if kind == "ADD" else []), *(b.constant("c", np.array(array, np.int32)) for array in more)]
    y = b.operator(kind, inputs, b.tensor("o", shape, "INT8", scale=scale, zero_point=zero_point), **options)
    return b.finish(b.operator("DEQUANTIZE", [y], shape, "DequantizeOptions"))


@pytest.mark.parametrize(
    "kind, shape, more, options",
    [
        ("MEAN", (1, 1, 1, 4), ([1, 2],), {"options": "ReducerOptions", "KeepDims": True}),
        ("HARD_SWISH", (1, 2, 4, 4), (), {}),
        ("LEAKY_RELU", (1, 2, 4, 4), (), {"options": "LeakyReluOptions", "Alpha": 0.5}),
    ],
)
def test_a_range_that_begins_at_0_cuts(
    kind: str, shape: tuple[int, ...], more: Any, options: Options, tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(quantised(kind, shape, *more, **options))
    assert_cut_as_by_litert(path, np.random.default_rng(0).integers(-128, 128, (1, 2, 4, 4)).astype(np.int8))


@pytest.mark.parametrize("zero_point", [0, 128])
def test_a_concatenations_range_cuts(zero_point: int, tmp_path: Path) -> None:
    """Of UINT8: of INT8 TFLite wants all ranges to be the same."""
    b = TfliteBuilder()
    x = b.input((1, 2, 4, 4), "UINT8", scale=0.05, zero_point=zero_point)
    y = b.operator("RELU6", [x], b.tensor("y", (1, 2, 4, 4), "UINT8", scale=6 / 255, zero_point=0))
    z = b.tensor("z", (1, 2, 4, 8), "UINT8", scale=6 / 255, zero_point=0)
    z = b.operator("CONCATENATION", [x, y], z, "ConcatenationOptions", Axis=3)
    path = tmp_path / "model.tflite"
    path.write_bytes(b.finish(b.operator("DEQUANTIZE", [z], (1, 2, 4, 8), "DequantizeOptions")))
    assert_cut_as_by_litert(path, np.random.default_rng(0).integers(0, 256, (1, 2, 4, 4)).astype(np.uint8))


def assert_cut_as_by_litert(path: Path, x: Any) -> None:
    interpreters = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the package ai-edge-litert")
    plain = interpreters.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = interpreters.Interpreter(str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    want = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert want.min() == 0
    np.testing.assert_allclose(sepconv.load(path)(x).reshape(want.shape), want, atol=0.051)


@pytest.mark.parametrize(
    "kind, shape, more, options",
    [
        ("RESHAPE", (1, 1, 8, 4), ([1, 1, 8, 4],), {}),
        ("MAX_POOL_2D", (1, 1, 2, 4), (), POOL),
        ("AVERAGE_POOL_2D", (1, 1, 2, 4), (), POOL),
        ("SLICE", (1, 2, 4, 2), ([0, 0, 0, 1], [1, 2, 4, 2]), {"options": "SliceOptions"}),
        ("PAD", (1, 3, 4, 4), ([[0, 0], [1, 0], [0, 0], [0, 0]],), {"options": "PadOptions"}),
    ],
)
def test_integers_that_are_copied_keep_their_meaning(
    kind: str, shape: tuple[int, ...], more: Any, options: Options
) -> None:
    read_tflite(quantised(kind, shape, *more, zero_point=0, **options))
    for changed in ({"scale": 0.1, "zero_point": 0}, {"zero_point": 1}):
        with pytest.raises(ModelFormatError, match=f"{kind}.* must be the same"):
            read_tflite(quantised(kind, shape, *more, **changed, **options))


@pytest.mark.parametrize(
    "changed", ({"zero_point": -129}, {"zero_point": 256}, {"scale": -1.0}, {"scale": np.nan}, {"scale": np.inf})
)
def test_impossible_ranges(changed: Options) -> None:
    with pytest.raises(ModelFormatError, match=r"'o' has .*(zero point|scale)"):
        read_tflite(quantised("ADD", (1, 2, 4, 4), options="AddOptions", **changed))


@pytest.mark.parametrize("scales, good", [([2e-4] * 4, True), ([4e-4] * 4, False), ([2e-4], True), ([1.0], False)])
def test_the_scale_of_a_bias_is_that_of_the_sums(scales: list[float], good: bool) -> None:
    b = TfliteBuilder()
    x = b.input((1, 1, 1, 4), "INT8", scale=0.02, zero_point=0)
    w = b.constant("w", np.ones((4, 1, 1, 4), np.int8), scale=[0.01] * 4, zero_point=[0] * 4)
    bias = b.constant("b", np.full(4, 1000, np.int32), scale=scales, zero_point=[0] * len(scales))
    y = b.tensor("o", (1, 1, 1, 4), "INT8", scale=0.01, zero_point=0)
    data = b.finish(b.operator("CONV_2D", [x, w, bias], y, **CONV))
    if good:
        read_tflite(data)
    else:
        with pytest.raises(ModelFormatError, match=r"CONV_2D.*the bias has other quantisation scales"):
            read_tflite(data)


def test_dimensions_that_are_kept_and_shapes_that_are_given_twice() -> None:
    b = TfliteBuilder()
    x = b.input((1, 2, 2, 8))
    w = b.constant("w", np.zeros((5, 32), np.float32))
    y = b.operator("FULLY_CONNECTED", [x, w, -1], (1, 2, 2, 5), "FullyConnectedOptions", KeepNumDims=True)
    with pytest.raises(ModelFormatError, match="take 32 values; the last axis that is kept has 8"):
        read_tflite(b.finish(y))
    b = TfliteBuilder()
    shape = b.constant("s", np.array([1, 4, 8], np.int64))
    y = b.operator("RESHAPE", [b.input((1, 2, 2, 8)), shape], (1, 4, 8), "ReshapeOptions", NewShape=[1, 2, 16])
    with pytest.raises(ModelFormatError, match=r"\[1, 4, 8\] by the input, but \[1, 2, 16\] by the options"):
        read_tflite(b.finish(y))


@pytest.mark.parametrize("kind", ("LEAKY_RELU", "SLICE", "CONCATENATION"))
def test_small_files_ask_for_little(kind: str) -> None:
    b = TfliteBuilder()
    channels = 1 << 20
    x = b.input((1, 1, 1, channels))
    begin, size = b.constant("b", np.zeros(4, np.int32)), b.constant("s", np.full(4, -1, np.int32))
    for _ in range(40):
        match kind:
            case "LEAKY_RELU":
                x = b.operator(kind, [x], (1, 1, 1, channels), "LeakyReluOptions", Alpha=0.1)
            case "SLICE":
                x = b.operator(kind, [x, begin, size], (1, 1, 1, channels), "SliceOptions")
            case _:
                x = b.operator(kind, [x], (1, 1, 1, channels), "ConcatenationOptions", Axis=3)
    with pytest.raises(ModelFormatError, match=f"{kind}.*too many for a file of this size"):
        read_tflite(b.finish(x))


def test_zero_points_are_not_gone_through_for_each_operator() -> None:
    b = TfliteBuilder()
    x = b.input((1, 1, 1, 4), "INT8", scale=0.05, zero_point=0)
    y = b.tensor("o", (1, 1, 1, 4), "INT8", scale=[0.05], zero_point=[0, 0])
    data = b.finish(b.operator("ADD", [x, x], y, "AddOptions"))
    with pytest.raises(ModelFormatError, match="1 quantisation scales and 2 zero points"):
        read_tflite(data)


def test_weights_that_overflow_are_nothing_to_warn_of(tmp_path: Path) -> None:
    b = TfliteBuilder()
    w = b.constant("w", np.full((4, 1, 1, 8), 100, np.int8), scale=3e38, zero_point=0)
    path = tmp_path / "model.tflite"
    path.write_bytes(b.finish(b.operator("CONV_2D", [b.input((1, 2, 2, 8)), w], (1, 2, 2, 4), **CONV)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert np.isinf(sepconv.load(path)(np.ones((1, 2, 2, 8), np.float32))).all()
