"""The convention records: scaling, labels, JSON."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from sepconv import conventions
from sepconv.conventions import CONVENTIONS, Convention

PIXELS = np.array([[[0, 127, 255], [128, 1, 254]]], np.uint8)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("efficientnet_lite", [-127 / 128, 0, 1]),
        ("slim", [-1, -0.5 / 127.5, 1]),
        ("keras", [-1, -0.5 / 127.5, 1]),
        ("timm", [-1, -0.5 / 127.5, 1]),
        ("torchvision", [-0.485 / 0.229, (127 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
        ("tflite_quant", [-1, -1 / 128, 127 / 128]),
    ],
)
def test_scaling(name: str, expected: list[float]) -> None:
    x = conventions.convention(name).to_input(PIXELS)
    assert x.shape == (1, 1, 2, 3)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0, 0, 0], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_integer_inputs_are_the_pixels(name: str) -> None:
    convention = CONVENTIONS[name]
    straight = convention.to_input(PIXELS, "uint8")
    assert straight.dtype == np.uint8
    np.testing.assert_array_equal(straight[0], PIXELS)
    shifted = convention.to_input(PIXELS, "int8")
    assert shifted.dtype == np.int8
    np.testing.assert_array_equal(shifted[0].astype(int) + 128, PIXELS)


def test_non_contiguous_pixels() -> None:
    flipped = PIXELS[:, ::-1]
    for dtype in ("float32", "uint8"):
        x = conventions.SLIM.to_input(flipped, dtype)
        assert x.flags.c_contiguous
        np.testing.assert_array_equal(x, conventions.SLIM.to_input(flipped.copy(), dtype))


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 1), (2, 2, 4), (1, 2, 2, 3)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image has shape .* must be \[height, width, 3\]"):
        conventions.SLIM.to_input(np.zeros(shape, np.uint8))


def test_wrong_dtype() -> None:
    floats: Any = PIXELS.astype(np.float32)
    with pytest.raises(TypeError, match="image has dtype float32, must be an array of uint8"):
        conventions.SLIM.to_input(floats)
    with pytest.raises(ValueError, match="dtype is 'float64', must be float32, uint8 or int8"):
        conventions.SLIM.to_input(PIXELS, "float64")


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=list(CONVENTIONS))
def test_json_round_trip(convention: Convention) -> None:
    assert Convention.from_dict(json.loads(json.dumps(convention.to_dict()))) == convention


def test_records_are_named_as_they_are_keyed() -> None:
    assert all(record.name == key for key, record in CONVENTIONS.items())
    assert conventions.convention("slim") is conventions.SLIM
    with pytest.raises(ValueError, match="convention is 'caffe', must be one of efficientnet_lite, slim"):
        conventions.convention("caffe")


def test_records_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        conventions.SLIM.label_offset = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "field, value",
    [
        ("resize", "squash"),
        ("interpolation", "lanczos"),
        ("labels", "coco"),
        ("mean", (1.0, 2.0)),
        ("mean", (1.0, 2.0, float("nan"))),
        ("std", (1.0, 0.0, 1.0)),
        ("crop_fraction", 0.0),
        ("crop_fraction", 1.5),
        ("label_offset", -1),
        ("label_offset", 1.5),
        ("label_offset", "1"),
        ("crop_fraction", "0.9"),
        ("crop_fraction", 1e-6),
        ("mean", 1.0),
        ("mean", "abc"),
        ("std", (1, 1, 10**400)),
        ("std", PIXELS[0, 0]),
        ("resize", PIXELS[0, 0]),
        ("name", 5),
    ],
)
def test_bad_fields_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} is .*must"):
        replace(conventions.SLIM, **{field: value})


def test_numbers_of_numpy_are_plain_in_json() -> None:
    numbers: dict[str, Any] = {"crop_fraction": np.float32(0.5), "label_offset": np.int64(1)}
    record = Convention(name="n", mean=(0, 0, 0), std=(1, 1, 1), **numbers)
    assert Convention.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_lists_are_tuples_of_floats() -> None:
    record = replace(conventions.SLIM, mean=[1, 2, np.float32(3)])  # type: ignore[arg-type]
    assert record.mean == (1.0, 2.0, 3.0)
    assert json.loads(json.dumps(record.to_dict()))["mean"] == [1.0, 2.0, 3.0]
    assert hash(record) == hash(Convention.from_dict(record.to_dict()))


def test_arguments_of_another_kind_are_named() -> None:
    wrong: Any
    for wrong in ("1", 1.5, None):
        with pytest.raises(ValueError, match=f"index is {wrong!r}, must be an integer of at least 0"):
            conventions.SLIM.label(wrong)
    for wrong in ([1], None):
        with pytest.raises(TypeError, match=f"image has type {type(wrong).__name__}, must be an array of uint8"):
            conventions.SLIM.to_input(wrong)
        with pytest.raises(TypeError, match=f"record was a {type(wrong).__name__}, must be a mapping"):
            Convention.from_dict(wrong)
    wrong = []
    with pytest.raises(ValueError, match=r"convention is \[\], must be one of"):
        conventions.convention(wrong)


def test_unknown_field_in_a_record() -> None:
    with pytest.raises(ValueError, match="unknown field 'a'"):
        Convention.from_dict({"a": 1, 1: 2})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="unknown field 'gamma'"):
        Convention.from_dict({**conventions.SLIM.to_dict(), "gamma": 2.2})


def test_class_names() -> None:
    names = conventions.class_names()
    assert len(names) == 1000
    assert all(name == name.strip() and name for name in names)
    # Known places in ILSVRC 2012's order.
    assert names[0] == "tench, Tinca tinca"
    assert names[281] == "tabby, tabby cat"
    assert names[652] == "military uniform"
    assert names[999].startswith("toilet tissue")
    with pytest.raises(ValueError, match="labels is 'coco', must be one of imagenet"):
        conventions.class_names("coco")
    wrong: Any = ["imagenet"]
    with pytest.raises(ValueError, match=r"labels is \['imagenet'\], must be one of imagenet, none"):
        conventions.class_names(wrong)


def test_labels_and_their_offset() -> None:
    assert conventions.EFFICIENTNET_LITE.label(0) == "tench, Tinca tinca"
    assert conventions.SLIM.label(0) == conventions.BACKGROUND
    assert conventions.SLIM.label(1) == "tench, Tinca tinca"
    assert conventions.SLIM.label(1000).startswith("toilet tissue")
    assert conventions.EFFICIENTNET_LITE.label(1000) == "class 1000"
    with pytest.raises(ValueError, match="index is -1"):
        conventions.SLIM.label(-1)


def test_guess() -> None:
    assert conventions.guess("uint8", 1001) == conventions.TFLITE_QUANT
    assert conventions.guess("float32", 1001) == conventions.SLIM
    assert conventions.guess("float32", 1000).label_offset == 0
    assert conventions.guess("float32", 1000).label(1) == "goldfish, Carassius auratus"
    assert [conventions.guess("float32", 10).label(index) for index in (0, 7)] == ["class 0", "class 7"]
    assert conventions.class_names("none") == ()
