"""Reads NumPy's .npz archives of plain arrays, checked before anything is allocated."""

from __future__ import annotations

import re

import numpy as np

from sepconv.errors import ModelFormatError
from sepconv.io.arrays import Array, MemoryBudget, checked_size, flat_view, widen_half
from sepconv.io.zip_archive import Member, called

_MAGIC = b"\x93NUMPY"
_VERSIONS = (b"\x01", b"\x02", b"\x03")
_MAX_HEADER_BYTES = 1 << 16
# What numpy.save writes for arrays of numbers. Anything else, pickled objects above all, does not match.
_HEADER = re.compile(
    r"\{'descr': '([<|][fiub][1248])', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,400})\), \}\s*"
)


def read_npz_arrays(data: memoryview, members: dict[str, Member]) -> dict[str, Array]:
    """The arrays by name; read-only, views of the file where they are stored uncompressed."""
    budget = MemoryBudget(len(data), factor=100)  # deflate packs sparse weights well; a bomb is a thousandfold
    return {
        name.removesuffix(".npy"): _read_array(name, member.content(budget), budget) for name, member in members.items()
    }


def _read_array(name: str, content: memoryview, budget: MemoryBudget) -> Array:
    what = called(name)
    version = bytes(content[6:7])
    start = 10 if version == b"\x01" else 12
    header_size = int.from_bytes(content[8:start], "little")
    if bytes(content[:6]) != _MAGIC or version not in _VERSIONS or header_size > _MAX_HEADER_BYTES:
        raise ModelFormatError(f"{what} is not a NumPy array")
    header = _HEADER.fullmatch(bytes(content[start : start + header_size]).decode("latin-1"))
    if header is None:
        raise ModelFormatError(f"{what} is not an array of plain little-endian numbers")
    descriptor, fortran_order, extents = header.groups()
    shape = tuple(int(extent) for extent in extents.replace(" ", "").split(",") if extent)
    values = content[start + header_size :]
    try:
        dtype = np.dtype(descriptor)
    except TypeError:
        raise ModelFormatError(f"{what} has the unknown type {descriptor!r}") from None
    if checked_size(shape, what) * dtype.itemsize != len(values):
        raise ModelFormatError(f"{what} has {len(values)} bytes of data; its shape does not fit them")
    array = flat_view(values, descriptor).reshape(shape, order="F" if fortran_order == "True" else "C")
    return widen_half(array, dtype.name, budget, what)
