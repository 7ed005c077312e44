"""TFLite files of the families: what the exporter writes is read, and hostile variants of it are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tflite", reason="writing the files needs the packages of the extra [tflite]")
pytest.importorskip("flatbuffers", reason="writing the files needs the packages of the extra [tflite]")
pytest.importorskip("sepconv.threads", reason="needs the built engine")

from tflite_builder import normal, with_operator

import sepconv
from sepconv import graph
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.export import to_tflite
from sepconv.export.tflite_builder import TfliteBuilder
from sepconv.io import read_tflite
from sepconv.model import Model
from sepconv.models.catalog import FAMILIES

SHAPE = (1, 4, 4, 6)
MUL: dict[str, Any] = {"options": "MulOptions"}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_comes_back_from_a_file(name: str, tmp_path: Path) -> None:
    """To the bit: the layers that run are the same."""
    resolution = 128 if FAMILIES[name].resolution == 320 else 64
    model = Model(FAMILIES[name].layers(alpha=1.0, resolution=resolution, weights=None, seed=0), name=name)
    path = tmp_path / f"{name}.tflite"
    path.write_bytes(to_tflite(model.layers))
    copy = sepconv.load(path)
    assert isinstance(copy, Model)
    x = np.random.default_rng(0).standard_normal((1, resolution, resolution, 3), dtype=np.float32)
    expected, results = (r if isinstance(r, tuple) else (r,) for r in (model(x), copy(x)))
    for a, b in zip(expected, results, strict=True):
        assert a.tobytes() == b.tobytes()
    assert {type(layer).__name__ for layer in model.layers} <= {type(layer).__name__ for layer in copy.layers}


def numbers(*values: int) -> Any:
    return np.array(values, np.int32)


def one(kind: str, *constants: Any, output: tuple[int, ...] = SHAPE, twice: bool = False, **options: Any) -> bytes:
    """A network of one operator on [1, 4, 4, 6] and constants."""
    b = TfliteBuilder()
    x = b.input(SHAPE)
    inputs = [x, x] if twice else [x]
    inputs += [b.constant(f"constant {i}", value) for i, value in enumerate(constants)]
    return b.finish(b.operator(kind, inputs, output, **options))


def shuffle(rows: tuple[int, ...], order: tuple[int, ...], last: tuple[int, ...], read_between: bool = False) -> bytes:
    b = TfliteBuilder()
    x = b.operator("RESHAPE", [b.input(SHAPE), b.constant("rows", numbers(*rows))], ())
    if read_between:
        return b.finish(b.operator("RELU", [x], ()))
    if order:
        x = b.operator("TRANSPOSE", [x, b.constant("order", numbers(*order))], (), "TransposeOptions")
    return b.finish(b.operator("RESHAPE", [x, b.constant("last", numbers(*last))], ()))


@pytest.mark.parametrize(
    "data, value",
    [
        (
            lambda: one("MUL", np.array([2.0], np.float32), options="MulOptions", FusedActivationFunction=3),
            lambda x: 2 * x,
        ),
        (lambda: one("MUL", np.array(range(6), np.float32), options="MulOptions"), lambda x: x * np.arange(6)),
        (lambda: one("ADD", np.array([[range(6)]], np.float32)), lambda x: x + np.arange(6)),
        (lambda: one("ADD", np.array([0.5], np.float16)), lambda x: x + 0.5),
        (lambda: one("MUL", twice=True), lambda x: x * x),
        (lambda: one("SLICE", numbers(0, 0, 0, 2), numbers(-1, 4, -1, 3), output=(1, 4, 4, 3)), lambda x: x[..., 2:5]),
        (
            lambda: one("CONCATENATION", twice=True, output=(1, 4, 4, 12), options="ConcatenationOptions", Axis=-1),
            lambda x: np.concatenate([x, x], axis=-1),
        ),
        (
            lambda: one("RESIZE_NEAREST_NEIGHBOR", numbers(8, 12), output=(1, 8, 12, 6)),
            lambda x: x.repeat(2, axis=1).repeat(3, axis=2),
        ),
        (
            lambda: shuffle((1, 4, 4, 3, -1), (0, 1, 2, 4, 3), SHAPE),
            lambda x: x.reshape(1, 4, 4, 3, 2).swapaxes(3, 4).reshape(x.shape),
        ),
    ],
)
def test_each_operator(data: Any, value: Any) -> None:
    x = np.random.default_rng(0).uniform(0, 2, SHAPE).astype(np.float32)
    result = Model(read_tflite(data()), name="one")(x)
    np.testing.assert_allclose(result, value(x), rtol=1e-6, atol=1e-6)


def test_a_shifted_value_that_others_read_too_stays() -> None:
    """relu6(x + 3) is part of a hard sigmoid, and an output."""
    b = TfliteBuilder()
    three, sixth = (b.constant(str(v), np.array(v, np.float32)) for v in (3.0, 1 / 6))
    x = b.input(SHAPE)
    shifted = b.operator("ADD", [x, three], SHAPE, "AddOptions", FusedActivationFunction=3)
    both = b.finish(shifted, b.operator("MUL", [shifted, sixth], SHAPE, "MulOptions"))
    layers = read_tflite(both)
    assert [type(layer).__name__ for layer in layers] == ["Input", "DepthwiseConv2d", "Activation"]
    values = normal(*SHAPE)
    moved, gate = Model(layers, name="both")(values)
    np.testing.assert_allclose(moved, np.clip(values + 3, 0, 6), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gate, np.clip(values + 3, 0, 6) / 6, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "data, error, message",
    [
        (lambda: one("MUL", normal(1, 4, 4, 6), options="MulOptions"), UnsupportedError, "must hold one value, or one"),
        (lambda: one("MUL", normal(5)), UnsupportedError, r"the shape \[5\]"),
        (lambda: one("ADD", normal(1, 1, 1, 1, 6)), UnsupportedError, "must hold one value"),
        (lambda: one("ADD", normal(6, 1)), UnsupportedError, "must hold one value"),
        (lambda: one("MUL", np.array([2], np.int32)), UnsupportedError, "of type INT32"),
        (lambda: one("MUL", np.array([math.nan], np.float32)), ModelFormatError, "not finite"),
        (lambda: one("MUL"), ModelFormatError, "an operand, is missing"),
        (
            lambda: one("MUL", np.array([2], np.float32), options="MulOptions", FusedActivationFunction=4),
            UnsupportedError,
            "TANH",
        ),
        (lambda: one("SLICE", numbers(0, 0, 0, 4), numbers(1, 4, 4, 3)), ModelFormatError, "reach out of the shape"),
        (lambda: one("SLICE", numbers(0, 0, 0, 0), numbers(1, 4, 4, 0)), ModelFormatError, "reach out of the shape"),
        (lambda: one("SLICE", numbers(0, 0, 0, -1), numbers(1, 4, 4, 3)), ModelFormatError, "reach out of the shape"),
        (lambda: one("SLICE", numbers(0, 0, 0, 2**31 - 1), numbers(1, 4, 4, 2**31 - 1)), ModelFormatError, "reach out"),
        (lambda: one("SLICE", numbers(0, 0, 0), numbers(1, 4, 4)), ModelFormatError, "they must have 4"),
        (lambda: one("SLICE", numbers(0, 1, 0, 0), numbers(1, 3, 4, 6)), UnsupportedError, "other than the channels"),
        (lambda: one("SLICE", normal(4), numbers(1, 3, 4, 6)), UnsupportedError, "of type FLOAT32"),
        (lambda: one("CONCATENATION", twice=True), ModelFormatError, "options are of type 0"),
        (
            lambda: one("CONCATENATION", twice=True, options="ConcatenationOptions", Axis=1),
            UnsupportedError,
            "along axis 1",
        ),
        (
            lambda: one("CONCATENATION", normal(*SHAPE), options="ConcatenationOptions", Axis=3),
            UnsupportedError,
            "is constant",
        ),
        (
            lambda: one("CONCATENATION", twice=True, options="ConcatenationOptions", Axis=3, FusedActivationFunction=1),
            UnsupportedError,
            "fused activation",
        ),
        (lambda: one("RESIZE_NEAREST_NEIGHBOR", numbers(2, 8)), UnsupportedError, "4 rows or columns become 2"),
        (lambda: one("RESIZE_NEAREST_NEIGHBOR", numbers(0, 8)), ModelFormatError, "at least 1"),
        (lambda: one("RESIZE_NEAREST_NEIGHBOR", numbers(8, 2**30)), UnsupportedError, "at most 4096"),
        (lambda: one("RESIZE_NEAREST_NEIGHBOR", numbers(8)), ModelFormatError, "height and width"),
        (
            lambda: one(
                "RESIZE_NEAREST_NEIGHBOR", numbers(8, 8), options="ResizeNearestNeighborOptions", HalfPixelCenters=True
            ),
            UnsupportedError,
            "half pixel",
        ),
        (lambda: one("TRANSPOSE", numbers(0, 2, 1, 3)), UnsupportedError, "not a step of a shuffle"),
        (lambda: shuffle((1, 4, 4, 2, 3), (0, 1, 2, 3, 4), SHAPE), UnsupportedError, "not a step of a shuffle"),
        (lambda: shuffle((1, 4, 4, 2, 3), (), SHAPE), UnsupportedError, "no shuffle"),
        (lambda: shuffle((1, 4, 4, 2, 3), (0, 1, 2, 4, 3), (1, 96)), UnsupportedError, "no shuffle"),
        (lambda: shuffle((1, 4, 4, 2, 4), (), SHAPE), ModelFormatError, "does not fit|another number"),
        (lambda: shuffle((1, 2, 8, 2, 3), (), SHAPE), UnsupportedError, "an activation has the shape"),
        (lambda: shuffle((1, 4, 4, 2, 3), (), SHAPE, read_between=True), UnsupportedError, "channels as a matrix"),
    ],
)
def test_what_is_not_supported_is_refused(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        graph.infer_shapes(read_tflite(data()))
    assert "operator " in str(caught.value)


def test_what_no_output_needs_is_not_asked_after() -> None:
    b = TfliteBuilder()
    x = b.input(SHAPE)
    y = b.operator("RELU", [x], SHAPE)
    b.operator("COS", [b.operator("TANH", [y], SHAPE)], SHAPE)
    assert [type(layer).__name__ for layer in read_tflite(b.finish(y))] == ["Input", "Activation"]


def test_slopes_and_gelu() -> None:
    b = TfliteBuilder()
    shape, slope = (1, 4, 3, 2), normal(1, 1, 2)
    x = b.operator("LEAKY_RELU", [b.input(shape)], shape, "LeakyReluOptions", Alpha=0.25)
    x = b.operator("PRELU", [x, b.constant("slope", slope)], shape)
    x = b.operator("GELU", [x], shape, "GeluOptions", Approximate=True)
    _, leaky, sloped, approximate, exact = read_tflite(b.finish(b.operator("GELU", [x], shape)))
    assert isinstance(leaky, graph.PRelu)
    assert isinstance(sloped, graph.PRelu)
    np.testing.assert_array_equal(np.asarray(leaky.slope), [0.25, 0.25])
    np.testing.assert_array_equal(np.asarray(sloped.slope), slope.reshape(2))
    assert [getattr(layer, "activation", "") for layer in (approximate, exact)] == ["gelu_tanh", "gelu"]
    with pytest.raises(ModelFormatError, match="the slope is inf"):
        read_tflite(with_operator("LEAKY_RELU", options="LeakyReluOptions", Alpha=float("inf")))
    with pytest.raises(ModelFormatError, match="input 1, an operand, is missing"):
        read_tflite(with_operator("PRELU"))
    b = TfliteBuilder()
    x = b.input(shape)
    with pytest.raises(UnsupportedError, match="the slope is no constant"):
        read_tflite(b.finish(b.operator("PRELU", [x, x], shape)))
    b = TfliteBuilder()
    x = b.operator("PRELU", [b.input(shape), b.constant("slope", normal(4, 3, 2))], shape)
    with pytest.raises(UnsupportedError, match="it must hold one value, or one for each of the 2 channels"):
        read_tflite(b.finish(x))
