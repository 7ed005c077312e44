"""The tensors of a TFLite file: shapes, types, quantisation, and constant data as views of the file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.graph import ActivationName
from sepconv.io import _tflite_schema as schema
from sepconv.io.arrays import Array, LazyFloat32, MemoryBudget
from sepconv.io.flatbuffer import Table, TableVector

MAX_RANK = 8
MAX_NAME_BYTES = 200

_DTYPES = {
    schema.TensorType.FLOAT32: "<f4",
    schema.TensorType.FLOAT16: "<f2",
    schema.TensorType.INT32: "<i4",
    schema.TensorType.UINT8: "|u1",
    schema.TensorType.INT64: "<i8",
    schema.TensorType.INT8: "|i1",
}
WEIGHT_TYPES = ("FLOAT32", "FLOAT16", "UINT8", "INT8")
BIAS_TYPES = ("FLOAT32", "FLOAT16", "INT32")
INDEX_TYPES = ("INT32", "INT64")


@dataclass(frozen=True)
class Tensor:
    """``shape`` is as the file declares it: () may mean unknown. ``data`` is empty unless it is constant."""

    table: Table
    name: str
    shape: tuple[int, ...]
    type_name: str
    data: memoryview
    data_offset: int

    @property
    def is_constant(self) -> bool:
        return len(self.data) > 0

    @property
    def quantization(self) -> Table | None:
        return self.table.table(schema.TensorField.QUANTIZATION)

    def values(self, what: str, types: tuple[str, ...]) -> Array:
        """A constant's stored values, of the declared shape: a read-only view of the file."""
        if self.type_name not in types:
            raise UnsupportedError(f"{what} is of type {self.type_name}; it must be one of {', '.join(types)}")
        if not self.is_constant:
            raise UnsupportedError(f"{what} is computed while the network runs; it must be constant")
        dtype = np.dtype(_DTYPES[schema.TensorType[self.type_name]])
        byte_count = math.prod(self.shape) * dtype.itemsize
        if byte_count != len(self.data):
            raise ModelFormatError(
                f"{what} has {len(self.data)} bytes of data; its shape {list(self.shape)} and type "
                f"{self.type_name} need {byte_count}"
            )
        if self.data_offset % min(dtype.itemsize, 4):  # the format aligns vectors to 4 bytes
            raise ModelFormatError(f"{what} has its data at the misaligned offset {self.data_offset}")
        return np.frombuffer(self.data, dtype).reshape(self.shape)

    def scalar_quantization(self, what: str) -> tuple[float, int]:
        """Scale and zero point of a tensor that is quantised as a whole."""
        scale, zero_point = self._quantization_of(what, 1)
        if not scale[0] > 0:
            raise ModelFormatError(f"{what} has the quantisation scale {scale[0]}; it must be positive")
        return float(scale[0]), int(zero_point[0])

    def implied_activation(self) -> ActivationName:
        """What saturation does to an activation whose quantised range begins at 0, and perhaps ends at 6."""
        if self.type_name not in ("UINT8", "INT8") or not self.is_quantised:
            return "none"
        scale, zero_point = self.scalar_quantization(f"tensor {self.name!r}")
        if zero_point != np.iinfo(self.type_name.lower()).min:
            return "none"
        return "relu6" if abs(255 * scale - 6) <= scale / 2 else "relu"

    @property
    def is_quantised(self) -> bool:
        """Whether it has a scale, or several."""
        return self.quantization is not None and len(self.quantization.array(schema.Quantization.SCALE, "<f4")) > 0

    def _quantization_of(self, what: str, axis_length: int, axis: int = 0) -> tuple[Array, Array]:
        """Scales (float32) and zero points (float64), one in all or one for each of ``axis_length`` channels."""
        quantization = self.quantization
        if quantization is None:
            raise ModelFormatError(f"{what} is of type {self.type_name} and carries no quantisation")
        if quantization.integer(schema.Quantization.DETAILS_TYPE, "B"):
            raise UnsupportedError(f"{what} has a custom quantisation")
        scale = quantization.array(schema.Quantization.SCALE, "<f4")
        zero_point = quantization.array(schema.Quantization.ZERO_POINT, "<i8")
        if len(zero_point) == 0:
            zero_point = np.zeros(len(scale), np.int64)
        if len(scale) not in (1, axis_length) or len(zero_point) not in (1, len(scale)):
            raise ModelFormatError(
                f"{what} has {len(scale)} quantisation scales and {len(zero_point)} zero points; there must be one of "
                f"each, or one for each of its {axis_length} channels"
            )
        if len(scale) > 1 and quantization.integer(schema.Quantization.AXIS, "i") != axis:
            raise UnsupportedError(f"{what} is quantised along another axis than {axis}, that of the output channels")
        if not (np.isfinite(scale).all() and (scale >= 0).all()):
            raise ModelFormatError(f"{what} has a quantisation scale that is negative or not finite")
        limits = np.iinfo(_DTYPES[schema.TensorType[self.type_name]])
        if (zero_point < limits.min).any() or (zero_point > limits.max).any():
            raise ModelFormatError(f"{what} has a zero point outside the range of {self.type_name}")
        return scale, zero_point.astype(np.float64)

    def weights(self, what: str, types: tuple[str, ...], axis: int, budget: MemoryBudget) -> Weights:
        """A constant as real values. ``axis`` is that of the output channels, along which scales may differ."""
        stored = self.values(what, types)
        if stored.ndim <= axis:
            raise ModelFormatError(f"{what} has the shape {list(self.shape)}; it must have more than {axis} dimensions")
        budget.charge(4 * stored.size, what)
        if stored.dtype.kind == "f":
            return Weights(stored)
        return Weights(stored, *self._quantization_of(what, stored.shape[axis], axis))


@dataclass(frozen=True)
class Weights:
    """Stored values, with scales and zero points where they are quantised: [1] or [output channels]."""

    stored: Array
    scale: Array | None = None
    zero_point: Array | None = None

    def arranged(self, stored: Array, channels: tuple[int, ...]) -> Array | LazyFloat32:
        """``stored`` is a view of the values whose last axes, ``channels``, are the output channels."""
        if self.scale is None or self.zero_point is None:
            return stored if stored.dtype == np.float32 else LazyFloat32(stored)
        scale, zero_point = (
            array.reshape(channels) if len(array) == math.prod(channels) else array
            for array in (self.scale, self.zero_point)
        )
        return LazyFloat32(stored, scale, zero_point)


class Tensors:
    """The tensors of one subgraph by index, each read and checked when first asked for."""

    def __init__(self, tables: TableVector, buffers: TableVector) -> None:
        self._tables = tables
        self._buffers = buffers
        self._read: dict[int, Tensor] = {}

    def get(self, index: int) -> Tensor:
        if index not in self._read:
            self._read[index] = self._parse(index)
        return self._read[index]

    def _parse(self, index: int) -> Tensor:
        table = self._tables.get(index, "tensor")
        rank, shape = table.integers(schema.TensorField.SHAPE, MAX_RANK)
        if rank > MAX_RANK:
            raise UnsupportedError(f"tensor {index} has {rank} dimensions; at most {MAX_RANK} are possible")
        if min(shape, default=1) < 1:
            raise ModelFormatError(f"tensor {index} has the shape {shape}; each dimension must be at least 1")
        if table.table(schema.TensorField.SPARSITY) is not None:
            raise UnsupportedError(f"tensor {index} is stored sparsely")
        if table.integer(schema.TensorField.IS_VARIABLE, "B"):
            raise UnsupportedError(f"tensor {index} is a variable that keeps its value between runs")
        offset, data = self._data(table.integer(schema.TensorField.BUFFER, "I"))
        return Tensor(
            table=table,
            name=table.text(schema.TensorField.NAME, MAX_NAME_BYTES),
            shape=tuple(shape),
            type_name=schema.name_of(schema.TENSOR_TYPES, table.integer(schema.TensorField.TYPE, "b")),
            data=data,
            data_offset=offset,
        )

    def _data(self, index: int) -> tuple[int, memoryview]:
        buffer = self._buffers.get(index, "buffer")
        if buffer.integer(schema.Buffer.OFFSET, "Q") > 1:
            raise UnsupportedError(f"buffer {index} lies outside the FlatBuffer, as in files over 2 GB")
        return buffer.octets(schema.Buffer.DATA)
