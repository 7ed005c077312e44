"""The passes about GELU, layer normalisation and channels that are last: what they find, and that results stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the package onnx (extra onnx)")

from onnx_models import Builder, assert_agrees, loaded, normal
from test_onnx_passes import SHAPE, check, ops

from sepconv.onnx.passes import run_passes
from sepconv.onnx.reader import read_model

LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def _convnext_block(b: Builder, x: Any) -> Any:
    """What is between the Transposes of ConvNeXt's block."""
    y = b.node("LayerNormalization", x, b.weight(6), b.weight(6), axis=-1, epsilon=1e-3)
    y = b.node("Add", b.weight(12), b.node("MatMul", y, b.weight(6, 12)))
    y = b.node("Mul", y, b.node("Sigmoid", y))
    return b.node("Mul", b.node("MatMul", b.node("Clip", y, b.constant(-0.5)), b.weight(12, 6)), b.weight(1, 1, 1, 6))


def test_channels_last() -> None:
    turned = ["LayerNorm", "Conv", "Add", "Sigmoid", "Mul", "Clip", "Conv", "Mul"]
    b = Builder()
    y = _convnext_block(b, b.node("Transpose", "x", perm=LAST))
    y = b.node("Add", "x", b.node("Transpose", y, perm=FIRST))
    assert check(b, y, "channels_last", "identities", "dead_code") == [*turned, "Add"]
    b = Builder()  # a value on the way is read with channels last too, and one path leads back
    y = _convnext_block(b, b.node("Transpose", "x", perm=LAST))
    b.node("Identity", "x")
    first = b.node("Transpose", y, perm=FIRST)
    other = b.node("ReduceSum", y, b.integers(2), keepdims=0)
    proto = b.model(SHAPE, [first, other])
    assert_agrees(proto, normal(*SHAPE["x"]))
    assert ops(proto, "channels_last", "dead_code") == [*turned, "Transpose", "Identity", "ReduceSum"]
    b = Builder()  # no way back: nothing is won
    y = b.node("ReduceSum", _convnext_block(b, b.node("Transpose", "x", perm=LAST)), b.integers(2))
    assert "LayerNorm" not in check(b, y, "channels_last")
    b = Builder()  # two parts that meet, and operands that the pass must leave
    left, right = (b.node("Relu", b.node("Transpose", "x", perm=LAST)) for _ in range(2))
    y = b.node("Transpose", b.node("Sub", left, b.node("Neg", right)), perm=FIRST)
    wide = b.node("Add", left, b.node("Reshape", "x", b.integers(2, 9, 10, 6)))
    proto = b.model(SHAPE, [y, wide])
    assert_agrees(proto, normal(*SHAPE["x"]))
    assert ops(proto, "channels_last", "dead_code").count("Transpose") == 1
    b = Builder()  # more axes than an image has
    y = b.node("Mul", b.node("Transpose", "x", perm=LAST), b.weight(1, 1, 1, 1, 6))
    assert check(b, y, "channels_last", "dead_code") == ["Transpose", "Mul"]
    b = Builder()  # of each row, not of channels
    y = b.node("LayerNormalization", b.node("Transpose", "x", perm=LAST), b.weight(10, 6), axis=2)
    y = b.node("Transpose", y, perm=FIRST)
    assert check(b, y, "channels_last", "dead_code") == ["Transpose", "LayerNormalization", "Transpose"]


def test_differences_keep_their_sign() -> None:
    for shape in ([2, 6, 1, 1], [2, 6, 3, 4]):
        b = Builder()
        y = b.node("Sub", b.conv("x", 6, 6, 1), b.conv("x", 6, 6, 1))
        y = b.node("Sub", y, b.node("GlobalAveragePool", "x")) if shape[2] == 1 else y
        assert_agrees(b.model({"x": shape}, [b.conv(y, 6, 4, 1)]), normal(*shape))
    b = Builder()
    y = b.node("Sub", b.node("Gemm", "x", b.weight(6, 5)), b.node("Gemm", "x", b.weight(6, 5)))
    assert_agrees(b.model({"x": [3, 6]}, [b.node("Gemm", y, b.weight(5, 2))]), normal(3, 6))


def test_layer_norm_of_rows_that_differ_is_not_of_channels() -> None:
    b = Builder()
    y = b.node("LayerNormalization", b.node("Gemm", "x", b.weight(4, 4)), b.weight(4, 1), b.weight(1, 4))
    proto = b.model({"x": [4, 4]}, [b.node("Gemm", y, b.weight(4, 4))])
    assert "differs between images" in assert_agrees(proto, normal(4, 4)).explain()


def test_what_files_declare_costs_nothing() -> None:
    b = Builder()
    mean = b.node("ReduceMean", "x", axes=[-1])
    d = b.node("Sub", "x", mean)
    variance = b.node("ReduceMean", b.node("Mul", d, d), axes=[-1])
    y = b.node("Div", d, b.node("Sqrt", b.node("Add", variance, b.constant(1e-5))))
    graph, _ = run_passes(read_model(b.model({"x": ["n", 500_000_000]}, [y], opset=13)), ["layer_norm"])
    (node,) = graph.nodes
    assert node.op == "LayerNormalization"
    assert graph.constants[node.inputs[1]].strides == (0,)
    b = Builder()
    y = b.node("Transpose", "x", perm=LAST)
    shared, weight = b.constant(1.5), b.weight(6, 6)
    for _ in range(500):
        y = b.node("MatMul", b.node("Add", y, shared), weight)
    graph, _ = run_passes(read_model(b.model(SHAPE, [b.node("Transpose", y, perm=FIRST)])), ["channels_last"])
    assert len({name for node in graph.nodes for name in node.inputs if name in graph.constants}) == 2


def test_slopes_in_a_plan() -> None:
    for opset, slope in ((18, (6, 1, 1)), (18, (1,)), (18, (1, 6, 1, 1)), (6, (6,))):
        b = Builder()
        y = b.node("PRelu", b.node("LeakyRelu", b.conv("x", 6, 6), alpha=0.3), b.weight(*slope))
        model = assert_agrees(b.model(SHAPE, [y], opset=opset), normal(*SHAPE["x"]))
        assert "native" not in model.explain().split("output")[1]
    b = Builder()
    y = b.node("PRelu", b.conv("x", 6, 6), b.weight(6, 9, 1))
    model = assert_agrees(b.model(SHAPE, [y]), normal(*SHAPE["x"]))
    assert "a slope that differs within a channel" in model.explain()


def _written_out(b: Builder, x: Any, axis: int, *, twice: bool = False, square: bool = False) -> Any:
    """A layer normalisation without its operator, with scale and bias."""

    def centered() -> Any:
        return b.node("Sub", x, b.node("ReduceMean", x, axes=[axis]))

    y = centered()
    other = centered() if twice else y
    power = b.node("Mul", other, other) if square else b.node("Pow", other, b.constant(2.0))
    total = b.node("Add", b.node("ReduceMean", power, axes=[axis]), b.constant(1e-3))
    normal = b.node("Div", y, b.node("Sqrt", total))
    shape = (10,) if axis != 1 else (6, 1, 1)
    return b.node("Add", b.weight(*shape), b.node("Mul", normal, b.weight(*shape)))


def test_layer_norm() -> None:
    for axis, name in ((-1, "LayerNormalization"), (3, "LayerNormalization"), (1, "LayerNorm")):
        for twice, square in ((False, False), (True, True)):
            b = Builder()
            y = _written_out(b, "x", axis, twice=twice, square=square)
            assert check(b, b.node("Relu", y), "layer_norm", opset=14) == [name, "Relu"]
    b = Builder()
    assert "LayerNorm" not in check(b, _written_out(b, "x", 2), "layer_norm", opset=14)
    b = Builder()  # no scale, and two that read what is normalised
    mean = b.node("ReduceMean", "x", axes=[1])
    y = b.node("Sub", "x", mean)
    variance = b.node("ReduceMean", b.node("Mul", y, y), axes=[1])
    normal = b.node("Div", y, b.node("Sqrt", b.node("Add", b.constant(0.1), variance)))
    y = b.node("Mul", b.node("Mul", normal, b.weight(6, 1, 1)), normal)
    assert check(b, y, "layer_norm", opset=14) == ["LayerNorm", "Mul", "Mul"]
    b = Builder()  # means over other axes than each other
    mean = b.node("ReduceMean", "x", axes=[1])
    y = b.node("Sub", "x", mean)
    variance = b.node("ReduceMean", b.node("Pow", y, b.constant(2.0)), axes=[3])
    y = b.node("Div", y, b.node("Sqrt", b.node("Add", variance, b.constant(0.1))))
    assert "Div" in check(b, y, "layer_norm", opset=14)


def test_layer_norm_of_vectors_in_a_plan() -> None:
    b = Builder()
    pooled = b.node("Flatten", b.node("GlobalAveragePool", b.conv("x", 6, 6)))
    y = b.node("Gemm", b.node("LayerNormalization", pooled, b.weight(6), b.weight(6)), b.weight(6, 3))
    model = assert_agrees(b.model(SHAPE, [y]), normal(*SHAPE["x"]))
    assert "native" not in model.explain().split("output")[1]
    b = Builder()
    y = b.node("Sub", b.node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "x")
    model = assert_agrees(b.model(SHAPE, [y]), normal(*SHAPE["x"]))
    assert "native" not in model.explain().split("output")[1]


def _gelus(b: Builder, x: Any) -> list[Any]:
    """As exporters write it: torch's order, TensorFlow's, one half first, and by tanh with a product or a power."""
    half, one, three, cubic = (b.constant(number) for number in (0.5, 1.0, 3.0, 0.044715))
    by_root = b.node("Add", b.node("Erf", b.node("Div", x, b.constant(np.sqrt(2)))), one)
    by_factor = b.node("Add", one, b.node("Erf", b.node("Mul", b.constant(np.sqrt(0.5)), x)))
    cube = b.node("Mul", cubic, b.node("Mul", b.node("Mul", x, x), x))
    power = b.node("Mul", b.node("Pow", x, three), cubic)
    tanhs = [
        b.node("Add", one, b.node("Tanh", b.node("Mul", b.node("Add", x, third), b.constant(np.sqrt(2 / np.pi)))))
        for third in (cube, power)
    ]
    return [
        b.node("Mul", b.node("Mul", x, by_root), half),
        b.node("Mul", x, b.node("Mul", half, by_factor)),
        b.node("Mul", b.node("Mul", x, half), by_root),
        *(b.node("Mul", b.node("Mul", half, x), tanh) for tanh in tanhs),
    ]


def test_gelu() -> None:
    for index in range(5):
        for squared in (False, True):  # x is a product itself
            b = Builder()
            x = b.node("Mul", "x", "x") if squared else "x"
            made = [*["Mul"] * squared, "Gelu"]
            y = _gelus(b, x)[index]
            assert check(b, y, "gelu", "dead_code") == made
            b = Builder()
            y = _gelus(b, b.conv("x", 6, 6))[index]
            assert check(b, y, "gelu", "activation", "dead_code") == [f"Conv+gelu{'_tanh' if index > 2 else ''}"]
    b = Builder()
    two = b.node("Add", b.node("Erf", b.node("Div", "x", b.constant(np.sqrt(2)))), b.constant(2.0))
    other = b.node("Add", b.node("Erf", b.node("Div", "x", b.constant(1.5))), b.constant(1.0))
    for gate in (two, other):
        assert "Gelu" not in check(b, b.node("Mul", b.node("Mul", "x", gate), b.constant(0.5)), "gelu", "dead_code")
    grown = b.node(
        "Mul",
        b.node("Mul", "x", b.node("Add", b.node("Erf", b.node("Div", "x", b.constant(np.sqrt(2)))), b.constant(1.0))),
        b.constant(np.full((1, 1, 1, 1, 1), 0.5)),
    )
    assert "Gelu" not in check(b, grown, "gelu", "dead_code")


def test_layer_norm_leaves_what_has_other_axes_or_no_elements() -> None:
    for shape, two in (([3, 5], np.full((1, 1, 1, 1), 2.0)), ([2, 0], np.array(2.0))):
        b = Builder()
        d = b.node("Sub", "x", b.node("ReduceMean", "x", axes=[1]))
        variance = b.node("ReduceMean", b.node("Pow", d, b.constant(two)), axes=[1])
        y = b.node("Div", d, b.node("Sqrt", b.node("Add", variance, b.constant(1e-5))))
        assert "Div" in ops(b.model({"x": shape}, [y], opset=13), "layer_norm")


def test_batch_norm_of_numbers() -> None:
    b = Builder()
    y = b.node("BatchNormalization", "x", *(b.constant(np.full(1, value)) for value in (2.0, 1.0, 0.5, 4.0)))
    x = normal(4)
    result = loaded(b.model({"x": [4]}, [y], opset=9))(x)  # the reference implementation refuses it
    np.testing.assert_allclose(result, (x - 0.5) / np.sqrt(4 + 1e-5) * 2 + 1, rtol=1e-5)


def test_affine() -> None:
    def scaled(b: Builder, x: Any, *, term: bool = True) -> Any:
        y = b.node("Mul", x, b.weight(6, 1, 1))
        return b.node("Sub", b.node("Add", y, b.weight(1, 6, 1, 1)), b.constant(0.5)) if term else y

    for group, kernel in ((1, 1), (1, 3), (2, 3), (6, 3)):
        b = Builder()
        y = b.node("Conv", scaled(b, "x"), b.weight(12, 6 // group, kernel, kernel), b.weight(12), group=group)
        assert check(b, y, "affine") == ["Conv"]
    b = Builder()  # a term does not reach the padding, a factor does
    y = b.node("Conv", scaled(b, "x", term=False), b.weight(4, 6, 3, 3), pads=[1, 1, 1, 1])
    assert check(b, y, "affine") == ["Conv"]
    b = Builder()
    y = b.node("Conv", scaled(b, "x"), b.weight(4, 6, 3, 3), auto_pad="SAME_UPPER")
    assert check(b, y, "affine") == ["BatchNormalization", "Conv"]
    b = Builder()  # read twice
    y = scaled(b, "x")
    y = b.node("Add", b.node("Conv", y, b.weight(6, 6, 1, 1)), y)
    assert check(b, y, "affine") == ["BatchNormalization", "Conv", "Add"]
    b = Builder()
    y = b.node("Div", b.batch_norm(b.node("Mul", "x", b.constant(3.0)), 6), b.weight(6, 1, 1))
    assert check(b, y, "affine") == ["BatchNormalization"]
    b = Builder()  # not of channels, or of more elements than there are
    y = b.node("Mul", b.node("Add", "x", b.weight(9, 1)), b.weight(2, 6, 9, 10))
    assert check(b, y, "affine") == ["Add", "Mul"]
