"""Reads FlatBuffers from untrusted bytes: every offset, count and size is checked before it is followed.

Layout: a table starts with a signed 32 bit distance back to its vtable; the vtable is its own size, the table's size,
and for each field the field's distance from the table's start (0: absent), all unsigned 16 bit. References are
unsigned 32 bit distances forward; vectors are a 32 bit count and the elements. Everything is little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepconv.errors import ModelFormatError

MAX_FIELDS = 32  # that are read of a vtable: a newer schema may have more

_Unpack = Callable[[memoryview, int], tuple[Any, ...]]
_UINT16, _INT32, _UINT32 = (struct.Struct("<" + code).unpack_from for code in "HiI")
_SCALARS: dict[str, tuple[_Unpack, int]] = {
    code: (struct.Struct("<" + code).unpack_from, struct.calcsize("<" + code)) for code in "bBiIQf"
}
_SLOTS: list[_Unpack] = [struct.Struct(f"<{count}H").unpack_from for count in range(MAX_FIELDS + 1)]


def _unpack(data: memoryview, unpack: _Unpack, position: int) -> Any:
    try:
        if position >= 0:  # else it would count from the end
            return unpack(data, position)[0]
    except struct.error:
        pass
    raise ModelFormatError(f"offset {position} lies outside the file of {len(data)} bytes")


def _follow(data: memoryview, position: int) -> int:
    """The target of the reference stored at ``position``, which lies inside the file."""
    return position + int(_UINT32(data, position)[0])


class File:
    """The bytes, and the vtables that were read: tables of one kind mostly share them."""

    __slots__ = ("_vtables", "data")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self._vtables: dict[int, tuple[int, tuple[int, ...]]] = {}

    def vtable(self, position: int) -> tuple[int, tuple[int, ...]]:
        """The size of its tables, and where their fields begin."""
        vtable = self._vtables.get(position)
        if vtable is None:
            vtable = self._vtables[position] = self._read_vtable(position)
        return vtable

    def _read_vtable(self, position: int) -> tuple[int, tuple[int, ...]]:
        size = int(_unpack(self.data, _UINT16, position))
        table_size = int(_unpack(self.data, _UINT16, position + 2))
        if size < 4 or size % 2 or position + size > len(self.data):
            raise ModelFormatError(f"the vtable at offset {position} has the impossible size {size}")
        return table_size, _SLOTS[min((size - 4) // 2, MAX_FIELDS)](self.data, position + 4)


class Table:
    """One table. Fields are known by their index in the schema, up to MAX_FIELDS; an absent field gives the default."""

    __slots__ = ("_fields", "_file", "_position", "_size")

    def __init__(self, file: File, position: int) -> None:
        self._file = file
        self._position = position
        self._size, self._fields = file.vtable(position - int(_unpack(file.data, _INT32, position)))
        if self._size < 4 or position + self._size > len(file.data):
            raise ModelFormatError(f"the table at offset {position} has the impossible size {self._size}")

    @classmethod
    def root(cls, data: memoryview) -> Table:
        return cls(File(data), int(_unpack(data, _UINT32, 0)))

    def _field(self, index: int, size: int) -> int | None:
        """Position of a field of ``size`` bytes, or None where it is absent."""
        offset = self._fields[index] if index < len(self._fields) else 0
        if offset == 0:
            return None
        if not 4 <= offset <= self._size - size:
            raise ModelFormatError(f"field {index} of the table at offset {self._position} lies outside the table")
        return self._position + offset

    def integer(self, index: int, code: str, default: int = 0) -> int:
        """An integer or bool field; ``code`` as in the struct module: b, B, i, I or Q."""
        unpack, size = _SCALARS[code]
        position = self._field(index, size)
        return default if position is None else int(unpack(self._file.data, position)[0])

    def real(self, index: int, default: float = 0.0) -> float:
        """A float32 field."""
        unpack, size = _SCALARS["f"]
        position = self._field(index, size)
        return default if position is None else float(unpack(self._file.data, position)[0])

    def table(self, index: int) -> Table | None:
        position = self._field(index, 4)
        return None if position is None else Table(self._file, _follow(self._file.data, position))

    def _vector(self, index: int, item_size: int) -> tuple[int, int]:
        """Start and element count of a vector; an absent one is empty."""
        position = self._field(index, 4)
        if position is None:
            return 0, 0
        data = self._file.data
        start = _follow(data, position)
        count = int(_unpack(data, _UINT32, start))
        start += 4
        if count * item_size > len(data) - start:
            raise ModelFormatError(f"a vector of {count} elements at offset {start} passes the end of the file")
        return start, count

    def tables(self, index: int) -> TableVector:
        return TableVector(self._file, *self._vector(index, 4))

    def array(self, index: int, dtype: str) -> NDArray[Any]:
        """A vector of numbers, as a view. ``dtype`` gives the byte order, as in "<i4"."""
        start, count = self._vector(index, np.dtype(dtype).itemsize)
        return np.frombuffer(self._file.data, dtype, count, start) if count else np.empty(0, dtype)

    def integers(self, index: int, most: int) -> tuple[int, list[int]]:
        """How many a vector of int32 has, and the first of them, at most so many."""
        start, count = self._vector(index, 4)
        return count, list(struct.unpack_from(f"<{min(count, most)}i", self._file.data, start))

    def octets(self, index: int) -> tuple[int, memoryview]:
        """A vector of bytes: its offset in the file, and the bytes, as a view."""
        start, count = self._vector(index, 1)
        return start, self._file.data[start : start + count]

    def text(self, index: int, max_length: int) -> str:
        """A string's first ``max_length`` bytes; what is not UTF-8 becomes U+FFFD."""
        _, octets = self.octets(index)
        return bytes(octets[:max_length]).decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class TableVector:
    """A vector of tables, each read when it is indexed: the file may name a million of them, or one a million times."""

    file: File
    start: int
    count: int

    def __len__(self) -> int:
        return self.count

    def get(self, index: int, what: str) -> Table:
        if not 0 <= index < self.count:
            raise ModelFormatError(f"{what} {index} does not exist: there are {self.count}")
        return Table(self.file, _follow(self.file.data, self.start + 4 * index))
