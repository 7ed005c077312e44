"""Writes TFLite files, by the builders that the package ``tflite`` generates from the format's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepconv import extras

Fields = Mapping[str, Any]


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
    """Collects tensors and operators, then gives the file's bytes. Nothing is checked: tests write wrong files too.

    Raises MissingExtraError without the packages tflite and flatbuffers.
    """

    def __init__(self, version: int = 3, subgraphs: int = 1) -> None:
        self._schema = _require("tflite")
        self._flatbuffers = _require("flatbuffers")
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
        builder = self._flatbuffers.Builder(1024)
        buffers = [self._buffer(builder, data) for data in self.buffers]
        kinds = sorted({operator.kind for operator in self.operators})
        codes = [self._table(builder, "OperatorCode", self._code_fields(kind)) for kind in kinds]
        subgraphs = [self._subgraph(builder, kinds) for _ in range(self.subgraphs)]
        model = self._table(
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

    def _buffer(self, builder: Any, data: bytes) -> int:
        fields = {"Data": builder.CreateByteVector(data)} if data else {}
        return self._table(builder, "Buffer", fields)

    def _subgraph(self, builder: Any, kinds: list[str]) -> int:
        tensors = [self._tensor_table(builder, tensor) for tensor in self.tensors]
        operators = [self._operator_table(builder, operator, kinds) for operator in self.operators]
        return self._table(
            builder,
            "SubGraph",
            {
                "Tensors": _offsets(builder, tensors),
                "Inputs": _vector(builder, self.inputs, np.int32),
                "Outputs": _vector(builder, self.outputs, np.int32),
                "Operators": _offsets(builder, operators),
            },
        )

    def _tensor_table(self, builder: Any, tensor: _Tensor) -> int:
        fields: dict[str, Any] = {
            "Shape": _vector(builder, tensor.shape, np.int32),
            "Type": getattr(self._schema.TensorType, tensor.type_name),
            "Buffer": tensor.buffer,
            "Name": builder.CreateString(tensor.name),
        }
        if tensor.scale:
            fields["Quantization"] = self._table(
                builder,
                "QuantizationParameters",
                {
                    "Scale": _vector(builder, tensor.scale, np.float32),
                    "ZeroPoint": _vector(builder, tensor.zero_point, np.int64),
                    "QuantizedDimension": tensor.axis,
                },
            )
        return self._table(builder, "Tensor", fields)

    def _operator_table(self, builder: Any, operator: _Operator, kinds: list[str]) -> int:
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
            fields["BuiltinOptionsType"] = getattr(self._schema.BuiltinOptions, operator.options)
            fields["BuiltinOptions"] = self._table(builder, operator.options, given)
        return self._table(builder, "Operator", fields)

    def _code_fields(self, kind: str) -> Fields:
        code = getattr(self._schema.BuiltinOperator, kind)
        return {"DeprecatedBuiltinCode": min(code, 127), "BuiltinCode": code, "Version": 1}

    def _table(self, builder: Any, name: str, fields: Fields) -> int:
        getattr(self._schema, f"{name}Start")(builder)
        for field, value in fields.items():
            getattr(self._schema, f"{name}Add{field}")(builder, value)
        return int(getattr(self._schema, f"{name}End")(builder))


def _require(package: str) -> Any:
    return extras.require(package, package=package, extra="tflite", purpose="writing a TFLite file")


def _vector(builder: Any, values: Sequence[float], dtype: type) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, dtype)))


def _offsets(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
