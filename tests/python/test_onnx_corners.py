"""Corners of operators where the package onnx's shape inference or reference implementation is wrong, or has nothing.

What is expected is what onnxruntime 1.32 gives too, said in a few lines of NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper
from onnx_models import Array, Builder, assert_agrees, loaded, normal

from sepconv.onnx.model import OnnxModel
from sepconv.onnx.program import FallbackWarning

WAYS: tuple[dict[str, Any], ...] = ({}, {"passes": ()}, {"plans": False})


def built(b: Builder, outputs: list[str], *shapes: tuple[Any, ...], opset: int = 18) -> list[OnnxModel]:
    """The model of these nodes, loaded with all passes, with none, and without plans."""
    ports = {name: list(shape) for name, shape in zip(("x", "z"), shapes, strict=False)}
    return [loaded(b.model(ports, outputs, opset=opset), **way) for way in WAYS]


def all_give(models: list[OnnxModel], want: Array, *inputs: Array) -> None:
    for model in models:
        got = model(*inputs)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        assert model.native


def test_batch_norm_behind_a_gemm_with_beta_and_no_bias() -> None:
    # The bias that the pass made was multiplied by beta.
    b = Builder()
    assert_agrees(
        b.model({"x": [2, 6]}, [b.batch_norm(b.node("Gemm", "x", b.weight(6, 4), beta=2.0), 4)]), normal(2, 6)
    )


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
def test_windows_of_ceil_mode_behind_the_image_before_a_convolution(operator: str) -> None:
    # The package infers a fourth window, which would begin in the padding after the image; the rest of the network's
    # shapes, and the plan's, hung on that.
    b = Builder()
    x = b.node(operator, "x", kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1)
    models = built(b, [b.node("Relu", b.conv(x, 2, 5)), x], (1, 2, 9, 9))
    image = normal(1, 2, 9, 9)
    tiles = [image[:, :, i : i + 2, j : j + 2].reshape(1, 2, 4) for i in (0, 3, 6) for j in (0, 3, 6)]
    reduced = [tile.max(2) if operator == "MaxPool" else tile.mean(2) for tile in tiles]
    for model in models:
        convolved, pooled = model(image)
        assert convolved.shape == (1, 5, 3, 3)
        np.testing.assert_allclose(pooled, np.stack(reduced, 2).reshape(1, 2, 3, 3), rtol=1e-5, atol=1e-6)


def test_output_padding_beside_auto_pad_before_a_convolution() -> None:
    b = Builder()
    weight = b.weight(2, 3, 4, 4)
    x = b.node("ConvTranspose", "x", weight, auto_pad="SAME_UPPER", strides=[3, 2], output_padding=[1, 0])
    for model in built(b, [b.conv(x, 3, 5)], (1, 2, 4, 4)):
        assert model(normal(1, 2, 4, 4)).shape == (1, 5, 12, 8)


def test_a_prelu_that_stretches_its_input_before_a_convolution() -> None:
    b = Builder()
    x = b.node("PRelu", "x", "z")
    models = built(b, [b.conv(x, 3, 4), x], (2, 3, 1, 5), (2, 3, 6, 5))
    x_value, slope = normal(2, 3, 1, 5), normal(2, 3, 6, 5, seed=2)
    for model in models:
        convolved, activated = model(x_value, slope)
        assert convolved.shape == (2, 4, 6, 5)
        np.testing.assert_allclose(activated, np.where(x_value < 0, slope * x_value, x_value), rtol=1e-6)


def test_a_plan_whose_input_is_not_of_the_shape_that_the_file_says() -> None:
    # The branch gives 4 × 4, the file's value_info says 6 × 6: the plan gives way to single operators.
    b = Builder()
    branch = helper.make_graph(
        [helper.make_node("AveragePool", ["x"], ["inner"], kernel_shape=[2, 2], strides=[2, 2])],
        "branch", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )  # fmt: skip
    x = b.node("If", b.constant(True, np.bool_), then_branch=branch, else_branch=branch)
    y = b.conv(x, 2, 5)
    proto = b.model({"x": [1, 2, 8, 8]}, [y])
    proto.graph.value_info.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 2, 6, 6]))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 5, 6, 6]))
    with pytest.warns(UserWarning, match="reference implementation"):
        model = loaded(proto, passes=())
    assert model(normal(1, 2, 8, 8)).shape == (1, 5, 4, 4)


def test_a_pooling_with_no_window_and_with_the_one_that_ceil_mode_adds() -> None:
    b = Builder()
    image = normal(1, 2, 2, 4)
    x = b.node("MaxPool", "x", kernel_shape=[1, 2], dilations=[1, 4], strides=[1, 1])
    all_give(built(b, [x], (1, 2, 2, 4)), np.empty((1, 2, 2, 0), np.float32), image)
    b = Builder()
    x = b.node("MaxPool", "x", kernel_shape=[1, 5], strides=[1, 3], ceil_mode=1)
    all_give(built(b, [x], (1, 2, 2, 4)), image.max(3, keepdims=True), image)
    b = Builder()
    x = b.node("MaxPool", "x", kernel_shape=[1, 9], strides=[1, 3], ceil_mode=1)
    with pytest.raises(ValueError, match="padded size 4 is below the window's 9"):
        built(b, [x], (1, 2, 2, 4))[0](image)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool(p: int) -> None:
    image = normal(2, 3, 7, 9)
    b = Builder()
    space: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [1, 2]}
    padded = np.pad(np.abs(image.astype(np.float64)) ** p, ((0, 0), (0, 0), (1, 1), (0, 1)))
    columns = padded[..., :-2] + padded[..., 2:]
    want = (columns[:, :, 0:-2:2] + columns[:, :, 1:-1:2] + columns[:, :, 2::2]) ** (1 / p)
    all_give(built(b, [b.node("LpPool", "x", p=p, **space)], image.shape), want.astype(np.float32), image)
    b = Builder()
    want = (np.abs(image.astype(np.float64)) ** p).sum((2, 3), keepdims=True) ** (1 / p)
    all_give(built(b, [b.node("GlobalLpPool", "x", p=p)], image.shape), want.astype(np.float32), image)


def test_lp_pool_of_a_window_in_the_padding_alone_and_of_ceil_mode() -> None:
    image = normal(1, 1, 3, 3)
    b = Builder()
    x = b.node("LpPool", "x", kernel_shape=[1, 1], strides=[3, 3], pads=[1, 1, 1, 1], p=2)
    want = np.pad(np.abs(image), ((0, 0), (0, 0), (1, 1), (1, 1)))[:, :, ::3, ::3]
    all_give(built(b, [x], image.shape), want, image)
    b = Builder()
    x = b.node("LpPool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, p=1)
    size = np.pad(np.abs(image), ((0, 0), (0, 0), (0, 1), (0, 1)))
    want = size.reshape(1, 1, 2, 2, 2, 2).sum((3, 5))
    all_give(built(b, [x], image.shape), want, image)


@pytest.mark.parametrize("shape", [(2, 3, 6), (2, 3, 4, 5), (1, 2, 3, 4, 5)])
def test_indices_of_a_max_pool_in_column_order(shape: tuple[int, ...]) -> None:
    rank = len(shape) - 2
    results = []
    for order in (0, 1):
        b = Builder()
        outputs = b.node("MaxPool", "x", count=2, kernel_shape=[2] * rank, storage_order=order)
        y, places = built(b, outputs, shape)[0](normal(*shape))
        results.append(places)
    image = normal(*shape)
    rows, columns = results
    np.testing.assert_array_equal(image.reshape(-1)[rows], y)
    turned = image.transpose(0, 1, *range(rank + 1, 1, -1))  # column order is row order of the axes turned around
    np.testing.assert_array_equal(turned.reshape(-1)[columns], y)


def test_scales_are_multiplied_in_float32() -> None:
    # 10 · 0.7 is 7 in float32 and 6.9999998 with the nearest float to 0.7 in float64.
    b = Builder()
    x = b.node("Resize", "x", "", b.constant([1, 1, 0.7, 0.7]), mode="linear")
    models = built(b, [b.conv(x, 1, 2)], (1, 1, 10, 20))
    assert [model(normal(1, 1, 10, 20)).shape for model in models] == [(1, 2, 7, 14)] * 3


def test_resized_to_one_pixel_by_pytorch_half_pixel() -> None:
    # The one pixel that is left is the first, whatever the scale.
    b = Builder()
    scales, mode = b.constant([1, 1, 1, 0.4]), "pytorch_half_pixel"
    x = b.node("Resize", "x", "", scales, mode="cubic", coordinate_transformation_mode=mode)
    image = normal(1, 2, 1, 3)
    all_give(built(b, [x], image.shape), image[..., :1], image)


def test_a_tie_of_half_pixel_symmetric() -> None:
    # The sixth place is 3 exactly.
    b = Builder()
    mode = "half_pixel_symmetric"
    scales = b.constant([1, 1, 1, 1.7])
    x = b.node("Resize", "x", "", scales, mode="nearest", nearest_mode="ceil", coordinate_transformation_mode=mode)
    image = np.arange(7, dtype=np.float32).reshape(1, 1, 1, 7)
    all_give(built(b, [x], image.shape), image[..., [1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6]], image)


@pytest.mark.parametrize(
    ("operator", "want"),
    [("ReduceSum", [-1, 2]), ("ReduceSumSquare", [1, 4]), ("ReduceL2", [1, 2]), ("ReduceLogSumExp", [-1, 2])],
)
def test_a_reduction_over_no_axes(operator: str, want: list[float]) -> None:
    b = Builder()
    x = np.array([-1, 2], np.float32)
    all_give(built(b, [b.node(operator, "x", noop_with_empty_axes=1)], (2,)), np.array(want, np.float32), x)


def test_the_greatest_of_a_number() -> None:
    b = Builder()
    for model in built(b, [b.node("ArgMax", "x", axis=0, keepdims=0)], ()):
        assert model(np.array(3, np.float32)) == 0


def test_a_fallback_that_fails_names_its_node() -> None:
    b = Builder()
    model = b.node("MaxUnpool", "x", b.constant([[[[99]]]], np.int64), kernel_shape=[2, 2])
    proto = b.model({"x": [1, 1, 1, 1]}, [model], opset=11)
    with pytest.warns(UserWarning, match="MaxUnpool"):
        loadable = loaded(proto)
    with pytest.raises(ValueError, match=r"node 'MaxUnpool0' \(MaxUnpool\): the package onnx's reference"):
        loadable(normal(1, 1, 1, 1))


def test_tile_of_many_axes() -> None:
    b = Builder()
    x = normal(2, 1, 3, 1, 2, 2)
    all_give(built(b, [b.node("Tile", "x", b.integers(1, 2, 1, 3, 1, 2))], x.shape), np.tile(x, (1, 2, 1, 3, 1, 2)), x)


def expanded(sizes: list[int]) -> Array:
    b = Builder()
    ones = b.node("Cast", b.node("ReduceMax", "x"), to=TensorProto.INT64)  # not known before it runs
    sizes_of = b.node("Mul", ones, b.integers(*sizes))
    return np.asarray(loaded(b.model({"x": [2]}, [b.node("Expand", "x", sizes_of)]))(np.ones(2, np.float32)))


def test_expanded_to_more_axes_than_the_core_has() -> None:
    with pytest.warns(FallbackWarning, match="Expand"):
        assert expanded([1] * 12).shape == (*[1] * 11, 2)


def test_outputs_of_more_axes_than_the_core_has() -> None:
    b = Builder()
    many = b.node("Reshape", "x", b.integers(*[1] * 11, 4))
    first, second = loaded(b.model({"x": [4]}, [many, b.node("ConstantOfShape", b.integers(*[1] * 12))]))(normal(4))
    assert first.shape == (*[1] * 11, 4)
    assert second.shape == (1,) * 12
    second[...] = 1  # of its own


@pytest.mark.parametrize("sizes", [[1] * 65, [2**30] * 40], ids=["65 axes", "huge"])
def test_expanded_to_what_no_array_can_be(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"\(Expand\)"):
        expanded(sizes)


def test_a_batch_of_nothing_through_products() -> None:
    b = Builder()
    flat = b.node("Flatten", b.conv("x", 3, 4))
    product = b.node("Gemm", flat, b.weight(64, 5), b.weight(5))
    rows = b.node("MatMul", b.node("Unsqueeze", product, b.integers(1)), b.weight(5, 2))
    normalised = b.node("LayerNormalization", rows, b.weight(2))
    all_give(
        built(b, [normalised], ("n", 3, 4, 4)), np.empty((0, 1, 2), np.float32), np.empty((0, 3, 4, 4), np.float32)
    )


def test_a_resize_of_nothing() -> None:
    b = Builder()
    x = b.node("Resize", "x", "", "", b.integers(1, 2, 4, 4))
    for model in built(b, [x], (1, 2, "n", 4)):
        with pytest.raises(ValueError, match="nothing cannot become"):
            model(np.empty((1, 2, 0, 4), np.float32))


def test_an_input_that_goes_out_with_another_shape() -> None:
    b = Builder()
    shape = b.node("Shape", "x")
    proto = b.model({"x": [1, 4, 6, 6]}, [b.node("Expand", b.node("ReduceMean", "x", b.integers(1)), shape), "x"])
    proto.graph.output[1].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 6]))
    mean, x = loaded(proto)(np.ones((1, 4, 6, 6), np.float32))
    assert mean.shape == x.shape == (1, 4, 6, 6)


def test_a_pooling_with_a_window_of_padding_alone_in_the_middle_of_a_network() -> None:
    b = Builder()
    y = b.node("MaxPool", b.conv("x", 4, 3), kernel_shape=[3, 3], pads=[1, 1, 3, 1], strides=[2, 2])
    for model in built(b, [b.node("Relu", y)], (1, 4, 6, 6)):
        assert model(normal(1, 4, 6, 6)).shape == (1, 3, 4, 3)


def test_a_split_into_more_outputs_than_sizes() -> None:
    b = Builder()
    first, _, third = b.node("Split", "x", b.integers(2, 2), count=3, axis=1)
    model = loaded(b.model({"x": [1, 4, 6, 6]}, [first, third]))
    with pytest.raises(ValueError, match=r"gives 2 results, must give 3"):
        model(normal(1, 4, 6, 6))


def test_a_function_without_inputs() -> None:
    b = Builder()
    proto = b.model({"x": [1, 4]}, [b.node("Relu", b.node("Exp", "x"))])
    proto.opset_import.add(domain="own", version=1)
    proto.functions.add(name="Exp", domain="own")
    proto.graph.node[0].domain = "own"
    proto.graph.node[0].ClearField("input")
    with pytest.warns(FallbackWarning), pytest.raises(ValueError, match=r"node 'Exp0'"):
        loaded(proto)(normal(1, 4))


def test_a_stride_beyond_a_plans_sizes() -> None:
    b = Builder()
    y = b.node("Conv", "x", b.weight(3, 4, 3, 3), strides=[2**31 - 1, 1], pads=[1, 1, 1, 1])
    first, *_ = models = built(b, [b.node("Relu", y)], (1, 4, 6, 6))
    want = models[-1](normal(1, 4, 6, 6))
    assert want.shape == (1, 3, 1, 6)
    all_give(models, want, normal(1, 4, 6, 6))
    assert "stride is 2147483647" in first.explain()
