"""Writes small TFLite files for tests, by the builders that the package ``tflite`` generates from the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

Fields = Mapping[str, Any]

RNG = np.random.default_rng(0)
CONV: dict[str, Any] = {"options": "Conv2DOptions", "StrideW": 1, "StrideH": 1}
DEPTHWISE: dict[str, Any] = {"options": "DepthwiseConv2DOptions", "StrideW": 1, "StrideH": 1}
POOL: dict[str, Any] = {"options": "Pool2DOptions", "StrideW": 2, "StrideH": 2, "FilterWidth": 3, "FilterHeight": 2}


@dataclass
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type_name: str
    buffer: int
    scale: Sequence[float]
    zero_point: Sequence[int]
    axis: int


@dataclass
class _Operator:
    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: str
    fields: Fields


class TfliteBuilder:
    """Collects tensors and operators, then gives the file's bytes. Nothing is checked: tests write wrong files too."""

    def __init__(self, version: int = 3, subgraphs: int = 1) -> None:
        self.version = version
        self.subgraphs = subgraphs
        self.tensors: list[_Tensor] = []
        self.operators: list[_Operator] = []
        self.buffers: list[bytes] = [b""]
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        type_name: str = "FLOAT32",
        data: NDArray[Any] | bytes | None = None,
        scale: float | Sequence[float] = (),
        zero_point: int | Sequence[int] = (),
        axis: int = 0,
    ) -> int:
        """Index of a new tensor, which is constant where data are given."""
        buffer = 0
        if data is not None:
            self.buffers.append(data if isinstance(data, bytes) else data.tobytes())
            buffer = len(self.buffers) - 1
        scales = [scale] if isinstance(scale, float) else list(scale)
        zero_points = [zero_point] if isinstance(zero_point, int) else list(zero_point)
        self.tensors.append(_Tensor(name, tuple(shape), type_name, buffer, scales, zero_points, axis))
        return len(self.tensors) - 1

    def constant(self, name: str, values: NDArray[Any], **quantization: Any) -> int:
        return self.tensor(name, values.shape, values.dtype.name.upper(), values, **quantization)

    def input(self, shape: Sequence[int], type_name: str = "FLOAT32", **quantization: Any) -> int:
        self.inputs.append(self.tensor("input", shape, type_name, **quantization))
        return self.inputs[-1]

    def operator(
        self, kind: str, inputs: Sequence[int], output: Sequence[int] | int, options: str = "", **fields: Any
    ) -> int:
        """Index of the output: a new float32 tensor of the shape ``output``, or the tensor of this index."""
        index = output if isinstance(output, int) else self.tensor(f"{kind.lower()}_{len(self.operators)}", output)
        self.operators.append(_Operator(kind, inputs, [index], options, fields))
        return index

    def finish(self, *outputs: int) -> bytes:
        self.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        buffers = [self._buffer(builder, data) for data in self.buffers]
        kinds = sorted({operator.kind for operator in self.operators})
        codes = [_table(builder, "OperatorCode", _code_fields(kind)) for kind in kinds]
        subgraphs = [self._subgraph(builder, kinds) for _ in range(self.subgraphs)]
        model = _table(
            builder,
            "Model",
            {
                "Version": self.version,
                "OperatorCodes": _offsets(builder, codes),
                "Subgraphs": _offsets(builder, subgraphs),
                "Buffers": _offsets(builder, buffers),
            },
        )
        builder.Finish(model, b"TFL3")
        return bytes(builder.Output())

    @staticmethod
    def _buffer(builder: Any, data: bytes) -> int:
        fields = {"Data": builder.CreateByteVector(data)} if data else {}
        return _table(builder, "Buffer", fields)

    def _subgraph(self, builder: Any, kinds: list[str]) -> int:
        tensors = [self._tensor_table(builder, tensor) for tensor in self.tensors]
        operators = [self._operator_table(builder, operator, kinds) for operator in self.operators]
        return _table(
            builder,
            "SubGraph",
            {
                "Tensors": _offsets(builder, tensors),
                "Inputs": _vector(builder, self.inputs, np.int32),
                "Outputs": _vector(builder, self.outputs, np.int32),
                "Operators": _offsets(builder, operators),
            },
        )

    @staticmethod
    def _tensor_table(builder: Any, tensor: _Tensor) -> int:
        fields: dict[str, Any] = {
            "Shape": _vector(builder, tensor.shape, np.int32),
            "Type": getattr(tflite.TensorType, tensor.type_name),
            "Buffer": tensor.buffer,
            "Name": builder.CreateString(tensor.name),
        }
        if tensor.scale:
            fields["Quantization"] = _table(
                builder,
                "QuantizationParameters",
                {
                    "Scale": _vector(builder, tensor.scale, np.float32),
                    "ZeroPoint": _vector(builder, tensor.zero_point, np.int64),
                    "QuantizedDimension": tensor.axis,
                },
            )
        return _table(builder, "Tensor", fields)

    @staticmethod
    def _operator_table(builder: Any, operator: _Operator, kinds: list[str]) -> int:
        fields: dict[str, Any] = {
            "OpcodeIndex": kinds.index(operator.kind),
            "Inputs": _vector(builder, operator.inputs, np.int32),
            "Outputs": _vector(builder, operator.outputs, np.int32),
        }
        if operator.options:
            given = {
                name: _vector(builder, value, np.int32) if isinstance(value, (list, tuple)) else value
                for name, value in operator.fields.items()
            }
            fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, operator.options)
            fields["BuiltinOptions"] = _table(builder, operator.options, given)
        return _table(builder, "Operator", fields)


def _code_fields(kind: str) -> Fields:
    code = getattr(tflite.BuiltinOperator, kind)
    return {"DeprecatedBuiltinCode": min(code, 127), "BuiltinCode": code, "Version": 1}


def _table(builder: Any, name: str, fields: Fields) -> int:
    getattr(tflite, f"{name}Start")(builder)
    for field, value in fields.items():
        getattr(tflite, f"{name}Add{field}")(builder, value)
    return int(getattr(tflite, f"{name}End")(builder))


def _vector(builder: Any, values: Sequence[float], dtype: type) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, dtype)))


def _offsets(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def normal(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return RNG.standard_normal(shape, dtype=np.float32)


def small_network() -> bytes:
    """Every supported operator in a few kilobytes, float and quantised."""
    b = TfliteBuilder()
    x = b.input((1, 9, 8, 3), "UINT8", scale=0.5, zero_point=3)
    x = b.operator("DEQUANTIZE", [x], (1, 9, 8, 3), "DequantizeOptions")
    paddings = b.constant("paddings", np.array([[0, 0], [1, 0], [2, 1], [0, 0]], np.int32))
    x = b.operator("PAD", [x, paddings], (1, 10, 11, 3), "PadOptions")
    weight = b.constant("w0", RNG.integers(0, 255, (4, 3, 3, 3), np.uint8), scale=0.1, zero_point=7)
    bias = b.constant("b0", RNG.integers(-9, 9, 4, np.int32), scale=0.05, zero_point=0)
    x = b.operator(
        "CONV_2D", [x, weight, bias], (1, 5, 6, 4), "Conv2DOptions", StrideW=2, StrideH=2, FusedActivationFunction=3
    )
    half = b.constant("half", normal(1, 3, 3, 8).astype(np.float16))
    weight = b.operator("DEQUANTIZE", [half], (1, 3, 3, 8))
    x = b.operator(
        "DEPTHWISE_CONV_2D", [x, weight, b.constant("b1", normal(8))], (1, 5, 6, 8), **DEPTHWISE, DepthMultiplier=2
    )
    y = b.operator("RELU", [x], (1, 5, 6, 8))
    y = b.operator("RELU6", [y], (1, 5, 6, 8))
    x = b.operator("ADD", [x, y], (1, 5, 6, 8), "AddOptions", FusedActivationFunction=1)
    x = b.operator("QUANTIZE", [x], b.tensor("q", (1, 5, 6, 8), "INT8", scale=0.1, zero_point=0), "QuantizeOptions")
    x = b.operator("AVERAGE_POOL_2D", [x], (1, 3, 3, 8), **POOL)
    x = b.operator("MAX_POOL_2D", [x], (1, 1, 1, 8), **POOL, Padding=1)
    x = b.operator(
        "MEAN", [x, b.constant("axes", np.array([2, -3], np.int32))], (1, 1, 1, 8), "ReducerOptions", KeepDims=True
    )
    x = b.operator("SQUEEZE", [x], (1, 8), "SqueezeOptions", SqueezeDims=[1, 2])
    x = b.operator(
        "RESHAPE", [x, b.constant("shape", np.array([-1, 1, 4, 2], np.int32))], (1, 1, 4, 2), "ReshapeOptions"
    )
    weight = b.constant("w2", RNG.integers(-9, 9, (5, 8), np.int8), scale=[0.1, 0.2, 0.3, 0.4, 0.5], zero_point=[0] * 5)
    x = b.operator("FULLY_CONNECTED", [x, weight, -1], (1, 5), "FullyConnectedOptions")
    logits = b.operator("LOGISTIC", [x], (1, 5))
    return b.finish(b.operator("SOFTMAX", [logits], (1, 5), "SoftmaxOptions", Beta=2.0))


def shared_weights(count: int) -> bytes:
    """Many convolutions with one set of weights: little in the file, gigabytes once each has its own."""
    b = TfliteBuilder()
    x = b.input((1, 1, 1, 256))
    weight = b.constant("w", np.ones((256, 1, 1, 256), np.int8), scale=1.0, zero_point=0)
    for _ in range(count):
        x = b.operator("CONV_2D", [x, weight], (1, 1, 1, 256), **CONV)
    return b.finish(x)
