"""ONNX files of a few bytes that ask for much, forks in the middle, paths of no file, and a session's arguments."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sepconv

onnx = pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")

from memory import Memory  # noqa: E402
from onnx import helper  # noqa: E402
from onnx_files import constant, make_node, model, normal, port, session  # noqa: E402

from sepconv.onnx.model import OnnxModel  # noqa: E402
from sepconv.onnx.reader import read_model  # noqa: E402

# --- Files of a few bytes that ask for much


def chain(count: int, calls: int) -> bytes:
    """Functions, each of which calls the one before it."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    functions = [helper.make_function("local", "F0", ["a"], ["b"], [make_node("Relu", ["a"], ["b"])], opsets)]
    for index in range(1, count):
        names = ["a", *(f"v{i}" for i in range(calls - 1)), "b"]
        body = [make_node(f"F{index - 1}", [names[i]], [names[i + 1]], domain="local") for i in range(calls)]
        functions.append(helper.make_function("local", f"F{index}", ["a"], ["b"], body, opsets))
    node = make_node(f"F{count - 1}", ["x"], ["y"], domain="local")
    return model([node], [port("x", [2])], ["y"], functions=functions)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_functions_call_functions() -> None:
    x = np.array([-1, 1], np.float32)
    np.testing.assert_array_equal(sepconv.InferenceSession(chain(5, 2)).run(None, {"x": x})[0], [0, 1])


def test_functions_that_double_without_end_are_refused() -> None:
    with pytest.raises(sepconv.UnsupportedError, match=r"functions stand for more than 20000 nodes"):
        sepconv.InferenceSession(chain(40, 2))


def test_functions_that_call_each_other_too_deep_are_refused() -> None:
    with pytest.raises(sepconv.ModelFormatError, match=r"call each other more than 64 deep"):
        sepconv.InferenceSession(chain(100, 1))


def test_a_function_that_calls_itself_is_refused() -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    body = [make_node("F", ["a"], ["b"], domain="local")]
    functions = [helper.make_function("local", "F", ["a"], ["b"], body, opsets)]
    with pytest.raises(sepconv.ModelFormatError, match=r"or in a circle"):
        session([make_node("F", ["x"], ["y"], domain="local")], [port("x", [2])], ["y"], functions=functions)


def endless_loop() -> list[Any]:
    nodes = [make_node("Identity", ["c"], ["c2"]), make_node("Add", ["v", "v"], ["v2"])]
    kinds = onnx.TensorProto
    inputs = [port("i", [], kinds.INT64), port("c", [], kinds.BOOL), port("v", [])]
    body = helper.make_graph(nodes, "body", inputs, [port("c2", [], kinds.BOOL), port("v2", [])])
    return [make_node("Loop", ["count", "true", "one"], ["r"], body=body), make_node("Add", ["x", "r"], ["y"])]


def large_function() -> Any:
    nodes = [
        make_node("ConstantOfShape", ["s"], ["b"]),
        make_node("Exp", ["b"], ["e"]),
        make_node("ReduceMax", ["e"], ["r"], keepdims=0),
    ]
    return helper.make_function("local", "F", ["s"], ["r"], nodes, [helper.make_opsetid("", 18)])


BILLION = constant("s", [1 << 30], np.int64)
ADD = make_node("Add", ["x", "r"], ["y"])
HUNGRY: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "a loop": (
        endless_loop(),
        [constant("count", 10**15, np.int64), constant("true", True, np.bool_), constant("one", 1)],
        [],
    ),
    "a function": ([make_node("F", ["s"], ["r"], domain="local"), ADD], [BILLION], [large_function()]),
    "an expansion": (
        [make_node("Expand", ["one", "s"], ["b"]), make_node("Slice", ["b", "zero", "first"], ["r"]), ADD],
        [
            constant("s", [60 << 20], np.int64),
            constant("one", [1]),
            constant("zero", [0], np.int64),
            constant("first", [1], np.int64),
        ],
        [],
    ),
    "a sum": (
        [make_node("ConstantOfShape", ["s"], ["b"]), make_node("ReduceSum", ["b"], ["r"], keepdims=0), ADD],
        [BILLION],
        [],
    ),
    "a product": (
        [
            make_node("ConstantOfShape", ["s"], ["b"]),
            make_node("MatMul", ["b", "b"], ["p"]),
            make_node("ReduceSum", ["p"], ["r"], keepdims=0),
            ADD,
        ],
        [constant("s", [7000, 7000], np.int64)],
        [],
    ),
    "doubled vectors": (
        [make_node("Concat", [f"a{i}", f"a{i}"], [f"a{i + 1}"], axis=0) for i in range(26)]
        + [make_node("Add", ["x", "a26"], ["y"])],
        [constant("a0", [1])],
        [],
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", HUNGRY)
def test_loads_without_computing_it(case: str) -> None:
    nodes, constants, functions = HUNGRY[case]
    data = model(nodes, [port("x", [3])], ["y"], constants, functions)
    with Memory() as memory:
        sepconv.InferenceSession(data)
    assert memory.most < 64 << 20


def test_plans_note_where_few_channels_come_from() -> None:
    """A hundred bytes a rotation took 35 MB each: what is beyond the limit is left to single operators."""
    channels, count = 1 << 20, 6
    nodes, name = [make_node("MaxPool", ["x"], ["y0"], kernel_shape=[1, 1])], "y0"
    constants = [constant(f"k{i}", [i], np.int64) for i in (0, 1, channels)]
    for i in range(count):
        nodes.append(make_node("Slice", [name, "k0", "k1", "k1"], [f"head{i}"]))
        nodes.append(make_node("Slice", [name, "k1", f"k{channels}", "k1"], [f"tail{i}"]))
        nodes.append(make_node("Concat", [f"tail{i}", f"head{i}"], [name := f"y{i + 1}"], axis=1))
    data = model(nodes, [port("x", [1, channels, 1, 1])], [name], constants)
    loaded = OnnxModel(read_model(onnx.load_from_string(data)))
    x = normal(1, channels, 1, 1)
    np.testing.assert_array_equal(loaded(x), np.roll(x, -count, 1))
    moved = sum("channels_f32" in line for line in loaded.explain().splitlines())
    assert 0 < moved < count


def test_a_vector_whose_length_comes_from_an_open_image_is_not_written_out() -> None:
    nodes = [
        make_node("Shape", ["x"], ["sizes"]),
        make_node("Gather", ["sizes", "one"], ["size"]),
        make_node("ConstantOfShape", ["size"], ["b"]),
        make_node("Slice", ["b", "zero", "one"], ["y"]),
    ]
    numbers = [constant("zero", [0], np.int64), constant("one", [1], np.int64)]
    with Memory() as memory:
        session(nodes, [port("x", ["n", 64 << 20])], ["y"], numbers)
    assert memory.most < 64 << 20


# --- Forks, files outside, and what a session is given


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_compiles() -> None:
    open_sizes = session(
        [make_node("Conv", ["x", "w"], ["y"])],
        [port("x", ["n", 3, "h", "w"])],
        ["y"],
        [constant("w", np.ones((4, 3, 3, 3)))],
    )
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            open_sizes.run(None, {"x": np.zeros((1, 3, 3 + number % 40, 3 + number // 40 % 40), np.float32)})

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(15):
            time.sleep(0.01)
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                open_sizes.run(None, {"x": np.zeros((1, 3, 5, 5), np.float32)})
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("location", [".", "a" * 300, b"d\xff\xfein", "folder"])
def test_external_data_in_no_file(tmp_path: Path, location: Any) -> None:
    (tmp_path / "folder").mkdir()
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add(key="location", value="LOCATION")
    name = location if isinstance(location, bytes) else location.encode()
    entry.value = "L" * len(name)
    data = model([make_node("Add", ["x", "w"], ["y"])], [port("x", [2])], ["y"], [tensor])
    (tmp_path / "m.onnx").write_bytes(data.replace(b"L" * len(name), name))
    with pytest.raises(sepconv.ModelFormatError, match=r"'w'"):
        sepconv.load(tmp_path / "m.onnx", external_data=True)


def simple() -> bytes:
    return model([make_node("Relu", ["x"], ["y"])], [port("x", [2, "w"])], ["y"])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_session_takes_bytes_of_any_kind(kind: Any) -> None:
    y = sepconv.InferenceSession(kind(simple())).run(None, {"x": -np.ones((2, 3), np.float32)})[0]
    np.testing.assert_array_equal(y, np.zeros((2, 3)))


def test_a_path_that_can_be_none() -> None:
    with pytest.raises(ValueError, match=r"path was 'a\\x00b', must be a path: .* no null character"):
        sepconv.InferenceSession("a\0b")


@pytest.mark.parametrize("threads", [None, "2", 1.7, -1, True])
def test_a_number_of_threads_that_is_none(threads: Any) -> None:
    options = sepconv.SessionOptions()
    options.intra_op_num_threads = threads
    with pytest.raises(ValueError, match=r"intra_op_num_threads is .*, must be a whole number"):
        sepconv.InferenceSession(simple(), options)


def test_an_option_that_does_not_exist() -> None:
    with pytest.raises(AttributeError):
        sepconv.SessionOptions().intra_op_threads = 2  # type: ignore[attr-defined]


def test_a_size_that_is_no_number() -> None:
    options = sepconv.SessionOptions()
    options.add_session_config_entry("sepconv.size.w", "abc")
    with pytest.raises(ValueError, match=r"'sepconv\.size\.w' is 'abc', must be a positive whole number"):
        sepconv.InferenceSession(simple(), options)


def test_providers_that_are_none() -> None:
    with pytest.raises(ValueError, match=r"providers has 5, must be names"):
        sepconv.InferenceSession(simple(), providers=[5])  # type: ignore[list-item]
    for wrong in ("CPUExecutionProvider", 5):
        with pytest.raises(TypeError, match=f"providers was {wrong!r}, must be a list of names, or None"):
            sepconv.InferenceSession(simple(), providers=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"iobinding was None, must be what io_binding\(\) gave"):
        sepconv.InferenceSession(simple()).run_with_iobinding(None)  # type: ignore[arg-type]


def test_types_by_onnxs_number() -> None:
    assert sepconv.OrtValue.ortvalue_from_shape_and_type([1, 2], 1).numpy().dtype == np.float32
    with pytest.raises(ValueError, match=r"element_type is 99, must be a type of NumPy or ONNX's number"):
        sepconv.OrtValue.ortvalue_from_shape_and_type([1, 2], 99)


def test_open_sizes_have_their_names_or_none() -> None:
    nodes = [make_node("NonZero", ["x"], ["z"]), make_node("Relu", ["x"], ["y"])]
    with pytest.warns(UserWarning, match="reference implementation"):
        loaded = session(nodes, [port("x", [2, "w"])], ["z", "y"])
    assert [argument.shape for argument in loaded.get_outputs()] == [[2, None], [2, "w"]]


@pytest.mark.parametrize("feeds", [None, [1], {1: np.ones((2, 3), np.float32)}])
def test_feeds_that_are_no_mapping(feeds: Any) -> None:
    with pytest.raises(TypeError, match=r"feeds was a \w+, must be a mapping from names"):
        sepconv.InferenceSession(simple()).model.run(feeds)


def test_a_masked_array() -> None:
    masked = np.ma.masked_array(np.ones((2, 3), np.float32), mask=True)
    with pytest.raises(TypeError, match=r"input 'x' was a masked array"):
        sepconv.InferenceSession(simple()).run(None, {"x": masked})


@pytest.mark.parametrize("shape", [(2,), (3, 4), (2, -8), (2, 1.5), "ab"])
def test_a_shape_to_explain_that_does_not_fit(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"input 'x'"):
        sepconv.InferenceSession(simple()).model.explain(shape)


# --- Opsets


@pytest.mark.parametrize("opset", [5, 6, 7, 23, 24, 26])
def test_an_opset_that_is_not_known_to_work_is_told(opset: int) -> None:
    data = model([make_node("Relu", ["x"], ["y"])], [port("x", [2])], ["y"], opset=opset)
    for load in (sepconv.InferenceSession, sepconv.onnx.load):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load(data)
        message = f"opset {opset}; 7 to 23 are known to work, others as far as operators are the same"
        told = [str(warning.message) for warning in caught]
        assert [message in text for text in told] == ([] if 7 <= opset <= 23 else [True])
