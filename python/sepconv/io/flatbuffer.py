"""Reads FlatBuffers from untrusted bytes: every offset, count and size is checked before it is followed.

Layout: a table starts with a signed 32 bit distance back to its vtable; the vtable is its own size, the table's size,
and for each field the field's distance from the table's start (0: absent), all unsigned 16 bit. References are
unsigned 32 bit distances forward; vectors are a 32 bit count and the elements. Everything is little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepconv.errors import ModelFormatError

_UINT16 = struct.Struct("<H")
_INT32 = struct.Struct("<i")
_UINT32 = struct.Struct("<I")
_SCALARS = {code: struct.Struct("<" + code) for code in "bBiIf"}


def _unpack(data: memoryview, codec: struct.Struct, position: int) -> Any:
    if not 0 <= position <= len(data) - codec.size:
        raise ModelFormatError(f"offset {position} lies outside the file of {len(data)} bytes")
    return codec.unpack_from(data, position)[0]


def _follow(data: memoryview, position: int) -> int:
    """The target of the reference stored at ``position``."""
    return position + int(_unpack(data, _UINT32, position))


class Table:
    """One table. Fields are known by their index in the schema; an absent field gives the default."""

    __slots__ = ("_data", "_position", "_size", "_vtable", "_vtable_size")

    def __init__(self, data: memoryview, position: int) -> None:
        self._data = data
        self._position = position
        self._vtable = position - int(_unpack(data, _INT32, position))
        self._vtable_size = int(_unpack(data, _UINT16, self._vtable))
        self._size = int(_unpack(data, _UINT16, self._vtable + 2))
        if self._vtable_size < 4 or self._vtable_size % 2 or self._vtable + self._vtable_size > len(data):
            raise ModelFormatError(f"the vtable at offset {self._vtable} has the impossible size {self._vtable_size}")
        if self._size < 4 or position + self._size > len(data):
            raise ModelFormatError(f"the table at offset {position} has the impossible size {self._size}")

    @classmethod
    def root(cls, data: memoryview) -> Table:
        return cls(data, _follow(data, 0))

    def _field(self, index: int, size: int) -> int | None:
        """Position of a field of ``size`` bytes, or None where it is absent."""
        slot = 4 + 2 * index
        if slot + 2 > self._vtable_size:
            return None
        offset = int(_unpack(self._data, _UINT16, self._vtable + slot))
        if offset == 0:
            return None
        if not 4 <= offset <= self._size - size:
            raise ModelFormatError(f"field {index} of the table at offset {self._position} lies outside the table")
        return self._position + offset

    def _scalar(self, index: int, code: str, default: float) -> Any:
        codec = _SCALARS[code]
        position = self._field(index, codec.size)
        return default if position is None else _unpack(self._data, codec, position)

    def integer(self, index: int, code: str, default: int = 0) -> int:
        """An integer or bool field; ``code`` as in the struct module: b, B, i or I."""
        return int(self._scalar(index, code, default))

    def real(self, index: int, default: float = 0.0) -> float:
        """A float32 field."""
        return float(self._scalar(index, "f", default))

    def table(self, index: int) -> Table | None:
        position = self._field(index, 4)
        return None if position is None else Table(self._data, _follow(self._data, position))

    def _vector(self, index: int, item_size: int) -> tuple[int, int]:
        """Start and element count of a vector; an absent one is empty."""
        position = self._field(index, 4)
        if position is None:
            return 0, 0
        start = _follow(self._data, position)
        count = int(_unpack(self._data, _UINT32, start))
        start += 4
        if count * item_size > len(self._data) - start:
            raise ModelFormatError(f"a vector of {count} elements at offset {start} passes the end of the file")
        return start, count

    def tables(self, index: int) -> TableVector:
        return TableVector(self._data, *self._vector(index, 4))

    def array(self, index: int, dtype: str) -> NDArray[Any]:
        """A vector of numbers, as a view. ``dtype`` gives the byte order, as in "<i4"."""
        start, count = self._vector(index, np.dtype(dtype).itemsize)
        return np.frombuffer(self._data, dtype, count, start) if count else np.empty(0, dtype)

    def octets(self, index: int) -> tuple[int, memoryview]:
        """A vector of bytes: its offset in the file, and the bytes, as a view."""
        start, count = self._vector(index, 1)
        return start, self._data[start : start + count]

    def text(self, index: int, max_length: int) -> str:
        """A string's first ``max_length`` bytes; what is not UTF-8 becomes U+FFFD."""
        _, octets = self.octets(index)
        return bytes(octets[:max_length]).decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class TableVector:
    """A vector of tables, each read when it is indexed: the file may name a million of them, or one a million times."""

    data: memoryview
    start: int
    count: int

    def __len__(self) -> int:
        return self.count

    def get(self, index: int, what: str) -> Table:
        if not 0 <= index < self.count:
            raise ModelFormatError(f"{what} {index} does not exist: there are {self.count}")
        return Table(self.data, _follow(self.data, self.start + 4 * index))
