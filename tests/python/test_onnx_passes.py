"""Each pass by itself: what it finds, what it must leave, and that results stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")

from onnx import TensorProto
from onnx_models import Builder, assert_agrees, loaded, normal, reference

from sepconv.onnx.passes import PASSES, run_passes
from sepconv.onnx.reader import read_model

SHAPE = {"x": [2, 6, 9, 10]}


def ops(proto: Any, *passes: str) -> list[str]:
    """The operators that are left after these passes."""
    graph, _ = run_passes(read_model(proto), passes)
    return [f"{node.op}{'+' + node.activation if node.activation != 'none' else ''}" for node in graph.nodes]


def check(b: Builder, y: str, *passes: str, opset: int = 18, inputs: Any = None) -> list[str]:
    """The operators left; the model's results stay, with all passes, with these, and with none."""
    shapes = inputs or SHAPE
    proto = b.model(shapes, [y], opset=opset)
    data = [normal(*shape, seed=i) for i, shape in enumerate(shapes.values())]
    assert_agrees(proto, *data)
    np.testing.assert_allclose(loaded(proto, passes=passes)(*data), reference(proto, *data)[0], rtol=1e-4, atol=1e-5)
    return ops(proto, *passes)


@pytest.mark.parametrize("operator", ["BatchNormalization", "Mul", "Add"])
def test_leaves_what_follows_a_convolution_of_other_types(operator: str) -> None:
    b = Builder()
    y = b.conv("x", 6, 4)
    vectors = [b.weight(4) for _ in range(4)] if operator == "BatchNormalization" else [b.weight(4, 1, 1)]
    proto = b.model(SHAPE, [b.node(operator, y, *vectors)], dtype=TensorProto.DOUBLE)
    assert ops(proto, "batch_norm", "scale") == ["Conv", operator]


def test_constants() -> None:
    b = Builder()
    shape = b.node(
        "Concat", b.node("Slice", b.node("Shape", "x"), b.integers(0), b.integers(1)), b.integers(-1), axis=0
    )
    filled = b.node("ConstantOfShape", b.integers(540))
    y = b.node("Add", b.node("Reshape", "x", shape), b.node("Exp", filled))
    assert check(b, y, "constants") == ["Reshape", "Add"]


def test_identities() -> None:
    b = Builder()
    y = b.node("Identity", b.node("Dropout", b.node("Cast", "x", to=1)))
    y = b.node("Transpose", b.node("Mul", y, b.constant(1.0)), perm=[0, 1, 2, 3])
    y = b.node("Cast", b.node("Mul", b.node("Relu", y), b.constant(2.0)), to=6)
    assert check(b, y, "identities") == ["Relu", "Mul", "Cast"]
    b = Builder()  # one more axis is a change
    assert check(b, b.node("Add", "x", b.constant(np.zeros((1, 1, 1, 1, 1)))), "identities") == ["Add"]


def test_batch_norm() -> None:
    b = Builder()
    y = b.batch_norm(b.conv("x", 6, 8, bias=False), 8)
    transposed = b.node("ConvTranspose", y, b.weight(8, 6, 2, 2), strides=[2, 2])
    y = b.batch_norm(transposed, 6)
    assert check(b, y, "batch_norm") == ["Conv", "ConvTranspose"]
    b = Builder()
    shared = b.conv("x", 6, 6)  # read twice: it must stay as it is
    assert check(b, b.node("Add", shared, b.batch_norm(shared, 6)), "batch_norm") == [
        "Conv",
        "BatchNormalization",
        "Add",
    ]


def test_batch_norm_of_the_rows_of_products() -> None:
    shape = {"x": [2, 3, 7]}

    def normalised(b: Builder, x: str, columns: int) -> str:
        rows = b.node("Flatten", b.node("MatMul", x, b.weight(7, columns)), axis=2)
        result: str = b.node("Reshape", b.batch_norm(rows, columns), b.integers(2, 3, columns))
        return result

    b = Builder()
    y = b.node("HardSwish", normalised(b, normalised(b, "x", 7), 5))
    assert check(b, y, "batch_norm", inputs=shape) == ["Linear", "Flatten", "Reshape"] * 2 + ["HardSwish"]
    assert ops(b.model(shape, [y]), "batch_norm", "reshapes", "activation") == [
        "Linear",
        "Linear+hard_swish",
    ]
    b = Builder()  # columns that are others' than the product's
    rows = b.node("Reshape", b.node("MatMul", "x", b.weight(7, 6)), b.integers(12, 3))
    assert check(b, b.batch_norm(rows, 3), "batch_norm", inputs=shape) == ["MatMul", "Reshape", "BatchNormalization"]
    b = Builder()  # read twice
    rows = b.node("Flatten", b.node("MatMul", "x", b.weight(7, 6)), axis=2)
    y = b.node("Add", rows, b.batch_norm(rows, 6))
    assert check(b, y, "batch_norm", inputs=shape) == ["MatMul", "Flatten", "BatchNormalization", "Add"]


def test_reshapes() -> None:
    shape = {"x": [2, 3, 4]}
    b = Builder()  # there and back, the same twice, and into what it is
    flat = b.node("Flatten", b.node("Relu", "x"), axis=2)
    back = b.node("Reshape", b.node("Unsqueeze", flat, b.integers(0)), b.integers(2, 3, -1))
    y = b.node("Mul", b.node("Exp", b.node("Reshape", "x", b.integers(6, 4))), b.node("Flatten", "x", axis=2))
    z = b.node("Add", b.node("Reshape", b.node("Abs", flat), b.integers(2, 3, 4)), back)
    y = b.node("Add", b.node("Reshape", y, b.integers(2, 3, 4)), z)
    left = ["Relu", "Flatten", "Reshape", "Exp", "Mul", "Abs", "Reshape", "Add", "Reshape", "Add"]
    assert check(b, y, "reshapes", "dead_code", inputs=shape) == left
    b = Builder()  # an output keeps its name
    y = b.node("Reshape", b.node("Flatten", "x"), b.integers(2, 3, 4))
    assert check(b, y, "reshapes", inputs=shape) == ["Flatten", "Reshape"]
    b = Builder()  # sizes that only a run tells
    y = b.node("Relu", b.node("Reshape", b.node("Flatten", "x"), b.node("Shape", "x")))
    proto = b.model({"x": ["n", "m", 4]}, [y])
    assert_agrees(proto, normal(2, 3, 4))
    assert ops(proto, "reshapes") == ["Flatten", "Shape", "Reshape", "Relu"]


def test_scale() -> None:
    b = Builder()
    y = b.node("Mul", b.conv("x", 6, 8), b.weight(8, 1, 1))
    y = b.node("Sub", y, b.weight(1, 8, 1, 1))
    y = b.node("Div", b.node("Add", b.weight(8, 1, 1), y), b.constant(0.7))
    assert check(b, y, "scale") == ["Conv"]
    b = Builder()
    y = b.node("Add", b.node("MatMul", "x", b.weight(7, 5)), b.weight(5))
    y = b.node("Mul", y, b.weight(5))
    assert check(b, y, "constants", "scale", inputs={"x": [3, 7]}) == ["Gemm"]
    b = Builder()
    y = b.node("Mul", b.conv("x", 6, 10), b.weight(10))  # along the width, which is 10 as well
    assert check(b, y, "scale") == ["Conv", "Mul"]
    b = Builder()
    y = b.node("Div", b.weight(8, 1, 1), b.conv("x", 6, 8))
    assert ops(b.model(SHAPE, [y]), "scale") == ["Conv", "Div"]


def test_linear() -> None:
    shape = {"x": [2, 3, 7]}
    b = Builder()
    y = b.node("Add", b.weight(1, 5), b.node("MatMul", "x", b.weight(7, 5)))
    y = b.node("Relu", b.node("Add", b.node("MatMul", y, b.weight(5, 4)), b.weight(4)))
    assert check(b, y, "constants", "linear", inputs=shape) == ["Linear", "Linear", "Relu"]
    assert ops(b.model(shape, [y]), "constants", "linear", "activation") == ["Linear", "Linear+relu"]
    for term in ((3, 5), (1,), (1, 1, 1, 5), (3, 1)):  # for each row, for all, with one more axis
        b = Builder()
        y = b.node("Add", b.node("MatMul", "x", b.weight(7, 5)), b.weight(*term))
        assert check(b, y, "constants", "linear", inputs=shape) == ["MatMul", "Add"]
    b = Builder()  # read twice
    y = b.node("MatMul", "x", b.weight(7, 7))
    assert check(b, b.node("Mul", y, b.node("Add", y, b.weight(7))), "linear", inputs=shape) == ["MatMul", "Add", "Mul"]
    b = Builder()  # sizes that only a run tells
    y = b.node("Add", b.node("MatMul", "x", b.weight(7, 5)), b.weight(5))
    proto = b.model({"x": ["n", "m", 7]}, [b.node("Softmax", y)])
    assert_agrees(proto, normal(2, 3, 7))
    assert ops(proto, "constants", "linear") == ["Linear", "Softmax"]


def test_transposed() -> None:
    shapes = {"x": [2, 5, 3, 4], "y": [2, 7, 3, 4]}
    b = Builder()  # attention: heads beside each other in each row
    q = b.node("Transpose", "x", perm=[0, 2, 1, 3])
    weights = b.node("Softmax", b.node("MatMul", q, b.node("Transpose", "y", perm=[0, 2, 3, 1])))
    y = b.node("MatMul", weights, b.node("Transpose", "y", perm=[0, 2, 1, 3]))
    assert check(b, y, "transposed", inputs=shapes) == ["Product", "Softmax", "Product"]
    b = Builder()  # rows that lie apart, and an order that is not said
    y = b.node("MatMul", b.node("Transpose", "x", perm=[0, 1, 3, 2]), b.node("Transpose", b.node("Abs", "y")))
    proto = b.model({"x": [4, 3, 7, 5], "y": [6, 7, 3, 4]}, [y])
    assert ops(proto, "transposed") == ["Abs", "Product"]
    assert_agrees(proto, normal(4, 3, 7, 5), normal(6, 7, 3, 4))
    b = Builder()  # a vector has no rows
    y = b.node("MatMul", b.node("Squeeze", "y", b.integers(0)), b.node("Transpose", "x", perm=[1, 0]))
    assert check(b, y, "transposed", inputs={"x": [5, 4], "y": [1, 4]}) == ["Squeeze", "Transpose", "MatMul"]
    b = Builder()  # read twice; and sizes that only a run tells
    turned = b.node("Transpose", "x", perm=[1, 0])
    y = b.node(
        "Mul", b.node("MatMul", "x", turned), b.node("MatMul", b.node("Transpose", turned), b.node("Relu", turned))
    )
    proto = b.model({"x": ["n", "m"]}, [y])
    assert ops(proto, "transposed") == ["Transpose", "MatMul", "Relu", "Product", "Mul"]
    assert_agrees(proto, normal(3, 4))


@pytest.mark.parametrize("all_wanted", (False, True))
def test_batch_norm_that_trains_on_constants(all_wanted: bool) -> None:
    b = Builder()  # as weights are standardised: more elements than the reference implementation computes at load
    weight = b.weight(1, 300, 54 * 5)
    vectors = [b.weight(300), b.weight(300), b.weight(300), b.constant(np.ones(300))]
    results = b.node("BatchNormalization", weight, *vectors, count=3, training_mode=1, momentum=0.3)
    y = b.node("Conv", "x", b.node("Reshape", results[0], b.integers(300, 30, 3, 3)), pads=[1, 1, 1, 1])
    if not all_wanted:
        b.nodes[0].output[1:] = ["", ""]
    else:
        y = b.node("Mul", y, b.node("Reshape", b.node("Add", *results[1:]), b.integers(300, 1, 1)))
    proto = b.model({"x": [1, 30, 5, 6]}, [y])
    assert "BatchNormalization" not in ops(proto, "constants")
    assert_agrees(proto, normal(1, 30, 5, 6))


def test_batch_norm_that_trains() -> None:
    b = Builder()
    vectors = [b.weight(6) for _ in range(3)]
    y, mean, variance = b.node("BatchNormalization", "x", *vectors, b.constant(np.ones(6)), count=3, training_mode=1)
    proto = b.model(SHAPE, [y, mean, variance])
    model = assert_agrees(proto, normal(*SHAPE["x"]))
    assert "onnx.reference" not in model.explain()


def test_pad() -> None:
    b = Builder()
    y = b.conv(b.node("Pad", "x", b.integers(0, 0, 1, 2, 0, 0, 0, 1)), 6, 8, pads=[1, 0, 1, 0])
    assert check(b, y, "pad") == ["Conv"]
    for pads, value, mode in (
        ((0, 1, 0, 0, 0, 1, 0, 0), 0, "constant"),
        ((0, 0, 1, 1, 0, 0, 1, 1), 1, "constant"),
        ((0, 0, 1, 1, 0, 0, 1, 1), 0, "reflect"),
    ):
        b = Builder()
        y = b.conv(b.node("Pad", "x", b.integers(*pads), b.constant(value), mode=mode), 6 + pads[1] * 2, 8)
        assert check(b, y, "pad") == ["Pad", "Conv"]


def test_flatten() -> None:
    for flat in (("Flatten",), ("Reshape", (2, -1)), ("Reshape", (0, -1)), ("Reshape", (-1, 540))):
        b = Builder()
        x = b.node("Flatten", "x") if len(flat) == 1 else b.node("Reshape", "x", b.integers(*flat[1]))
        assert check(b, b.node("Gemm", x, b.weight(540, 4, scale=0.05)), "flatten", "dead_code") == ["Gemm"]
    b = Builder()
    y = b.node("MatMul", b.node("Reshape", "x", b.integers(4, 270)), b.weight(270, 3, scale=0.05))
    assert check(b, y, "flatten", "dead_code") == ["Reshape", "MatMul"]


def test_activations_in_several_nodes() -> None:
    three, zero, six, sixth = 3.0, 0.0, 6.0, 1 / 6

    def gate(b: Builder) -> Any:
        return b.node("Clip", b.node("Add", "x", b.constant(three)), b.constant(zero), b.constant(six))

    def hard_sigmoid(b: Builder) -> Any:
        return b.node("Mul", b.constant(sixth), gate(b))

    cases: dict[str, list[Callable[[Builder], Any]]] = {
        "HardSwish": [
            lambda b: b.node("Div", b.node("Mul", "x", gate(b)), b.constant(six)),
            lambda b: b.node("Mul", hard_sigmoid(b), "x"),
            lambda b: b.node("Mul", "x", b.node("HardSigmoid", "x", alpha=sixth, beta=0.5)),
        ],
        "Activation": [
            hard_sigmoid,
            lambda b: b.node("Mul", "x", b.node("Sigmoid", "x")),
            lambda b: b.node("Clip", "x", b.constant(zero), b.constant(six)),
            lambda b: b.node("Clip", "x", b.constant(zero)),
        ],
        "Mish": [lambda b: b.node("Mul", b.node("Tanh", b.node("Softplus", "x")), "x")],
    }
    for name, builds in cases.items():
        for build in builds:
            b = Builder()
            assert check(b, build(b), "hard_swish", "dead_code") == [name]
    b = Builder()
    b.node("Identity", "x")
    other = b.node("Mul", "x", b.node("HardSigmoid", "x", alpha=0.2, beta=0.5))
    assert check(b, other, "hard_swish", "dead_code") == ["HardSigmoid", "Mul"]


@pytest.mark.parametrize("name", ("Relu", "Sigmoid", "HardSwish", "HardSigmoid", "Gelu"))
def test_activation(name: str) -> None:
    b = Builder()
    y = b.node(name, b.conv("x", 6, 8))
    kind = {"HardSwish": "hard_swish", "HardSigmoid": "hard_sigmoid"}.get(name, name.lower())
    assert check(b, y, "activation", opset=20) == [f"Conv+{kind}"]
    b = Builder()
    sums = b.conv("x", 6, 6)
    assert check(b, b.node("Add", sums, b.node(name, sums)), "activation", opset=20) == ["Conv", name, "Add"]


def test_pooling_and_squeeze_excite() -> None:
    b = Builder()
    x = b.conv("x", 6, 6)
    gate = b.node("Sigmoid", b.conv(b.node("ReduceMean", x, b.integers(-1, -2)), 6, 6, 1))
    proto = b.model(SHAPE, [b.node("Mul", gate, x)])
    model = assert_agrees(proto, normal(*SHAPE["x"]))
    assert ("squeeze_excite", "1 block(s) found") in model.notes
    assert ops(proto, "pooling")[1] == "GlobalAveragePool"
    b = Builder()
    assert check(b, b.node("ReduceMean", "x", b.integers(2, 3), keepdims=0), "pooling") == [
        "GlobalAveragePool",
        "Flatten",
    ]
    b = Builder()
    assert check(b, b.node("ReduceMean", "x", b.integers(1, 2)), "pooling") == ["ReduceMean"]


def test_channel_shuffle() -> None:
    b = Builder()
    split = b.node("Reshape", b.conv("x", 6, 6), b.integers(2, 3, 2, 9, 10))
    y = b.node("Reshape", b.node("Transpose", split, perm=[0, 2, 1, 3, 4]), b.integers(2, 6, 9, 10))
    assert check(b, y, "channel_shuffle", "dead_code") == ["Conv", "ChannelShuffle"]
    b = Builder()
    split = b.node("Reshape", "x", b.integers(2, 3, 2, 10, 9))  # another height and width on the way
    y = b.node("Reshape", b.node("Transpose", split, perm=[0, 2, 1, 3, 4]), b.integers(2, 6, 9, 10))
    assert check(b, y, "channel_shuffle", "dead_code") == ["ChannelShuffle"]  # pixels move as a whole all the same
    b = Builder()
    split = b.node("Reshape", "x", b.integers(2, 3, 2, 9, 10))
    y = b.node("Reshape", b.node("Transpose", split, perm=[0, 2, 1, 4, 3]), b.integers(2, 6, 9, 10))
    assert check(b, y, "channel_shuffle", "dead_code") == ["Reshape", "Transpose", "Reshape"]


def test_dead_code() -> None:
    b = Builder()
    b.node("Exp", b.conv("x", 6, 8))
    assert check(b, b.node("Relu", "x"), "dead_code") == ["Relu"]


def test_each_can_be_left_out() -> None:
    from onnx_models import small_network

    proto = small_network()
    x = normal(1, 3, 16, 16)
    want = reference(proto, x)[0]
    for left_out in PASSES:
        model = loaded(proto, passes=[name for name in PASSES if name != left_out])
        np.testing.assert_allclose(model(x), want, rtol=1e-4, atol=1e-6)
        assert left_out not in dict(model.notes)
    for alone in PASSES:
        np.testing.assert_allclose(loaded(proto, passes=[alone])(x), want, rtol=1e-4, atol=1e-6)
