"""Operators that run as fallbacks, where the package onnx's reference implementation alone is wrong; onnxruntime says
what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx_models import Array, Builder, loaded, normal

import sepconv
from sepconv.errors import UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore::sepconv.onnx.program.FallbackWarning")

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
port = helper.make_tensor_value_info


def proto(
    op: str, inputs: list[Array | None], *, opset: int = 18, count: int = 1, is_open: bool = False, **attributes: Any
) -> tuple[Any, dict[str, Array]]:
    """A model of one node, and what it is fed."""
    feeds = {f"x{index}": x for index, x in enumerate(inputs) if x is not None}
    names = ["" if x is None else f"x{index}" for index, x in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{index}" for index in range(count)], name="N", **attributes)
    ports = [
        port(name, helper.np_dtype_to_tensor_dtype(x.dtype), [None] * x.ndim if is_open else x.shape)
        for name, x in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "g", ports, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model), feeds


def agrees(model: Any, feeds: dict[str, Array], rtol: float = 1e-4) -> None:
    data = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    expected = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    for got, want in zip(sepconv.InferenceSession(data).run(None, feeds), expected, strict=True):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-4)


def check(op: str, *inputs: Array | None, **options: Any) -> None:
    agrees(*proto(op, list(inputs), **options))


def integers(*values: Any) -> Array:
    return np.array(values, np.int64)


def looped(condition: bool) -> Any:
    """Three outputs of a Loop: what is carried, what is scanned, and a sum with a value from outside."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["a", "k"], ["b"]),
            helper.make_node("Identity", ["on"], ["on2"]),
            helper.make_node("Identity", ["b"], ["each"]),
        ],
        "body",
        [port("trip", INT64, []), port("on", BOOL, []), port("a", FLOAT, [3, 4])],
        [port("on2", BOOL, []), port("b", FLOAT, [3, 4]), port("each", FLOAT, [3, 4])],
    )
    node = helper.make_node("Loop", ["n", "c" if condition else "", "q"], ["y", "z"], body=body)
    ports = [port("n", INT64, []), port("q", FLOAT, [3, 4]), port("k", FLOAT, [4])]
    ports += [port("c", BOOL, [])] if condition else []
    graph = helper.make_graph([node], "g", ports, [port("y", FLOAT, [3, 4]), port("z", FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("trips", [0, 1, 3])
@pytest.mark.parametrize("condition", [None, True, False])
def test_loop(trips: int, condition: bool | None) -> None:
    feeds = {"n": np.array(trips, np.int64), "q": normal(3, 4), "k": normal(4)}
    if condition is not None:
        feeds["c"] = np.array(condition)
    agrees(looped(condition is not None), feeds)


@pytest.mark.parametrize(
    ("axis", "out_axis", "backwards", "out_backwards"), [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0), (-1, -1, 1, 1)]
)
def test_scan(axis: int, out_axis: int, backwards: int, out_backwards: int) -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["s2"]), helper.make_node("Mul", ["s2", "k"], ["o"])],
        "body",
        [port("s", FLOAT, [4]), port("e", FLOAT, [4])],
        [port("s2", FLOAT, [4]), port("o", FLOAT, [4])],
    )
    node = helper.make_node(
        "Scan", ["q", "x"], ["y", "z"], body=body, num_scan_inputs=1, scan_input_axes=[axis],
        scan_output_axes=[out_axis], scan_input_directions=[backwards], scan_output_directions=[out_backwards],
    )  # fmt: skip
    x = normal(3, 4) if axis == 0 else normal(4, 3)
    ports = [port("q", FLOAT, [4]), port("k", FLOAT, [4]), port("x", FLOAT, x.shape)]
    graph = helper.make_graph([node], "g", ports, [port("y", FLOAT, [4]), port("z", FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    agrees(model, {"q": normal(4), "k": normal(4, seed=2), "x": x})


GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def recurrent(op: str, directions: int, lengths: list[int] | None = None) -> list[Array | None]:
    steps, batch, size, hidden, gates = 4, 3, 2, 5, GATES[op]
    shapes = [(steps, batch, size), (directions, gates * hidden, size), (directions, gates * hidden, hidden)]
    inputs: list[Array | None] = [normal(*shape, seed=index) for index, shape in enumerate(shapes)]
    inputs += [normal(directions, 2 * gates * hidden), None if lengths is None else np.array(lengths, np.int32)]
    inputs.append(normal(directions, batch, hidden))
    return [*inputs, normal(directions, batch, hidden), normal(directions, 3 * hidden)] if op == "LSTM" else inputs


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, [4, 4, 4], [2, 4, 1]])
def test_recurrent(op: str, direction: str, lengths: list[int] | None) -> None:
    inputs = recurrent(op, 2 if direction == "bidirectional" else 1, lengths)
    check(op, *inputs, count=3 if op == "LSTM" else 2, hidden_size=5, direction=direction, opset=14)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("LSTM", {"clip": 0.3}, "LSTM with the attribute clip"),
        ("GRU", {"clip": 0.3}, "GRU with the attribute clip"),
        ("RNN", {"clip": 0.3}, "RNN with the attribute clip"),
        ("LSTM", {"input_forget": 1}, "LSTM with the attribute input_forget=1"),
        ("GRU", {"activations": ["Relu", "Tanh"]}, r"activations=\['Relu', 'Tanh'\], must be \['Sigmoid', 'Tanh'\]"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "LSTM with the attribute activations"),
        ("RNN", {"activations": ["Relu"]}, "RNN with the attribute activations"),
    ],
)
def test_what_recurrent_operators_are_refused_for_at_load(
    op: str, attributes: dict[str, Any], message: str, is_open: bool
) -> None:
    model, _ = proto(op, recurrent(op, 1), hidden_size=5, is_open=is_open, **attributes)
    with pytest.raises(UnsupportedError, match=f"node 'N'.*{message}"):
        loaded(model)


def test_the_usual_activations_by_name() -> None:
    check("GRU", *recurrent("GRU", 1), hidden_size=5, activations=["sigmoid", "Tanh"], count=2)


def test_a_refused_node_within_a_branch_and_a_function() -> None:
    clipped = helper.make_node("RNN", ["x", "w", "r"], ["y"], hidden_size=5, clip=0.3)
    b = Builder()
    branch = helper.make_graph([clipped], "branch", [], [port("y", FLOAT, None)])
    y = b.node("If", b.constant(True, np.bool_), then_branch=branch, else_branch=branch)
    ports = {"x": [4, 3, 2], "w": [1, 5, 2], "r": [1, 5, 5]}
    with pytest.raises(UnsupportedError, match=r"node 'If0'.*RNN with the attribute clip"):
        loaded(b.model(ports, [y]))
    b = Builder()
    model = b.model(ports, [b.node("Relu", "x")])
    model.graph.node[0].CopyFrom(helper.make_node("Own", ["x", "w", "r"], ["relu0_0"], domain="own", name="Own0"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "Own", ["x", "w", "r"], ["y"], [clipped], opsets))
    with pytest.raises(UnsupportedError, match=r"node 'Own0'.*RNN with the attribute clip"):
        loaded(model)


@pytest.mark.parametrize(("opset", "axis"), [(7, None), (7, 0), (11, 2), (11, -1), (13, None), (13, 0)])
@pytest.mark.parametrize(("op", "dtype"), [("Hardmax", "f4"), ("Softmax", "f8"), ("LogSoftmax", "f8")])
def test_rows(op: str, dtype: str, opset: int, axis: int | None) -> None:
    check(op, normal(2, 3, 4).astype(dtype), opset=opset, **({} if axis is None else {"axis": axis}))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [0, -1])
def test_lp_normalization(p: int, axis: int) -> None:
    x = normal(3, 4)
    x[1] = 0
    check("LpNormalization", x, p=p, axis=axis)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize(("opset", "mode"), [(16, "bilinear"), (16, "bicubic"), (20, "linear"), (20, "cubic")])
def test_grid_sample(opset: int, mode: str, padding: str, corners: int) -> None:
    grid = np.random.default_rng(0).uniform(-1.5, 1.5, (2, 3, 4, 2)).astype(np.float32)
    for image in (normal(2, 2, 5, 6), normal(2, 2, 5, 1)):
        check("GridSample", image, grid, opset=opset, mode=mode, padding_mode=padding, align_corners=corners)


@pytest.mark.parametrize("opset", [9, 13, 15])
def test_batch_norm_of_float64(opset: int) -> None:
    parts = [normal(3, seed=seed).astype(np.float64) for seed in range(3)]
    check("BatchNormalization", normal(2, 3, 4, 4).astype(np.float64), *parts, np.array([0.5, 1, 2]), opset=opset)


def test_group_norm_of_float64() -> None:
    scale, bias = normal(4).astype(np.float64), normal(4, seed=2).astype(np.float64)
    check("GroupNormalization", normal(2, 4, 3, 3).astype(np.float64), scale, bias, num_groups=2, opset=21)


def test_batch_norm_that_is_not_spatial() -> None:
    shape = (3, 4, 4)
    for is_open in (False, True):
        inputs: list[Array | None] = [normal(2, *shape), *[np.abs(normal(*shape)) for _ in range(4)]]
        model, _ = proto("BatchNormalization", inputs, opset=8, spatial=0, is_open=is_open)
        with pytest.raises(UnsupportedError, match=r"node 'N'.*spatial=0"):
            loaded(model)
    b = Builder()
    shape = (3, 8, 8)
    y = b.node("BatchNormalization", b.conv("x", 3, 3), *(b.weight(*shape) for _ in range(4)), spatial=0)
    with pytest.raises(UnsupportedError, match=r"'BatchNormalization1'.*spatial=0"):
        loaded(b.model({"x": [1, 3, 8, 8]}, [y], opset=8))


@pytest.mark.parametrize("op", ["ReduceLogSum", "ReduceLogSumExp"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_logarithms_of_integers(op: str, dtype: Any) -> None:
    for is_open in (False, True):
        model, _ = proto(op, [np.ones((2, 3), dtype)], is_open=is_open)
        with pytest.raises(UnsupportedError, match=f"node 'N': {op} of {np.dtype(dtype)} is not possible"):
            loaded(model)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("space", [{"pads": [1, 0, 1, 1]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("ceil", [0, 1])
def test_pooling_of_float16(op: str, space: dict[str, Any], stride: int, ceil: int) -> None:
    # Onnxruntime takes no float64 and little of float16 here, and our kernels float32 alone.
    x = (np.random.default_rng(0).integers(-8, 9, (1, 2, 7, 8)) / 2).astype(np.float32)
    attributes: dict[str, Any] = {**space, "kernel_shape": [3, 2], "strides": [stride] * 2, "ceil_mode": ceil}
    count = 2 if op == "MaxPool" else 1
    wide, feeds = proto(op, [x], opset=22, count=count, **attributes)
    half, _ = proto(op, [x.astype(np.float16)], opset=22, count=count, **attributes)
    for got, want in zip(loaded(half).run({"x0": x.astype(np.float16)}), loaded(wide).run(feeds), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("order", [0, 1])
def test_max_pool_of_float64(order: int) -> None:
    for space in ({"pads": [1, 0, 1, 1]}, {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, {"dilations": [2, 2]}):
        attributes: dict[str, Any] = {**space, "kernel_shape": [3, 2], "storage_order": order}
        check("MaxPool", normal(2, 2, 7, 8).astype(np.float64), count=2, **attributes)


@pytest.mark.parametrize("size", [1, 3, 5, 99])
def test_lrn_of_float16(size: int) -> None:
    x = normal(2, 6, 3, 4)
    (got,) = loaded(proto("LRN", [x.astype(np.float16)], size=size, alpha=0.5)[0]).run({"x0": x.astype(np.float16)})
    (want,) = loaded(proto("LRN", [x], size=size, alpha=0.5)[0]).run({"x0": x})
    np.testing.assert_allclose(got, want, rtol=5e-3, atol=5e-3)


def test_absolute_values_of_bytes() -> None:
    check("Abs", np.array([0, 1, 127, 128, 255], np.uint8))


@pytest.mark.parametrize("opset", [10, 16])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align(opset: int, mode: str) -> None:
    boxes = np.array([[0, 0, 5, 4], [1.5, 2, 7, 8], [3, 1, 4, 9]], np.float32)
    inputs = (normal(2, 2, 8, 9), boxes, integers(0, 1, 1))
    check("RoiAlign", *inputs, opset=opset, mode=mode, output_height=3, output_width=2, sampling_ratio=2)


@pytest.mark.parametrize(
    ("shape", "places", "axis"),
    [((3, 4), (2, 4), 0), ((3, 4), (3, 2), -1), ((3, 4), (2, 2), 1), ((70,), (5,), 0), ((2, 70, 3), (1, 4, 2), 1)],
)
def test_gather_elements(shape: tuple[int, ...], places: tuple[int, ...], axis: int) -> None:
    size = shape[axis]
    check("GatherElements", normal(*shape), np.random.default_rng(0).integers(-size, size, places), axis=axis)
    model, feeds = proto("GatherElements", [normal(3, 4), integers([0, 3])])
    with pytest.raises(ValueError, match=r"node 'N'.*not within the axis of 3"):
        loaded(model).run(feeds)


def test_numbers_as_vectors_of_one() -> None:
    check("CumSum", normal(3, 4), integers(1), reverse=1)
    check("OneHot", integers(1, 4, -2), integers(5), np.array([2, 7], np.float32), axis=0)


@pytest.mark.parametrize(
    ("most", "overlap", "least"),
    [(None, 0.3, None), ([0], 0.3, None), ([4], None, None), (4, 0.3, 0.4), ([9], 0.5, 0.2)],
)
def test_non_max_suppression(most: Any, overlap: float | None, least: float | None) -> None:
    random = np.random.default_rng(0)
    limits = [None if limit is None else np.array(limit, np.float32) for limit in (overlap, least)]
    count = None if most is None else np.array(most, np.int64)
    boxes, scores = random.random((2, 12, 4), np.float32), random.random((2, 3, 12), np.float32)
    for center in (0, 1):
        check("NonMaxSuppression", boxes, scores, count, *limits, center_point_box=center)


@pytest.mark.parametrize("ignored", [-1, 2, None])
def test_negative_log_likelihood(ignored: int | None) -> None:
    target = integers(1, 4, 0 if ignored is None else ignored)
    check("NegativeLogLikelihoodLoss", normal(3, 5), target, **({} if ignored is None else {"ignore_index": ignored}))


@pytest.mark.parametrize("in_order", [0, 1])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_unique(in_order: int, axis: int | None) -> None:
    x = np.array([[3, 0, 0], [3, 0, 0], [2, 7, 7]], np.float32)
    check("Unique", x, sorted=in_order, count=4, **({} if axis is None else {"axis": axis}))


@pytest.mark.parametrize("opset", [10, 13, 19, 21])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_dequantize(opset: int, dtype: Any) -> None:
    x, zero = np.arange(12).astype(dtype).reshape(3, 4), np.array(0 if dtype == np.int32 else 3, dtype)
    check("DequantizeLinear", x, np.array(0.5, np.float32), zero, opset=opset)
    check("DequantizeLinear", x, np.array(0.5, np.float32), opset=opset)
    for axis in (0, -1) if opset > 10 else ():
        size = x.shape[axis]
        check("DequantizeLinear", x, np.abs(normal(size)), np.full(size, zero), axis=axis, opset=opset)


@pytest.mark.parametrize(
    ("groups", "space"),
    [
        (1, {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
        (2, {"strides": [2, 1], "pads": [1, 0, 0, 1], "output_padding": [1, 0]}),
        (4, {"dilations": [2, 3], "group": 4}),
        (2, {"strides": [2, 2], "output_shape": [12, 11]}),
    ],
)
@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_transposed_convolution_of_other_types(dtype: str, groups: int, space: dict[str, Any]) -> None:
    arrays = [normal(2, 4, 5, 4), normal(4, 3, 3, 2), normal(3 * groups)]
    ours, feeds = proto("ConvTranspose", [x.astype(dtype) for x in arrays], **{**space, "group": groups})
    real, real_feeds = proto("ConvTranspose", list(arrays), **{**space, "group": groups})
    (got,), want = loaded(ours).run(feeds), loaded(real)(*real_feeds.values())  # our kernels, for float32
    assert got.dtype == np.dtype(dtype)
    near = 2e-2 if dtype == "f2" else 1e-5
    np.testing.assert_allclose(got, want, rtol=near, atol=near)


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_means_and_norms_of_other_types(dtype: str) -> None:
    x = normal(2, 3, 4, 5).astype(dtype)
    near = 1e-2 if dtype == "f2" else 1e-9

    def gives(want: Array, op: str, *inputs: Array, **options: Any) -> None:
        (got,) = loaded((made := proto(op, list(inputs), **options))[0]).run(made[1])
        assert got.dtype == x.dtype
        np.testing.assert_allclose(got, want, rtol=near, atol=near)

    gives((x[0, 0, 0] + x) / 2, "Mean", x[0, 0, 0], x)
    gives(np.sqrt((x.astype("f8") ** 2).sum((2, 3), keepdims=True)), "GlobalLpPool", x)
    gives(x[:0, :, :1, :1], "GlobalAveragePool", x[:0])
    gives(x[0, 0, 0, 0] / (1 + abs(x[0, 0, 0, 0])), "Softsign", x[0, 0, 0, 0].reshape(()))
    gives(x.repeat(2, 3), "Resize", x, np.array([1, 1, 1, 2], np.float32), opset=10, mode="nearest")


@pytest.mark.parametrize(("opset", "dtype"), [(7, np.float32), (9, np.float32), (10, np.bool_), (13, np.bool_)])
def test_the_mask_of_dropout(opset: int, dtype: Any) -> None:
    model, feeds = proto("Dropout", [normal(3)], opset=opset, count=2)
    mask = loaded(model).run(feeds)[1]
    assert mask.dtype == dtype
    assert mask.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("op", "sizes", "attributes"),
    [
        ("LayerNormalization", (30, 30), {"count": 3}),
        ("InstanceNormalization", (6, 6), {}),
        ("GroupNormalization", (2, 2), {"num_groups": 2}),
        ("RMSNormalization", (30,), {"opset": 23}),
        ("LpNormalization", (), {"axis": -1}),
        ("ReduceL2", (), {"axes": [-1], "opset": 13}),
        ("AveragePool", (), {"kernel_shape": [20, 20], "opset": 22}),
        ("LpPool", (), {"kernel_shape": [3, 3], "opset": 22}),
    ],
)
def test_squares_and_sums_beyond_float16(op: str, sizes: tuple[int, ...], attributes: dict[str, Any]) -> None:
    x = normal(2, 6, 20, 30) * 40 + 300
    inputs: list[Array | None] = [array.astype(np.float16) for array in (x, *map(normal, sizes))]
    agrees(*proto(op, inputs, **attributes), rtol=2e-3)


def test_layer_normalization_of_float64_gives_float32_statistics() -> None:
    check("LayerNormalization", normal(3, 5).astype(np.float64), normal(5).astype(np.float64), count=3)
