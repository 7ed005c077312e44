"""ONNX models made to mislead: results that would share memory, names that look like ours, numbers that are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sepconv

onnx = pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")

from onnx_files import constant, make_node, model, normal, port, same_as_reference, session  # noqa: E402

# --- Results are the caller's own


def test_writing_to_a_result_changes_no_constant() -> None:
    doubled = session(
        [make_node("Add", ["a", "a"], ["k"]), make_node("Relu", ["x"], ["y"])],
        [port("x", [2])],
        ["k", "y"],
        [constant("a", [1, 1])],
    )
    x = np.ones(2, np.float32)
    doubled.run(None, {"x": x})[0][:] = 777
    np.testing.assert_array_equal(doubled.run(None, {"x": x})[0], [2, 2])


@pytest.mark.parametrize("shape", [[2], ["n"]])
def test_writing_to_a_result_changes_no_input(shape: list[Any]) -> None:
    x = np.ones(2, np.float32)
    session([make_node("Identity", ["x"], ["y"])], [port("x", shape)], ["y"]).run(None, {"x": x})[0][:] = 777
    np.testing.assert_array_equal(x, [1, 1])


def test_writing_to_a_result_changes_no_other() -> None:
    nodes = [make_node("Relu", ["x"], ["r"]), make_node("Identity", ["r"], ["y"])]
    r, y = session(nodes, [port("x", [2])], ["r", "y"]).run(None, {"x": np.ones(2, np.float32)})
    y[:] = 777
    np.testing.assert_array_equal(r, [1, 1])


def test_writing_to_a_sequence_changes_no_input() -> None:
    x = np.ones(2, np.float32)
    with pytest.warns(UserWarning, match="reference implementation"):
        sequence = session([make_node("SequenceConstruct", ["x", "x"], ["s"])], [port("x", [2])], ["s"])
    items = sequence.run(None, {"x": x})[0]
    items[0][:] = 777
    np.testing.assert_array_equal(x, [1, 1])


def test_batch_normalization_of_any_rank() -> None:
    factors = [constant(name, value) for name, value in (("g", [1, 2, 3, 4]), ("b", [0] * 4), ("m", [0] * 4))]
    node = make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["y"])
    normalized = session([node], [port("x", None)], ["y"], [*factors, constant("v", [1] * 4)])
    for shape in ((1, 4, 3, 3), (1, 4, 5), (1, 4, 2, 2, 2)):
        y = normalized.run(None, {"x": np.ones(shape, np.float32)})[0]
        assert y.shape == shape
        np.testing.assert_allclose(y[0, :, 0].reshape(4, -1)[:, 0], [1, 2, 3, 4], rtol=1e-4)


# --- Names that look like those that sepconv makes


@pytest.mark.parametrize("name", ["y/0", "y/0/in", "y/1"])
def test_a_value_called_as_a_group_of_a_convolution(name: str) -> None:
    nodes = [
        make_node("Conv", ["x", "w"], ["y"], group=2, pads=[1] * 4),
        make_node("Relu", [name], ["r"]),
        make_node("Concat", ["y", "r"], ["z"], axis=1),
    ]
    weight = constant("w", normal(4, 2, 3, 3))
    data = model(nodes, [port("x", [1, 4, 8, 8]), port(name, [1, 2, 8, 8])], ["z"], [weight])
    same_as_reference(data, {"x": normal(1, 4, 8, 8), name: normal(1, 2, 8, 8) * 9})


def test_a_value_called_as_a_scaled_activation() -> None:
    nodes = [
        make_node("Conv", ["x", "w"], ["c"]),
        make_node("Relu", ["c"], ["y/scaled"]),
        make_node("Add", ["y/scaled", "c"], ["s"]),
        make_node("HardSigmoid", ["s"], ["y"], alpha=0.2, beta=0.5),
    ]
    data = model(nodes, [port("x", [1, 4, 8, 8])], ["y", "y/scaled"], [constant("w", normal(4, 4, 1, 1))])
    same_as_reference(data, {"x": normal(1, 4, 8, 8)})


def test_a_value_called_as_a_pooled_mean() -> None:
    nodes = [
        make_node("Relu", ["x"], ["y/pooled"]),
        make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0),
    ]
    axes = constant("axes", [2, 3], np.int64)
    same_as_reference(model(nodes, [port("x", [1, 4, 8, 8])], ["y", "y/pooled"], [axes]), {"x": normal(1, 4, 8, 8)})


def test_a_sequence_called_as_a_folded_bias() -> None:
    nodes = [
        make_node("SequenceConstruct", ["x", "x"], ["c.bias"]),
        make_node("Conv", ["x", "w"], ["c"]),
        make_node("Add", ["c", "k"], ["y"]),
        make_node("SequenceAt", ["c.bias", "i"], ["z"]),
    ]
    constants = [constant("w", normal(4, 4, 3, 3)), constant("k", normal(4, 1, 1)), constant("i", 0, np.int64)]
    data = model(nodes, [port("x", [1, 4, 8, 8])], ["y", "z"], constants)
    with pytest.warns(UserWarning, match="reference implementation"):
        same_as_reference(data, {"x": normal(1, 4, 8, 8)})


def test_constants_of_more_axes_than_the_value_are_no_activation() -> None:
    nodes = [
        make_node("Add", ["x", "three"], ["a"]),
        make_node("Clip", ["a", "low", "high"], ["b"]),
        make_node("Div", ["b", "six"], ["y"]),
    ]
    constants = [constant("three", [[[3]]]), constant("low", 0), constant("high", 6), constant("six", 6)]
    same_as_reference(model(nodes, [port("x", [4, 3])], ["y"], constants), {"x": normal(4, 3)})


# --- Numbers that the standard does not allow, and some that it does


def test_range_counts_beyond_what_float64_tells_apart() -> None:
    start = 2**53 + 1
    numbers = [constant(name, value, np.int64) for name, value in (("b", start), ("e", start + 3), ("d", 1))]
    counted = session(
        [make_node("Range", ["b", "e", "d"], ["r"]), make_node("Add", ["r", "x"], ["y"])],
        [port("x", [1], onnx.TensorProto.INT64)],
        ["y"],
        numbers,
    )
    y = counted.run(None, {"x": np.zeros(1, np.int64)})[0]
    np.testing.assert_array_equal(y, [start, start + 1, start + 2])


REFUSED = {
    "an axis of Flatten": ([make_node("Flatten", ["x"], ["y"], axis=9)], [], r"axis is 9, must be between -4 and 4"),
    "a perm of Transpose": ([make_node("Transpose", ["x"], ["y"], perm=[0, -1, 1, 2])], [], r"perm is \[0, -1, 1, 2\]"),
    "axes of Slice": (
        [make_node("Slice", ["x", "b", "e", "a"], ["y"])],
        [constant("b", [0, 0], np.int64), constant("e", [1, 1], np.int64), constant("a", [1, 1], np.int64)],
        r"axes are \[1, 1\], must be different ones",
    ),
    "a size of Resize": (
        [make_node("Resize", ["x", "", "", "s"], ["y"])],
        [constant("s", [1, 4, -1, 8], np.int64)],
        r"\[1, 4, -1, 8\], which is negative",
    ),
    "indices of Gather": (
        [make_node("Gather", ["x", "i"], ["y"])],
        [constant("i", [0.9])],
        r"indices are float32, must be whole numbers",
    ),
    "a block of DepthToSpace": ([make_node("DepthToSpace", ["x"], ["y"], blocksize=0)], [], r"blocksize is 0"),
    "a block of SpaceToDepth": ([make_node("SpaceToDepth", ["x"], ["y"], blocksize=0)], [], r"blocksize is 0"),
    "a number of parts": ([make_node("Split", ["x"], ["y"], num_outputs=0)], [], r"num_outputs is 0"),
    "a limit of Range": (
        [make_node("Range", ["b", "e", "d"], ["r"]), make_node("Add", ["x", "r"], ["y"])],
        [constant("b", 0), constant("e", np.inf), constant("d", 1)],
        r"Range goes from 0\.0 to inf by 1\.0, must end",
    ),
    "a weight of another type": (
        [make_node("Conv", ["x", "w"], ["y"])],
        [constant("w", np.ones((2, 4, 1, 1)), np.float64)],
        r"input 1 is float64, must be float32",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_is_refused(case: str) -> None:
    nodes, constants, message = REFUSED[case]
    with pytest.raises((ValueError, sepconv.ModelFormatError), match=message):
        session(nodes, [port("x", [1, 4, 8, 8])], ["y"], constants).run(None, {"x": normal(1, 4, 8, 8)})
