"""What passes may not rewrite: sums that round, factors that overflow, shapes that only a file states, other types.

What is expected is what onnxruntime gives without optimisations, said in a few lines of NumPy.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper
from onnx_models import Array, Builder, loaded, reference

from sepconv.onnx.program import FallbackWarning

WAYS: tuple[dict[str, Any], ...] = ({}, {"passes": ()}, {"plans": False})
X = np.array([0.3, 0.6, 1.7, -2.2], np.float32).reshape(1, 1, 2, 2)
MAGIC = 1.5 * 2.0**23


def all_give(proto: Any, want: Any, *inputs: Array, rtol: float = 1e-6) -> None:
    feeds = dict(zip([port.name for port in proto.graph.input], inputs, strict=True))
    for way in WAYS:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", FallbackWarning)
            (got,) = loaded(proto, **way).run(feeds)
        assert got.shape == np.shape(want)
        np.testing.assert_allclose(got, want, rtol=rtol)


@pytest.mark.parametrize("behind", ("nothing", "Conv", "Gemm"))
def test_a_sum_that_rounds(behind: str) -> None:
    b = Builder()
    x, shape = "x", tuple(X.shape)
    if behind == "Conv":
        x = b.node("Conv", "x", b.constant(np.ones((1, 1, 1, 1))))
    if behind == "Gemm":
        shape = (1, 4)
        x = b.node("Gemm", "x", b.constant(np.eye(4)))
    y = b.node("Sub", b.node("Add", x, b.constant(MAGIC)), b.constant(MAGIC))
    all_give(b.model({"x": shape}, [y]), np.round(X).reshape(shape), X.reshape(shape))


@pytest.mark.parametrize(("first", "second", "scale"), [(1e30, 1e30, 1e-30), (1e-30, 1e-30, 1e30)])
def test_factors_whose_product_is_no_float(first: float, second: float, scale: float) -> None:
    b = Builder()
    y = b.node("Mul", b.node("Mul", "x", b.constant(first)), b.constant(second))
    x = X * np.float32(scale)
    all_give(b.model({"x": X.shape}, [y]), x * np.float32(first) * np.float32(second), x)


def test_a_difference_times_infinity() -> None:
    b = Builder()
    y = b.node("Mul", b.node("Sub", "x", b.constant(1.0)), b.constant(np.inf))
    all_give(b.model({"x": X.shape}, [y]), (X - 1) * np.float32(np.inf), X)


def test_weights_times_a_factor_that_overflow() -> None:
    b = Builder()
    y = b.node("Mul", b.node("Conv", "x", b.constant(np.full((1, 1, 1, 1), 1e20))), b.constant(1e20))
    x = X * np.float32(1e-20)
    all_give(b.model({"x": X.shape}, [y]), X * np.float32(1e20), x)
    b = Builder()
    y = b.node("Mul", b.node("Gemm", "x", b.constant(np.eye(2))), b.constant(np.inf))
    # In float32 0·inf is not there: the sums are 1 and 2.
    all_give(b.model({"x": (1, 2)}, [y]), np.full((1, 2), np.inf), np.array([[1, 2]], np.float32))


@pytest.mark.parametrize(("op", "zero"), [("Add", 0.0), ("Sub", -0.0), ("Add", -0.0), ("Sub", 0.0)])
def test_the_sign_of_zero(op: str, zero: float) -> None:
    x = np.array([-0.0, 1], np.float32)
    b = Builder()
    y = b.node("Reciprocal", b.node(op, "x", b.constant(zero)))
    with np.errstate(divide="ignore"):
        want = 1 / (x + np.float32(zero) if op == "Add" else x - np.float32(zero))
    all_give(b.model({"x": (2,)}, [y]), want, x)


@pytest.mark.parametrize("dtype", (np.float16, np.float64))
@pytest.mark.parametrize("op", ("Gemm", "MatMul"))
def test_products_of_other_types_behind_a_flatten(op: str, dtype: Any) -> None:
    b = Builder()
    y = b.node(op, b.node("Flatten", "x"), b.constant(np.ones((2, 3)), dtype))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    all_give(b.model({"x": ("N", 2, 1, 1)}, [y], dtype=kind), [[2, 2, 2]], np.ones((1, 2, 1, 1), dtype))


def test_a_constant_that_is_flattened_before_a_product() -> None:
    b = Builder()
    tensor = helper.make_tensor("v", TensorProto.DOUBLE, [1], [2.0])
    constant = b.node("ConstantOfShape", b.node("Shape", "x"), value=tensor)
    y = b.node("MatMul", b.node("Flatten", constant), b.constant(np.ones((4, 3)), np.float64))
    all_give(b.model({"x": ("N", 1, 4)}, [y]), np.full((2, 3), 8.0), np.zeros((2, 1, 4), np.float32))


@pytest.mark.parametrize("op", ("Gemm", "MatMul"))
def test_products_of_many_axes(op: str) -> None:
    b = Builder()
    shape = (2, *[1] * 9, 4)
    x = b.node("Flatten", "x") if op == "Gemm" else "x"
    y = b.node("Add", b.node(op, x, b.constant(np.ones((4, 2)))), b.constant(np.ones(2)))
    want = np.full((2, 2) if op == "Gemm" else (*shape[:-1], 2), 5.0)
    all_give(b.model({"x": shape}, [y]), want, np.ones(shape, np.float32))


def test_shapes_that_only_the_file_states() -> None:
    b = Builder()
    relu = b.node("Relu", "x")
    flat = b.node("Reshape", relu, b.integers(1, -1))
    proto = b.model({"x": ("N", 4)}, [b.node("Neg", flat)])
    for name in (relu, flat):
        proto.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]))
    all_give(proto, np.full((1, 8), -1.0), np.ones((2, 4), np.float32))


def test_a_gemm_whose_bias_counts_nothing() -> None:
    b = Builder()
    y = b.node("Gemm", "x", b.constant(np.ones((8, 3))), b.constant(np.full(3, np.nan)), beta=0.0)
    all_give(b.model({"x": (1, 8)}, [y]), np.full((1, 3), 8.0), np.ones((1, 8), np.float32))


def test_a_mean_of_doubles_over_no_images() -> None:
    b = Builder()
    proto = b.model({"x": ("N", 2, 2, 2)}, [b.node("ReduceMean", "x", b.integers(2, 3))], dtype=TensorProto.DOUBLE)
    all_give(proto, np.zeros((0, 2, 1, 1)), np.zeros((0, 2, 2, 2)))


def test_an_operand_aligned_with_an_axis() -> None:
    b = Builder()
    term = np.array([1, 10, 100, 1000], np.float32)
    y = b.node("Add", b.node("MatMul", "x", b.constant(np.eye(4))), b.constant(term), axis=0, broadcast=1)
    want = np.broadcast_to(term.reshape(4, 1, 1, 1), (4, 1, 4, 4))
    found = [loaded(b.model({"x": (4, 1, 4, 4)}, [y], opset=6), **way) for way in WAYS]
    for model in found:
        np.testing.assert_array_equal(model(np.zeros((4, 1, 4, 4), np.float32)), want)


def test_a_convolution_without_outputs() -> None:
    b = Builder()
    proto = b.model({"x": (1, 1, 3, 3)}, [b.node("Conv", "x", b.constant(np.ones((0, 1, 1, 1))))])
    all_give(proto, np.zeros((1, 0, 3, 3)), np.ones((1, 1, 3, 3), np.float32))


def test_paddings_that_are_no_whole_numbers() -> None:
    b = Builder()
    pads = b.constant([0, 0, 1, 1, 0, 0, 1, np.inf])
    y = b.node("Conv", b.node("Pad", "x", pads), b.constant(np.ones((1, 1, 1, 1))))
    proto = b.model({"x": (1, 1, 3, 3)}, [y], opset=13)
    with pytest.raises(ValueError, match="Pad"):
        loaded(proto)(np.ones((1, 1, 3, 3), np.float32))


def test_a_variance_below_0_is_nothing_to_warn_of() -> None:
    b = Builder()
    ones = [b.constant(np.ones(1)) for _ in range(3)]
    conv = b.node("Conv", "x", b.constant(np.ones((1, 1, 1, 1))))
    proto = b.model({"x": X.shape}, [b.node("BatchNormalization", conv, *ones, b.constant([-1.0]))])
    all_give(proto, np.full(X.shape, np.nan), X)


def test_a_shuffle_of_strings() -> None:
    b = Builder()
    split = b.node("Reshape", "x", b.integers(1, 2, 2, 1))
    y = b.node("Reshape", b.node("Transpose", split, perm=[0, 2, 1, 3]), b.integers(1, 4, 1, 1))
    proto = b.model({"x": (1, 4, 1, 1)}, [y], dtype=TensorProto.STRING)
    x = np.array(list("abcd"), object).reshape(1, 4, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        assert loaded(proto)(x).tolist() == reference(proto, x)[0].tolist()


def test_terms_of_ordinary_size_are_still_folded() -> None:
    b = Builder()
    y = b.node("Add", b.node("Mul", b.conv("x", 1, 2), b.constant(0.5)), b.constant(300.0))
    proto = b.model({"x": X.shape}, [y])
    assert "scale: 2 factor(s) and term(s)" in loaded(proto).explain()
    all_give(proto, reference(proto, X)[0], X, rtol=1e-5)
