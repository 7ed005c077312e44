"""Weights as float32: converted only when asked for, and never more of them than the file can account for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sepconv.errors import ModelFormatError

Array = NDArray[Any]
_T = TypeVar("_T")

MAX_RANK = 32  # of NumPy before version 2
_MEBIBYTE = 1 << 20
# What is before each name: torch.compile's prefix around that of data-parallel training, or within it.
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")


def without_prefixes(named: Mapping[str, _T]) -> Mapping[str, _T]:
    """Drops what torch's wrappers put before each name (an average's counter excepted)."""
    for prefix in _PREFIXES:
        names = [name for name in named if name != "n_averaged"]
        if names and all(name.startswith(prefix) for name in names):
            named = {name.removeprefix(prefix): named[name] for name in names}
    return named


class MemoryBudget:
    """Bounds the bytes that one file may expand to: ``factor`` times its size, plus 64 MiB.

    A file can name the same bytes many times over, so that a few kilobytes would expand to gigabytes. The default
    factor is that of 8 bit weights as float32.
    """

    def __init__(self, file_size: int, factor: int = 4) -> None:
        self._limit = factor * file_size + 64 * _MEBIBYTE
        self._left = self._limit

    def charge(self, byte_count: int, what: str) -> None:
        """Raises ModelFormatError where ``byte_count`` more bytes, those of ``what``, pass the bound."""
        self._left -= byte_count
        if self._left < 0:
            raise ModelFormatError(
                f"{what} brings the weights to more than {self._limit} bytes, too many for a file of this size"
            )


class LazyFloat32:
    """float32 array that is computed from stored values each time NumPy asks for it, and not held.

    value = (stored - zero_point) * scale, both broadcast against the stored array's last axes; stored float16
    values are only widened.
    """

    def __init__(self, stored: Array, scale: Array | None = None, zero_point: Array | None = None) -> None:
        self._stored = stored
        self._scale = scale
        self._zero_point = zero_point

    @property
    def shape(self) -> tuple[int, ...]:
        return self._stored.shape

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        return self._stored.ndim

    @property
    def size(self) -> int:
        return self._stored.size

    def __len__(self) -> int:
        return len(self._stored)

    def __repr__(self) -> str:
        return f"LazyFloat32(shape={self.shape}, stored={self._stored.dtype.name})"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("the values are computed on demand: an array of them is always a copy")
        # 8 bit values and zero points are exact in float32; 32 bit ones need float64 before the scale.
        wide = np.float64 if self._stored.dtype.itemsize >= 4 else np.float32
        values: NDArray[np.floating[Any]] = self._stored.astype(wide, order="C")
        with np.errstate(over="ignore", invalid="ignore"):  # a file's weights may be infinite
            if self._zero_point is not None:
                np.subtract(values, self._zero_point, out=values, casting="same_kind")
            if self._scale is not None:
                np.multiply(values, self._scale, out=values, casting="same_kind")
            return values.astype(np.float32 if dtype is None else dtype, copy=False)


# Element types of weight files, by common names. bfloat16, which NumPy lacks, is read as bit patterns.
STORED_DTYPES = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint64": "<u8",
    "uint32": "<u4",
    "uint16": "<u2",
    "uint8": "|u1",
    "bool": "|b1",
}


def checked_size(shape: tuple[int, ...], what: str) -> int:
    """Number of elements of a shape that a file declares; ModelFormatError for one that NumPy could not hold."""
    if len(shape) > MAX_RANK or math.prod(max(extent, 1) for extent in shape) >= 1 << 60:
        raise ModelFormatError(f"{what} has an impossible shape of {len(shape)} dimensions")
    return math.prod(shape)


def flat_view(data: memoryview, dtype: str) -> Array:
    """All of ``data`` as a flat read-only view, which NumPy and the core also take where it is misaligned."""
    return np.frombuffer(data, dtype) if data else np.empty(0, dtype)


def widen_half(array: Array, dtype_name: str, budget: MemoryBudget, what: str) -> Array:
    """float16 and bfloat16 as float32, exactly; other types as they are."""
    if dtype_name not in ("float16", "bfloat16"):
        return array
    budget.charge(4 * array.size, what)
    if dtype_name == "float16":
        return _frozen(array.astype(np.float32, order="C"))
    widened = array.astype(np.uint32, order="C")
    widened <<= 16
    return _frozen(widened.view(np.float32))


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array
