"""Faults that tests/trust/onnx_mutants.py found: each file is refused with a reason, or runs as it says."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx_models import Builder, assert_agrees, loaded, normal  # noqa: E402

from sepconv.errors import ModelFormatError, UnsupportedError  # noqa: E402
from sepconv.onnx import load  # noqa: E402

REFUSALS = (ModelFormatError, UnsupportedError, ValueError)
pytestmark = pytest.mark.filterwarnings("ignore::sepconv.onnx.FallbackWarning")
X = normal(1, 4, 6, 6)


def convolution(**attributes: Any) -> Any:
    b = Builder()
    return b.model({"x": (1, 4, 6, 6)}, [b.node("Relu", b.conv("x", 4, 4, **attributes))])


@pytest.mark.parametrize("what", ["op_type", "name", "domain", "input", "output", "attribute"])
def test_names_that_are_not_utf8_are_refused(what: str) -> None:
    proto = convolution()
    node = proto.graph.node[0]
    if what == "attribute":
        node.attribute.add(name="QQQQ", i=1)
    elif what in ("input", "output"):
        getattr(node, what).append("QQQQ")
    else:
        setattr(node, what, "QQQQ")
    with pytest.raises(ModelFormatError, match=r"must be UTF-8"):
        load(proto.SerializeToString().replace(b"QQQQ", b"\xffQ\x8bQ"))


@pytest.mark.parametrize("name", ["x", "relu1_0"])
def test_names_of_inputs_and_outputs_that_are_not_utf8_are_refused(name: str) -> None:
    proto = convolution()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "QQQQ"
    with pytest.raises(ModelFormatError, match="must be UTF-8"):
        load(proto.SerializeToString().replace(b"QQQQ", b"\xffQ\x8bQ"))
    data = convolution().SerializeToString()
    with pytest.raises(ModelFormatError, match="must be UTF-8"):
        load(data.replace(name.encode(), b"\xff" * len(name)))


@pytest.mark.parametrize("domain", ["", "ai.onnx", "sepconv"])
def test_functions_in_the_place_of_operators_are_refused(domain: str) -> None:
    proto = convolution()
    proto.functions.add(name="Relu", domain=domain)
    with pytest.raises(UnsupportedError, match="function 'Relu' takes the place"):
        load(proto.SerializeToString())


@pytest.mark.parametrize("version", [0, -1, 2**31, 2**63 - 1])
def test_versions_of_other_domains_must_be_possible(version: int) -> None:
    proto = convolution()
    proto.opset_import.add(domain="own", version=version)
    with pytest.raises(UnsupportedError, match=f"version {version} of the domain 'own', must be"):
        load(proto.SerializeToString())


@pytest.mark.parametrize(
    ("axes", "over"), [(np.array(2), 2), (np.array([[2, 3]]), (2, 3)), (np.array([2, 3], np.float32), (2, 3))]
)
def test_axes_of_another_shape_or_type_are_no_pooling(axes: Any, over: Any) -> None:
    b = Builder()
    proto = b.model({"x": (1, 4, 6, 6)}, [b.node("ReduceMean", "x", b.integers(2, 3))])
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(axes, "c0"))
    with contextlib.suppress(*REFUSALS):
        result = load(proto.SerializeToString())(X)
        np.testing.assert_allclose(result, X.mean(over, keepdims=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_batch_norm_of_another_shape_is_not_folded(place: int) -> None:
    b = Builder()
    inputs = [b.weight(4), b.weight(4), b.weight(4), b.constant(np.ones(4))]
    inputs[place] = b.constant(np.ones((4, 1)))
    proto = b.model({"x": (1, 4, 6, 6)}, [b.conv("x", 4, 4)])
    proto.graph.node.add(op_type="BatchNormalization", input=[proto.graph.output[0].name, *inputs], output=["y"])
    proto.graph.output[0].name = "y"
    with pytest.raises(ValueError, match=r"must have the shape \[4\]"):
        load(proto.SerializeToString())(X)


@pytest.mark.parametrize("groups", [0, -1, 3, 2**31])
def test_factors_behind_impossible_groups_are_not_folded(groups: int) -> None:
    b = Builder()
    y = b.node("ConvTranspose", "x", b.weight(4, 2, 3, 3))
    proto = b.model({"x": (1, 4, 6, 6)}, [b.node("Mul", y, b.constant(np.full((1, 2, 1, 1), 2.0)))])
    proto.graph.node[0].attribute.add(name="group", i=groups, type=onnx.AttributeProto.INT)
    with pytest.raises(REFUSALS, match=r"they do not fit|elements are possible"):
        load(proto.SerializeToString())(X)


def test_images_wider_than_the_engine_takes_run_node_after_node() -> None:
    b = Builder()
    wide = b.node("Pad", b.node("AveragePool", "x", kernel_shape=[1, 2]), b.integers(0, 0, 0, 0, 0, 0, 0, 2**20))
    proto = b.model({"x": (1, 1, 1, 9)}, [b.node("Relu", wide)])
    assert_agrees(proto, normal(1, 1, 1, 9))


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "FLOAT16", "DOUBLE"])
def test_weights_of_another_type_do_not_reach_the_engine(kind: str) -> None:
    proto = convolution()
    tensor = proto.graph.initializer[0]
    tensor.data_type = getattr(onnx.TensorProto, kind)
    tensor.raw_data = bytes({"INT4": 72, "UINT4": 72, "FLOAT16": 288, "DOUBLE": 1152}[kind])
    with pytest.raises(ValueError, match=r"\(Conv\): input 1 is .*, must be float32"):
        loaded(proto)(X)


@pytest.mark.parametrize("value", [1.5, 3, np.float32(2), [np.ones(2, np.float32)]])
def test_inputs_of_no_declared_type(value: Any) -> None:
    b = Builder()
    proto = b.model({"x": (2, 4)}, [b.node("Split", "x", b.integers(1, 1), axis=0, count=2)[0]])
    proto.graph.input[0].ClearField("type")
    with pytest.raises((TypeError, ValueError, UnsupportedError)):
        load(proto.SerializeToString())(value)


@pytest.mark.parametrize("number", [2**31, 2**62, 2**63 - 1])
def test_results_of_impossible_sizes_are_refused(number: int) -> None:
    b = Builder()
    proto = b.model({"x": (1, 4, 6, 6)}, [b.node("ConvTranspose", "x", b.weight(4, 2, 3, 3), strides=[2, 2])])
    proto.graph.node[0].attribute[0].ints[1] = number
    with pytest.raises(UnsupportedError, match="elements are possible"):
        load(proto.SerializeToString())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_files_without_a_size_are_not_read() -> None:
    with pytest.raises(ModelFormatError, match="is empty"):
        load("/proc/self/status")


@pytest.mark.parametrize(
    ("pads", "axes"), [((1, 1), None), ((0,) * 9, None), ((1, 1), (9,)), ((1, 1), (-5,)), ((), (2,))]
)
def test_pads_and_axes_that_do_not_fit_are_refused(pads: Any, axes: Any) -> None:
    b = Builder()
    inputs = ["x", b.constant(np.zeros(8), np.int64), ""]
    proto = b.model({"x": (1, 4, 6, 6)}, [b.node("Relu", b.conv(b.node("Pad", *inputs), 4, 4))])
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array(pads, np.int64), "c0"))
    if axes is not None:
        proto.graph.initializer.add().CopyFrom(onnx.numpy_helper.from_array(np.array(axes, np.int64), "axes"))
        proto.graph.node[0].input.append("axes")
    with pytest.raises(REFUSALS, match=r"\(Pad\): (pads has|axis is)"):
        load(proto.SerializeToString())(X)
