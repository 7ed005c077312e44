"""ONNX models of one plan, which is called directly: the results and errors of the way around."""

from __future__ import annotations

import copy
import pickle
from operator import attrgetter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")

from onnx_models import Builder, assert_agrees, loaded, normal

from sepconv.export.onnx import to_onnx
from sepconv.models import mobilenet_v1
from sepconv.onnx.model import OnnxModel


def odd_arrays(x: np.ndarray) -> dict[str, Any]:
    """The same numbers in arrays of other kinds."""
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    return {
        "channels last": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "backwards": np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        "unaligned": unaligned,
        "read-only": np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
        "unpickled": pickle.loads(pickle.dumps(x)),
    }


def test_one_plan_is_called_directly_to_the_same_results() -> None:
    """Of what arrays it takes, all give the bits of the way around; what it does not take is refused as there."""
    model = loaded(to_onnx(mobilenet_v1(alpha=0.25, resolution=32, classes=10).layers, None))
    x = normal(2, 3, 32, 32)
    want = model(x)
    direct = {name: model(array) for name, array in odd_arrays(x).items()}
    assert model._whole is not None
    for _ in range(2):  # by batches in turn: the plan of the last one does not fit
        np.testing.assert_array_equal(model(x[:1]), want[:1])
        np.testing.assert_array_equal(model(x), want)
    model._whole = None
    around = {name: model._program({"input": x.shape}).run({"input": a}, 1)[0] for name, a in odd_arrays(x).items()}
    for name in direct:
        np.testing.assert_array_equal(direct[name], want, err_msg=name)
        np.testing.assert_array_equal(around[name], want, err_msg=name)
        assert direct[name].flags.writeable
        assert direct[name].flags.c_contiguous
    (port,) = model.inputs
    for feeds, error in (
        ({port.name: x.astype(np.float64)}, TypeError),
        ({port.name: x.astype(">f4")}, TypeError),
        ({port.name: np.ma.masked_array(x)}, TypeError),
        ({port.name: x[:, :, :-1]}, ValueError),
        ({port.name: x, "other": x}, ValueError),
        ({}, ValueError),
    ):
        with pytest.raises(error):
            model.run(feeds)


@pytest.mark.parametrize("order", [1, -1])
def test_outputs_come_in_the_order_of_the_file(order: int) -> None:
    b = Builder()
    first = b.node("Relu", b.conv("x", 4, 4))
    assert_agrees(b.model({"x": [1, 4, 8, 8]}, [first, b.conv(first, 4, 4)][::order]), normal(1, 4, 8, 8))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("size", [8, 1])  # one pixel lies in the plan as the caller wants it
def test_outputs_of_one_value_do_not_share_memory(size: int, order: int) -> None:
    b = Builder()
    y = b.node("Relu", b.conv("x", 4, 4))
    model = loaded(b.model({"x": [1, 4, size, size]}, [y, b.node("Identity", y)][::order]))
    for _ in range(2):
        first, second = model(normal(1, 4, size, size))
        np.testing.assert_array_equal(first, second)
        assert not np.shares_memory(first, second)


@pytest.mark.filterwarnings("ignore::sepconv.onnx.program.FallbackWarning")
@pytest.mark.parametrize("options", [{}, {"passes": ["dead_code"], "plans": False}, {"outputs": ["det1_0"]}])
def test_copies(options: dict[str, Any]) -> None:
    """A copy has the passes behind it, and compiles programs of its own."""
    builder = Builder()
    convolved = builder.conv("x", 3, 3)
    determinant = builder.node("Det", convolved)  # which the package onnx runs
    model = loaded(builder.model({"x": (2, 3, "side", "side")}, [convolved, determinant]), **options)
    x = normal(2, 3, 4, 4)
    want = model.run({"x": x})
    for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        for array, expected in zip(copied.run({"x": x}), want, strict=True):
            np.testing.assert_array_equal(array, expected)
        for told in (OnnxModel.explain, repr, attrgetter("inputs", "outputs", "fallbacks", "strict", "name")):
            assert told(copied) == told(model)
