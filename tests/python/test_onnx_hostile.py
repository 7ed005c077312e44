"""ONNX files that lie: refused with an error of ours, nothing large allocated, no other file touched."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")

import onnx
from onnx_models import Builder, normal, small_network

import sepconv
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.onnx import load

TensorProto, helper = onnx.TensorProto, onnx.helper
Change = Callable[[Any], None]
Limit = Callable[[int], AbstractContextManager[None]]


def network() -> Any:
    b = Builder()
    y = b.node("Relu", b.conv("x", 3, 4))
    return b.model({"x": [1, 3, 8, 8]}, [b.node("Flatten", b.node("MaxPool", y, kernel_shape=[2, 2]))])


def changed(change: Change) -> bytes:
    proto = network()
    change(proto)
    data: bytes = proto.SerializeToString()
    return data


def attribute(proto: Any, node: int, name: str, **value: Any) -> None:
    for old in proto.graph.node[node].attribute:
        if old.name == name:
            proto.graph.node[node].attribute.remove(old)
            break
    proto.graph.node[node].attribute.append(helper.make_attribute(name, **value))


def weight(proto: Any) -> Any:
    return proto.graph.initializer[0]


def cycle(proto: Any) -> None:
    proto.graph.node[0].input[0] = proto.graph.node[2].output[0]


def constant_of_shape(proto: Any, sizes: list[int], value: list[float]) -> None:
    proto.graph.initializer.append(helper.make_tensor("sizes", TensorProto.INT64, [len(sizes)], sizes))
    tensor = helper.make_tensor("value", TensorProto.FLOAT, [len(value)], value)
    proto.graph.node.append(helper.make_node("ConstantOfShape", ["sizes"], ["filled"], value=tensor))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("filled", TensorProto.FLOAT, None))


def bias_of_no_axes(proto: Any) -> None:
    bias = proto.graph.initializer[1]
    bias.CopyFrom(helper.make_tensor(bias.name, TensorProto.FLOAT, [], [1.0]))


def nest(proto: Any) -> None:
    chain = helper.make_graph([helper.make_node("Identity", ["x"], ["r"])], "g", [], [])
    for _ in range(30):
        node = helper.make_node("Loop", ["", ""], ["r"], body=chain)
        chain = helper.make_graph([node], "g", [], [])
    proto.graph.node.append(helper.make_node("Loop", ["", ""], ["looped"], body=chain))


def external_in_subgraph(proto: Any) -> None:
    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret")
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["r"])], "g", [], [], [tensor])
    proto.graph.node.append(helper.make_node("Loop", ["", ""], ["looped"], body=graph))


def external_constant(proto: Any) -> None:
    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret")
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


BAD: dict[str, tuple[Change, type[Exception], str]] = {
    "no graph": (lambda m: m.ClearField("graph"), ModelFormatError, "holds no graph"),
    "no output": (lambda m: m.graph.ClearField("output"), ModelFormatError, "has no output"),
    "output of no node": (
        lambda m: m.graph.output.add(name="nothing"),
        ModelFormatError,
        "'nothing' is written by no node",
    ),
    "a cycle": (cycle, ModelFormatError, "it is missing, or the graph has a cycle"),
    "a missing initializer": (
        lambda m: m.graph.initializer.pop(0),
        ModelFormatError,
        r"node 0 \(Conv .* reads 'c0', which no",
    ),
    "two initializers of a name": (
        lambda m: m.graph.initializer.append(weight(m)),
        ModelFormatError,
        "two initializers are called 'c0'",
    ),
    "two inputs of a name": (
        lambda m: m.graph.input.append(m.graph.input[0]),
        ModelFormatError,
        "two inputs are called 'x'",
    ),
    "a value written twice": (
        lambda m: m.graph.node.append(m.graph.node[0]),
        ModelFormatError,
        "writes 'conv0_0', which exists already",
    ),
    "too few bytes": (
        lambda m: setattr(weight(m), "raw_data", b"\0" * 7),
        ModelFormatError,
        r"'c0' has 7 bytes; .* asks for 432",
    ),
    "a negative size": (lambda m: weight(m).dims.__setitem__(0, -4), ModelFormatError, "which is negative"),
    "a huge tensor": (lambda m: weight(m).dims.__setitem__(0, 2**40), ModelFormatError, "at most 2147483647 elements"),
    "many axes": (lambda m: weight(m).dims.extend([1] * 40), ModelFormatError, "has 44 axes; at most 32"),
    "an unknown type": (
        lambda m: setattr(weight(m), "data_type", 99),
        ModelFormatError,
        "is of type 99, which ONNX does not have",
    ),
    "a huge input": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 2**62),
        ModelFormatError,
        "input 'x' has the shape",
    ),
    "an unknown operator": (
        lambda m: setattr(m.graph.node[1], "op_type", "Launch"),
        UnsupportedError,
        r"node 1 \(Launch .*no such operator",
    ),
    "an unknown domain": (
        lambda m: setattr(m.graph.node[1], "domain", "evil"),
        ModelFormatError,
        "the file names no version",
    ),
    "a future opset": (
        lambda m: setattr(m.opset_import[0], "version", 10**6),
        UnsupportedError,
        "opset 1000000; 7 to 23",
    ),
    "an unknown attribute": (
        lambda m: attribute(m, 0, "strands", value=3),
        ModelFormatError,
        "an attribute 'strands', which the operator lacks",
    ),
    "an attribute of a wrong type": (
        lambda m: attribute(m, 0, "group", value=1.5),
        ModelFormatError,
        "'group' is of type FLOAT, must be INT",
    ),
    "an attribute twice": (
        lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0]),
        ModelFormatError,
        "twice",
    ),
    "an attribute missing": (
        lambda m: m.graph.node[2].ClearField("attribute"),
        ModelFormatError,
        "lacks the attribute 'kernel_shape'",
    ),
    "an input that is needed and empty": (
        lambda m: m.graph.node[0].input.__setitem__(1, ""),
        ModelFormatError,
        "lacks its input 'W'",
    ),
    "too many inputs": (
        lambda m: m.graph.node[1].input.append("x"),
        ModelFormatError,
        "has 2 inputs, must have between 1 and 1",
    ),
    "an array of too many axes": (lambda m: constant_of_shape(m, [1] * 216, [0.0]), UnsupportedError, "and 32 axes"),
    "an array of two numbers": (
        lambda m: constant_of_shape(m, [3], [1.0, 2.0]),
        ModelFormatError,
        "must repeat 1 element",
    ),
    "external data": (lambda m: setattr(weight(m), "data_location", 1), UnsupportedError, "external_data=True allows"),
    "external data in a subgraph": (external_in_subgraph, UnsupportedError, "only initializers of the main graph may"),
    "external data in a constant": (external_constant, UnsupportedError, "lies in another file"),
    "endless nesting": (nest, ModelFormatError, "nested more than 16 deep"),
}


@pytest.mark.parametrize("name", BAD)
def test_is_refused(name: str) -> None:
    change, error, message = BAD[name]
    with pytest.raises(error, match=message):
        load(changed(change))


# What a node's schema allows and its shapes do not: refused at load or when it runs, by name.
WRONG: dict[str, tuple[Change, str]] = {
    "pads of half the axes": (lambda m: attribute(m, 0, "pads", value=[1, 1]), "pads is"),
    "negative pads": (lambda m: attribute(m, 0, "pads", value=[-1, 0, 0, 0]), "pads is"),
    "a stride of 0": (lambda m: attribute(m, 0, "strides", value=[0, 1]), "strides is"),
    "a huge stride": (lambda m: attribute(m, 0, "strides", value=[2**62, 1]), "strides is"),
    "a huge dilation": (lambda m: attribute(m, 0, "dilations", value=[2**40, 1]), "dilations is"),
    "groups that do not divide": (lambda m: attribute(m, 0, "group", value=2), "group is 2"),
    "a bias of one number": (bias_of_no_axes, "the bias has"),
    "no groups": (lambda m: attribute(m, 0, "group", value=0), "group is 0"),
    "another kernel_shape": (lambda m: attribute(m, 0, "kernel_shape", value=[5, 5]), "kernel_shape is"),
    "an unknown auto_pad": (lambda m: attribute(m, 0, "auto_pad", value="SIDEWAYS"), "auto_pad is"),
    "a window beyond the image": (lambda m: attribute(m, 2, "kernel_shape", value=[99, 99]), "padded size"),
    "a huge window": (lambda m: attribute(m, 2, "kernel_shape", value=[2**40, 2**40]), "would have the shape"),
}


@pytest.mark.parametrize("name", WRONG)
def test_names_the_node_that_is_wrong(name: str) -> None:
    change, message = WRONG[name]
    with pytest.raises((ValueError, UnsupportedError), match=message):
        load(changed(change))(normal(1, 3, 8, 8))


@pytest.mark.memory
@pytest.mark.parametrize("told", (True, False))
@pytest.mark.parametrize(
    "build",
    (
        lambda b: b.node("ConstantOfShape", b.integers(1 << 20, 1 << 20)),
        lambda b: b.node("Expand", "x", b.integers(1 << 20, 3, 1 << 10, 8)),
        lambda b: b.node("Tile", "x", b.integers(1 << 15, 1 << 15, 1, 1)),
        lambda b: b.node("Resize", "x", "", b.constant([1, 1, 1e6, 1e6])),
        lambda b: b.node("Resize", "x", "", b.constant([1, 1, np.inf, 1])),
        lambda b: b.node("Resize", "x", "", b.constant([1, 1, -1, np.nan])),
        lambda b: b.node("Pad", "x", b.integers(0, 0, 1 << 40, 0, 0, 0, 1 << 40, 0)),
        lambda b: b.node("Range", b.constant(0.0), b.constant(1e30), b.constant(1.0)),
        lambda b: b.node("Conv", "x", b.weight(4, 3, 1, 1), pads=[2**30] * 4),
        lambda b: b.node("ConvTranspose", "x", b.weight(3, 4, 1, 1), strides=[2**30, 2**30]),
    ),
)
def test_a_small_file_asks_for_much(build: Any, told: bool, memory_limit: Limit) -> None:
    b = Builder()
    proto = b.model({"x": [1, 3, 8, 8]}, [build(b)])
    if not told:  # by the output's shape
        proto.graph.output[0].ClearField("type")
    message = "elements (and 32 axes )?are possible|must be above 0 and the result's size below"
    with memory_limit(1 << 30), pytest.raises((ValueError, ModelFormatError, UnsupportedError), match=message):
        load(proto.SerializeToString())(normal(1, 3, 8, 8))


# --- Files beside the model


@pytest.fixture
def beside(tmp_path: Path) -> tuple[Path, Any]:
    """A folder with weights in a file of their own, and the model without them."""
    proto = network()
    tensor = weight(proto)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 16 + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "16")):
        tensor.external_data.add(key=key, value=value)
    return tmp_path, proto


def stored(folder: Path, proto: Any, location: str | None = None) -> Path:
    if location is not None:
        weight(proto).external_data[0].value = location
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_is_read_where_it_is_asked_for(beside: tuple[Path, Any]) -> None:
    path = stored(*beside)
    want = load(network().SerializeToString())(normal(1, 3, 8, 8))
    assert np.array_equal(sepconv.load(path, external_data=True)(normal(1, 3, 8, 8)), want)
    with pytest.raises(UnsupportedError, match="external_data=True allows files of the model's folder"):
        sepconv.load(path)
    with pytest.raises(UnsupportedError, match="external_data=True allows"):
        load(path.read_bytes(), external_data=True)  # bytes lie in no folder


@pytest.mark.parametrize("location", ("../secret", "/etc/passwd", "", "a/../../secret", "..", "a\\b", "a\0b"))
def test_external_data_stays_in_the_folder(beside: tuple[Path, Any], location: str) -> None:
    folder, proto = beside
    (folder.parent / "secret").write_bytes(b"\0" * 4096)
    with pytest.raises(ModelFormatError, match="must be a file in the model's folder"):
        load(stored(folder, proto, location), external_data=True)


def test_external_data_follows_no_links(beside: tuple[Path, Any]) -> None:
    folder, proto = beside
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "weights.bin").write_bytes(b"\0" * 4096)
    (folder / "link.bin").symlink_to(outside / "weights.bin")
    (folder / "linked").symlink_to(outside)
    (folder / "hard.bin").hardlink_to(outside / "weights.bin")
    for location in ("link.bin", "linked/weights.bin"):
        with pytest.raises(ModelFormatError, match="is a symbolic link"):
            load(stored(folder, proto, location), external_data=True)
    with pytest.raises(ModelFormatError, match="without hard links"):
        load(stored(folder, proto, "hard.bin"), external_data=True)
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelFormatError, match="must be a regular file"):
        load(stored(folder, proto, "pipe"), external_data=True)


@pytest.mark.parametrize(
    "key, value, message",
    (
        ("offset", "4000000000", "which has 448"),
        ("offset", "-1", "must be a whole number"),
        ("offset", "1e3", "must be a whole number"),
        ("length", "12", "has a length of 12 bytes"),
        ("length", "9" * 30, "must be a whole number"),
    ),
)
def test_external_data_fits_its_file(beside: tuple[Path, Any], key: str, value: str, message: str) -> None:
    folder, proto = beside
    entries = {entry.key: entry for entry in weight(proto).external_data}
    if key in entries:
        entries[key].value = value
    else:
        weight(proto).external_data.add(key=key, value=value)
    with pytest.raises(ModelFormatError, match=message):
        load(stored(folder, proto), external_data=True)


def test_an_external_file_that_is_missing(beside: tuple[Path, Any]) -> None:
    with pytest.raises(ModelFormatError, match="cannot be opened: No such file"):
        load(stored(*beside, "nothing.bin"), external_data=True)


# --- Damaged files


def test_what_is_no_model(tmp_path: Path) -> None:
    for data in (b"", b"\x08", b"\xff" * 100, b"hello" * 10):
        with pytest.raises((ModelFormatError, UnsupportedError)):
            load(data)
    with pytest.raises(IsADirectoryError):
        load(tmp_path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelFormatError, match="is empty"):
        load(tmp_path / "empty.onnx")
    with pytest.raises(TypeError, match=r"must be a str, an os\.PathLike or bytes"):
        load(3)  # type: ignore[arg-type]


MUTANTS = 1500


@pytest.mark.memory
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_load_or_are_refused(memory_limit: Limit) -> None:
    """Bytes changed at random: an error of ours, or a model that runs. Nothing else, and nothing large."""
    data, source = small_network().SerializeToString(), random.Random(5)
    # Where the weights are, a change only changes numbers: mostly elsewhere.
    header = [i for i in range(len(data)) if not 400 < i < len(data) - 4000] or list(range(len(data)))
    ran = refused = 0
    with memory_limit(2 << 30):
        for _ in range(MUTANTS):
            mutant = bytearray(data)
            for _ in range(source.choice((1, 1, 2, 4))):
                place = min(source.choice(header), len(mutant) - 1)
                match source.randrange(3):
                    case 0:
                        mutant[place] = source.randrange(256)
                    case 1:
                        mutant[place] ^= 1 << source.randrange(8)
                    case _:
                        del mutant[place : place + source.randrange(1, 4)]
            try:
                model = load(bytes(mutant))
                shapes = [[dim or 1 for dim in port.shape] for port in model.inputs]
                if all(port.dtype == "float32" for port in model.inputs) and sum(map(np.prod, shapes)) < 1 << 20:
                    model(*(normal(*shape) for shape in shapes))
                ran += 1
            except (ModelFormatError, UnsupportedError, ValueError, TypeError, MemoryError):
                refused += 1
    assert ran > MUTANTS // 50
    assert refused > MUTANTS // 4
