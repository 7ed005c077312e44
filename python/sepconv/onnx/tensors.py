"""Tensors and attributes of a model file, checked against the bytes that are there before anything is allocated."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.onnx.ir import Array

MAX_RANK = 32
MAX_ELEMENTS = 2**31 - 1

# Where TensorProto keeps the elements of a type besides raw_data.
_FIELDS = {
    "FLOAT": "float_data", "DOUBLE": "double_data", "INT64": "int64_data", "UINT64": "uint64_data",
    "UINT32": "uint64_data", "INT32": "int32_data", "INT16": "int32_data", "INT8": "int32_data",
    "UINT16": "int32_data", "UINT8": "int32_data", "BOOL": "int32_data", "FLOAT16": "int32_data",
    "BFLOAT16": "int32_data", "COMPLEX64": "float_data", "COMPLEX128": "double_data", "STRING": "string_data",
}  # fmt: skip
_PLAIN = {
    "FLOAT": "<f4", "DOUBLE": "<f8", "INT64": "<i8", "UINT64": "<u8", "UINT32": "<u4", "INT32": "<i4",
    "INT16": "<i2", "INT8": "<i1", "UINT16": "<u2", "UINT8": "<u1", "BOOL": "|b1", "FLOAT16": "<f2",
}  # fmt: skip


class Tensors:
    """Reads tensors of one file. ``folder``: where external data may lie; None where it is refused."""

    def __init__(self, folder: Path | None) -> None:
        import onnx

        self._onnx = onnx
        self._folder = folder

    def array(self, tensor: Any, what: str) -> Array:
        """The elements, read-only.

        Raises ModelFormatError for a tensor that contradicts itself, UnsupportedError for a type or external data that
        is not possible.
        """
        kind = self._type_name(tensor, what)
        shape = tuple(tensor.dims)
        check_shape(shape, what)
        if self.is_external(tensor):
            return self._external(tensor, kind, shape, what)
        count = math.prod(shape)
        if kind in _PLAIN and tensor.HasField("raw_data"):
            size = count * np.dtype(_PLAIN[kind]).itemsize
            if len(tensor.raw_data) != size:
                raise ModelFormatError(f"{what} has {len(tensor.raw_data)} bytes; {list(shape)} asks for {size}")
            return _plain(tensor.raw_data, kind, shape)
        if kind in _FIELDS and not tensor.HasField("raw_data"):
            stored = len(getattr(tensor, _FIELDS[kind]))
            entries = 2 * count if kind.startswith("COMPLEX") else count
            if stored != entries:
                raise ModelFormatError(f"{what} has {stored} elements; its shape {list(shape)} asks for {entries}")
        try:
            values = self._onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError, OverflowError, KeyError) as error:
            raise ModelFormatError(f"{what} cannot be read: {error}") from None
        return np.asarray(values)

    def value(self, attribute: Any, where: str) -> Any:
        """What an attribute says: numbers, text, or an array; None for a graph and whatever else it may hold."""
        kinds = self._onnx.AttributeProto
        match attribute.type:
            case kinds.FLOAT:
                return float(attribute.f)
            case kinds.INT:
                return int(attribute.i)
            case kinds.STRING:
                return _text(attribute.s, where)
            case kinds.TENSOR:
                return self.array(attribute.t, where)
            case kinds.FLOATS:
                return [float(value) for value in attribute.floats]
            case kinds.INTS:
                return [int(value) for value in attribute.ints]
            case kinds.STRINGS:
                return [_text(value, where) for value in attribute.strings]
        return None

    def is_external(self, tensor: Any) -> bool:
        return bool(tensor.HasField("data_location") and tensor.data_location == self._onnx.TensorProto.EXTERNAL)

    def _type_name(self, tensor: Any, what: str) -> str:
        try:
            name = str(self._onnx.TensorProto.DataType.Name(tensor.data_type))
        except ValueError:
            name = "UNDEFINED"
        if name == "UNDEFINED":
            raise ModelFormatError(f"{what} is of type {tensor.data_type}, which ONNX does not have")
        return name

    def _external(self, tensor: Any, kind: str, shape: tuple[int, ...], what: str) -> Array:
        if self._folder is None:
            raise UnsupportedError(
                f"{what} lies in another file; external_data=True allows files of the model's folder"
            )
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if not all(isinstance(text, str) for pair in entries.items() for text in pair):
            raise ModelFormatError(f"{what} lies in another file, whose name is not UTF-8")
        if kind not in _PLAIN:
            raise UnsupportedError(
                f"{what} lies in another file and is of type {kind}, must be one of {', '.join(_PLAIN)}"
            )
        length = math.prod(shape) * np.dtype(_PLAIN[kind]).itemsize
        offset = _number(entries.get("offset", "0"), f"{what}: offset")
        declared = _number(entries.get("length", str(length)), f"{what}: length")
        if declared != length:
            raise ModelFormatError(
                f"{what} has a length of {declared} bytes; its shape {list(shape)} asks for {length}"
            )
        return _plain(_read_inside(self._folder, entries.get("location", ""), offset, length, what), kind, shape)


def _plain(data: bytes, kind: str, shape: tuple[int, ...]) -> Array:
    """The elements of a type in _PLAIN."""
    values = np.frombuffer(data, np.uint8 if kind == "BOOL" else _PLAIN[kind])
    return (values != 0 if kind == "BOOL" else values).reshape(shape)  # a byte of 2 is no bool


def check_shape(shape: tuple[int, ...], what: str) -> None:
    """Raise ModelFormatError for sizes that no tensor of ours can have."""
    if len(shape) > MAX_RANK:
        raise ModelFormatError(f"{what} has {len(shape)} axes; at most {MAX_RANK} are possible")
    if any(size < 0 for size in shape):
        raise ModelFormatError(f"{what} has the shape {list(shape)}, which is negative")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ModelFormatError(f"{what} has the shape {list(shape)}; at most {MAX_ELEMENTS} elements are possible")


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ModelFormatError(f"{what} is not UTF-8") from None


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelFormatError(f"{what} is {text[:40]!r}, must be a whole number")
    return int(text)


def _read_inside(folder: Path, location: str, offset: int, length: int, what: str) -> bytes:
    """``length`` bytes of a regular file below ``folder`` that no symbolic link leads to."""
    parts = Path(location).parts
    if not parts or Path(location).is_absolute() or ".." in parts or "\0" in location or "\\" in location:
        raise ModelFormatError(f"{what} lies in {location[:80]!r}, must be a file in the model's folder")
    path = folder
    try:
        for part in parts:
            path = path / part
            if stat.S_ISLNK(path.lstat().st_mode):
                raise ModelFormatError(
                    f"{what} lies in {location[:80]!r}, which is a symbolic link; links are not followed"
                )
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ModelFormatError(f"{what} lies in {location[:80]!r}, must be a regular file without hard links")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ModelFormatError(f"{what} lies in {location[:80]!r}, which cannot be opened: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ModelFormatError(f"{what} lies in {location[:80]!r}, must be a regular file without hard links")
        if offset + length > status.st_size:
            raise ModelFormatError(
                f"{what} takes bytes {offset} to {offset + length} of {location[:80]!r}, which has {status.st_size}"
            )
        file.seek(offset)
        return file.read(length)
