"""The TFLite reader: every operator's translation, quantisation, and what it says of files that it cannot read."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tflite", reason="writing the files needs the packages of the extra [tflite]")
pytest.importorskip("flatbuffers", reason="writing the files needs the packages of the extra [tflite]")

import tflite
from tflite_builder import CONV, DEPTHWISE, normal, shared_weights, small_network, with_operator

import sepconv.io
from sepconv import graph
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.export.tflite_builder import TfliteBuilder
from sepconv.io import _tflite_schema as schema
from sepconv.io import read_tflite
from sepconv.io.arrays import LazyFloat32

RNG = np.random.default_rng(0)


def test_every_operator_becomes_its_layer() -> None:
    layers = read_tflite(small_network())
    assert [type(layer).__name__ for layer in layers] == [
        "Input", "Pad", "Conv2d", "DepthwiseConv2d", "Activation", "Activation", "Add", "AveragePool2d", "MaxPool2d",
        "GlobalAveragePool", "Reshape", "Reshape", "FullyConnected", "Activation", "Softmax",
    ]  # fmt: skip
    shapes = list(graph.infer_shapes(layers).values())
    assert shapes == [
        (9, 8, 3), (10, 11, 3), (5, 6, 4), (5, 6, 8), (5, 6, 8), (5, 6, 8), (5, 6, 8), (3, 3, 8), (1, 1, 8), (1, 1, 8),
        (1, 1, 8), (1, 4, 2), (1, 1, 5), (1, 1, 5), (1, 1, 5),
    ]  # fmt: skip
    source, pad, conv, depthwise, relu, relu6, add, average, *_, softmax = layers
    assert isinstance(source, graph.Input)
    assert (source.dtype, source.scale, source.zero_point) == ("uint8", 0.5, 3)
    assert isinstance(pad, graph.Pad)
    assert (pad.padding, pad.inputs) == (((1, 0), (2, 1)), ("input",))
    assert isinstance(conv, graph.Conv2d)
    assert (conv.stride, conv.padding, conv.activation) == ((2, 2), ((0, 1), (1, 1)), "relu6")
    assert isinstance(depthwise, graph.DepthwiseConv2d)
    assert (depthwise.padding, depthwise.activation) == (((1, 1), (1, 1)), "none")
    assert isinstance(relu, graph.Activation)
    assert isinstance(relu6, graph.Activation)
    assert (relu.activation, relu6.activation) == ("relu", "relu6")
    assert isinstance(add, graph.Add)
    assert (add.inputs, add.activation) == ((depthwise.name, relu6.name), "relu")
    assert isinstance(average, graph.AveragePool2d)
    assert (average.kernel, average.stride, average.padding) == ((2, 3), (2, 2), ((0, 1), (0, 1)))
    assert not average.include_padding
    assert isinstance(softmax, graph.Softmax)
    assert softmax.beta == 2.0


def conv_network(
    weight: Any, shape: tuple[int, ...] = (1, 4, 4, 2), output: tuple[int, ...] = (1, 4, 4, 3), **options: Any
) -> bytes:
    b = TfliteBuilder()
    x = b.input(shape)
    index = weight(b) if callable(weight) else b.constant("w", weight)
    return b.finish(b.operator("CONV_2D", [x, index], output, **{**CONV, **options}))


def weight_of(data: bytes) -> Any:
    layer = read_tflite(data)[1]
    assert isinstance(layer, (graph.Conv2d, graph.DepthwiseConv2d, graph.FullyConnected))
    return layer.weight


def test_float_weights_are_views_in_our_layout() -> None:
    stored = normal(3, 1, 2, 2)
    weight = weight_of(conv_network(stored))
    assert isinstance(weight, np.ndarray)
    assert not weight.flags.owndata
    assert not weight.flags.writeable
    np.testing.assert_array_equal(weight, stored.transpose(1, 2, 3, 0))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_quantised_weights_are_computed_on_demand(dtype: str, per_channel: bool) -> None:
    stored = RNG.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (3, 1, 2, 2), dtype)
    scale = np.array([0.5, 0.25, 3.0] if per_channel else [0.3], np.float32)
    zero_point = [1, 2, 3] if per_channel else [5]
    weight = weight_of(conv_network(lambda b: b.constant("w", stored, scale=scale.tolist(), zero_point=zero_point)))
    assert isinstance(weight, LazyFloat32)
    assert (weight.shape, weight.dtype.name, weight.ndim, weight.size) == ((1, 2, 2, 3), "float32", 4, 12)
    expected = (stored.transpose(1, 2, 3, 0).astype(np.float32) - np.array(zero_point, np.float32)) * scale
    np.testing.assert_array_equal(np.asarray(weight), expected)
    assert np.asarray(weight).flags.c_contiguous
    with pytest.raises(ValueError, match="computed on demand"):
        weight.__array__(copy=False)


def test_depthwise_weights_per_channel() -> None:
    stored = RNG.integers(-99, 99, (1, 3, 3, 6), np.int8)
    scale = np.arange(1, 7, dtype=np.float32)
    b = TfliteBuilder()
    x = b.input((1, 4, 4, 2))
    weight = b.constant("w", stored, scale=scale.tolist(), zero_point=[0] * 6, axis=3)
    data = b.finish(b.operator("DEPTHWISE_CONV_2D", [x, weight], (1, 4, 4, 6), **DEPTHWISE, DepthMultiplier=3))
    expected = (stored.astype(np.float32) * scale).reshape(3, 3, 2, 3)
    np.testing.assert_array_equal(np.asarray(weight_of(data)), expected)


def test_int32_bias_keeps_its_digits() -> None:
    """A bias beyond 2^24 is scaled in float64."""
    b = TfliteBuilder()
    x, weight = b.input((1, 1, 1, 1)), b.constant("w", normal(1, 1, 1, 1))
    bias = b.constant("b", np.array([2**30 + 1], np.int32), scale=2.0**-30, zero_point=0)
    layer = read_tflite(b.finish(b.operator("CONV_2D", [x, weight, bias], (1, 1, 1, 1), **CONV)))[1]
    assert isinstance(layer, graph.Conv2d)
    assert np.asarray(layer.bias)[0] == np.float32((2**30 + 1) * 2.0**-30)


def test_half_precision_weights() -> None:
    half = normal(3, 1, 1, 2).astype(np.float16)
    for dequantised in (False, True):

        def weight(b: TfliteBuilder, dequantised: bool = dequantised) -> int:
            constant = b.constant("half", half)
            return b.operator("DEQUANTIZE", [constant], (3, 1, 1, 2)) if dequantised else constant

        np.testing.assert_array_equal(
            np.asarray(weight_of(conv_network(weight))), half.transpose(1, 2, 3, 0).astype(np.float32)
        )


def test_names_are_short_and_unique() -> None:
    b = TfliteBuilder()
    x = b.input((1, 4))
    for name in ("a;b/c", "a", "", "input"):
        x = b.operator("RELU", [x], b.tensor(name, (1, 4)))
    assert [layer.name for layer in read_tflite(b.finish(x))] == ["input", "a", "a_1", "tensor_3", "input_1"]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "extent"),
    [(5, 3, 1, (1, 1), 5), (6, 3, 2, (0, 1), 3), (7, 3, 2, (1, 1), 4),
     (6, 5, 2, (1, 2), 3), (1, 3, 2, (1, 1), 1), (8, 1, 3, (0, 0), 3)],
)  # fmt: skip
def test_same_padding_puts_the_odd_pixel_after(
    size: int, kernel: int, stride: int, padding: graph.Pair, extent: int
) -> None:
    data = conv_network(
        normal(3, kernel, 1, 2), (1, size, 4, 2), (1, extent, 4, 3), StrideH=stride, options="Conv2DOptions"
    )
    layer = read_tflite(data)[1]
    assert isinstance(layer, graph.Conv2d)
    assert (layer.stride, layer.padding) == ((stride, 1), (padding, (0, 0)))


def test_dilation() -> None:
    layer = read_tflite(conv_network(normal(3, 3, 3, 2), output=(1, 4, 2, 3), Padding=0, DilationHFactor=2, StrideW=2))[
        1
    ]
    assert isinstance(layer, graph.Conv2d)
    assert (layer.dilation, layer.padding) == ((2, 1), ((2, 2), (0, 1)))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("target", ["input", "option", "output"])
def test_reshape_takes_its_shape_from_where_it_stands(batch: int, target: str) -> None:
    b = TfliteBuilder()
    x = b.input((batch, 2, 3, 4))
    inputs = [x, b.constant("s", np.array([batch, -1], np.int32))] if target == "input" else [x]
    options: dict[str, Any] = {"options": "ReshapeOptions", "NewShape": [-1, 24]} if target == "option" else {}
    x = b.operator("RESHAPE", inputs, (batch, 24), **options)
    layers = read_tflite(b.finish(x))
    assert isinstance(layers[1], graph.Reshape)
    assert layers[1].shape == (1, 1, 24)


def test_a_batch_of_one_may_vanish() -> None:
    b = TfliteBuilder()
    x = b.operator("SQUEEZE", [b.input((1, 1, 1, 7))], (7,), "SqueezeOptions")
    layers = read_tflite(b.finish(b.operator("SOFTMAX", [x], (7,), "SoftmaxOptions", Beta=1.0)))
    assert graph.infer_shapes(layers)[layers[-1].name] == (1, 1, 7)


def test_unsupported_operators_are_named_with_their_index() -> None:
    b = TfliteBuilder()
    x = b.operator("RELU", [b.input((1, 4))], (1, 4))
    with pytest.raises(UnsupportedError, match=r"operator 1, RELU_N1_TO_1: .* supported are ADD, "):
        read_tflite(b.finish(b.operator("RELU_N1_TO_1", [x], (1, 4))))
    for kind in ("TANH", "STABLEHLO_CBRT", "CUSTOM"):
        with pytest.raises(UnsupportedError, match=f"operator 0, {kind}"):
            read_tflite(with_operator(kind))


def test_schema_tables_agree_with_the_generated_ones() -> None:
    def codes(enumeration: Any) -> dict[str, int]:
        return {name: code for name, code in vars(enumeration).items() if isinstance(code, int)}

    for names, enumeration in (
        (schema.OPERATORS, tflite.BuiltinOperator),
        (schema.TENSOR_TYPES, tflite.TensorType),
        (schema.FUSED_ACTIVATIONS, tflite.ActivationFunctionType),
        (schema.PADDINGS, tflite.Padding),
    ):
        for name, code in codes(enumeration).items():
            assert code >= len(names) or names[code] == name  # the package may know newer ones


def hostile_add(constant: bool) -> bytes:
    b = TfliteBuilder()
    x = b.input((1, 4, 4, 2))
    return b.finish(
        b.operator("ADD", [x, b.constant("c", normal(1, 4, 4, 2)) if constant else b.tensor("u", (1, 4))], (1, 4, 4, 2))
    )


def two_writers() -> bytes:
    b = TfliteBuilder()
    x = b.input((1, 4))
    y = b.operator("RELU", [x], (1, 4))
    return b.finish(b.operator("RELU6", [x], y))


def dangling() -> bytes:
    b = TfliteBuilder()
    b.input((1, 4))
    y, z = b.tensor("y", (1, 4)), b.tensor("z", (1, 4))
    b.operator("RELU", [y], z)
    return b.finish(b.operator("RELU", [z], y))


def many_operators() -> bytes:
    b = TfliteBuilder()
    x = b.input((1, 4))
    for _ in range(10_001):
        b.operator("RELU", [x], x)
    return b.finish(x)


def quantised(**parameters: Any) -> bytes:
    values = RNG.integers(-9, 9, (3, 1, 1, 2), np.int8)
    return conv_network(lambda b: b.constant("w", values, **parameters))


def dynamic_weights(b: TfliteBuilder) -> int:
    return b.tensor("w", (3, 1, 1, 2))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (lambda: hostile_add(constant=True), UnsupportedError, "operator 0, ADD: the constant operand has the shape"),
        (lambda: hostile_add(constant=False), ModelFormatError, "is read before anything writes it"),
        (two_writers, ModelFormatError, "is written to twice"),
        (dangling, ModelFormatError, "is read before anything writes it"),
        (many_operators, UnsupportedError, "10001 operators"),
        (lambda: shared_weights(2000), ModelFormatError, "too many for a file of this size"),
        (lambda: TfliteBuilder(version=2).finish(), UnsupportedError, "schema version 2"),
        (lambda: TfliteBuilder(subgraphs=2).finish(), UnsupportedError, "2 subgraphs"),
        (lambda: TfliteBuilder().finish(), ModelFormatError, "no input"),
        (lambda: conv_network(normal(3, 1, 1, 2), output=(1, 4, 5, 3)), ModelFormatError, "declared with the shape"),
        (lambda: conv_network(normal(3, 1, 1, 1)), UnsupportedError, "grouped convolutions"),
        (lambda: conv_network(normal(3, 1, 1, 3)), ModelFormatError, "3 input channels"),
        (lambda: conv_network(normal(3, 1, 1, 2), StrideW=0), ModelFormatError, r"the stride is \(1, 0\)"),
        (lambda: conv_network(normal(3, 1, 1, 2), StrideW=1 << 21), UnsupportedError, "at most 1048576"),
        (lambda: conv_network(normal(3, 3, 3, 2), DilationWFactor=9999), UnsupportedError, "the kernel spans 19999"),
        (lambda: conv_network(normal(3, 5, 5, 2), Padding=1), ModelFormatError, "the kernel spans 5"),
        (lambda: conv_network(normal(3, 1, 1, 2), FusedActivationFunction=2), UnsupportedError, "is RELU_N1_TO_1"),
        (lambda: conv_network(normal(3, 1, 1, 2), FusedActivationFunction=4), UnsupportedError, "is TANH"),
        (lambda: conv_network(normal(3, 1, 1, 2), Padding=7), ModelFormatError, "the padding is number 7"),
        (lambda: conv_network(dynamic_weights), UnsupportedError, "must be constant"),
        (lambda: conv_network(lambda b: b.tensor("w", (3, 1, 1, 2), data=b"1234")), ModelFormatError, "has 4 bytes"),
        (lambda: conv_network(lambda b: b.tensor("w", (3, 1, 1, 2), "INT4", b"1")), UnsupportedError, "weight is"),
        (quantised, ModelFormatError, "carries no quantisation"),
        (lambda: quantised(scale=-1.0), ModelFormatError, "negative or not finite"),
        (lambda: quantised(scale=float("nan")), ModelFormatError, "negative or not finite"),
        (lambda: quantised(scale=[1.0, 1.0]), ModelFormatError, "2 quantisation scales"),
        (lambda: quantised(scale=[1.0] * 3, axis=3), UnsupportedError, "another axis"),
        (lambda: quantised(scale=1.0, zero_point=128), ModelFormatError, "zero point outside"),
        (lambda: with_operator("CONV_2D"), ModelFormatError, "the options are of type 0"),
        (lambda: with_operator("RELU", output=(1, 4, 2, 4)), ModelFormatError, "declared with the shape"),
        (lambda: with_operator("RELU", shape=(1, 2**14, 2**14, 2), output=(1,)), UnsupportedError, "at most"),
        (lambda: with_operator("SQUEEZE", options="SqueezeOptions", SqueezeDims=[1]), ModelFormatError, "of size 1"),
        (lambda: with_operator("RESHAPE", output=(1, 31)), ModelFormatError, "does not fit|another number"),
        (lambda: with_operator("RESHAPE", output=(4, 8)), UnsupportedError, "batch size n = 1"),
        (lambda: with_operator("SOFTMAX", options="SoftmaxOptions", Beta=float("inf")), ModelFormatError, "beta is"),
        (lambda: with_operator("QUANTIZE"), UnsupportedError, "gives its input"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_with_the_reason(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_tflite(data())


def test_shared_weights_within_the_budget_are_fine() -> None:
    assert len(read_tflite(shared_weights(5))) == 6


# Files and paths


def test_load_gives_the_model_layers_outputs_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def record(layers: list[graph.Layer], **arguments: Any) -> SimpleNamespace:
        return SimpleNamespace(layers=layers, **arguments)

    monkeypatch.setitem(sys.modules, "sepconv.model", SimpleNamespace(Model=record))
    path = tmp_path / "little.tflite"
    path.write_bytes(small_network())
    model: Any = sepconv.io.load(path)
    assert (model.name, model.outputs, len(model.layers)) == ("little", ("softmax_16",), 15)
    model = sepconv.io.load(str(path), outputs=["logistic_15"])
    assert model.outputs == ("logistic_15",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"TFL3", "only 4 bytes"),
        (b"hello, I am a text file\n", "a text file that begins with 'hello, I am"),
        (b"\x10\0\0\0TFL3", "offset"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "a torch checkpoint, .* no network; give it as weights="),
        (b"PK\x03\x04" + bytes(30), "an archive of weights"),
        (b"\x02\0\0\0\0\0\0\0{}", "a safetensors file"),
        (b"\x89HDF\r\n\x1a\n", "Keras"),
        (bytes(100), "first bytes are 00"),
    ],
)  # fmt: skip
def test_load_says_what_a_wrong_file_is(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=message):
        sepconv.io.load(path)


def test_load_of_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sepconv.io.load(tmp_path / "absent.tflite")
    with pytest.raises(IsADirectoryError):
        sepconv.io.load(tmp_path)
    with pytest.raises(TypeError, match="must be a str"):
        sepconv.io.load(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="source was a bytearray, must be a path or bytes"):
        sepconv.io.read_tflite(bytearray(b"TFL3"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"path was 'a\\x00b', must be a path: .* no null character"):
        sepconv.io.load("a\0b")
    outputs: Any
    for outputs in (5, "yc", b"yc", [["y"]], [5]):
        for load in (sepconv.io.load, sepconv.io.load_tflite):
            with pytest.raises(TypeError, match=r"outputs was .*, must be a sequence of names or None"):
                load("absent.tflite", outputs)
    with pytest.raises(TypeError, match=r"convention was 'slim', must be a sepconv\.conventions\.Convention or None"):
        sepconv.io.load("absent.tflite", convention="slim")  # type: ignore[arg-type]
    with pytest.raises(ModelFormatError, match="not a regular file"):
        sepconv.io.load("/dev/null")


# Real files


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [("mobilenet_v1_0.25_128", 32, 128), ("mobilenet_v1_0.75_192", 32, 192), ("mobilenet_v2_1.0_224", 67, 224)],
)
def test_real_networks(shared_data: Path, name: str, count: int, size: int) -> None:
    layers = read_tflite(shared_data / "models" / f"{name}_quant.tflite")
    shapes = graph.infer_shapes(layers)
    assert len(layers) == count
    assert shapes["input"] == (size, size, 3)
    assert shapes[layers[-1].name] == (1, 1, 1001)
    source = layers[0]
    assert isinstance(source, graph.Input)
    assert (source.dtype, source.scale, source.zero_point) == ("uint8", 0.0078125, 128)
    stem = layers[1]
    assert isinstance(stem, graph.Conv2d)
    assert (stem.padding, stem.stride, stem.activation) == (((0, 1), (0, 1)), (2, 2), "relu6")
    assert isinstance(layers[-1], graph.Softmax)
