"""Reads safetensors files: a 64 bit header size, a JSON header, and the tensors' bytes."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import Any

import numpy as np

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.io.arrays import STORED_DTYPES, Array, MemoryBudget, checked_size, flat_view, widen_half
from sepconv.io.files import Source, naming, open_source

MAX_HEADER_BYTES = 2 << 20  # of real files: some 100 bytes a tensor; in memory a hostile one is 26 times as long

_DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_safetensors(source: str | os.PathLike[str] | bytes) -> dict[str, Array]:
    """The tensors of a safetensors file, given by path or as bytes, by name.

    Arrays are read-only views of the file; float16 and bfloat16 become float32.

    Raises:
        ModelFormatError: the file is not what the format requires.
        UnsupportedError: it has a tensor of a type that NumPy lacks.
    """
    return read_safetensors_weights(open_source(source))


def read_safetensors_weights(source: Source) -> dict[str, Array]:
    """:func:`read_safetensors` of an open file."""
    with naming(source.name):
        return _read(source.data)


def _read(data: memoryview) -> dict[str, Array]:
    header_size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header_size > min(len(data) - 8, MAX_HEADER_BYTES):
        raise ModelFormatError(
            f"the header's size is given as {header_size} bytes; the file has {len(data)}, and at most "
            f"{MAX_HEADER_BYTES} are possible"
        )
    entries = _parse_header(bytes(data[8 : 8 + header_size]))
    entries.pop("__metadata__", None)
    content = data[8 + header_size :]
    checked = {name: _check_entry(name, entry, len(content)) for name, entry in entries.items()}
    spans = sorted(span for _, _, span in checked.values())
    if any(start < end_before for (_, end_before), (start, _) in pairwise(spans)):
        raise ModelFormatError("tensors overlap")
    budget = MemoryBudget(len(data))
    return {
        name: widen_half(
            flat_view(content[start:end], STORED_DTYPES[dtype_name]).reshape(shape),
            dtype_name,
            budget,
            _called(name),
        )
        for name, (dtype_name, shape, (start, end)) in checked.items()
    }


def _called(name: str) -> str:
    return f"the tensor {name[:80]!r}"


def _parse_header(header: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except ModelFormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"the header is not valid JSON: {error}") from None
    if type(entries) is not dict:
        raise ModelFormatError("the header is not a JSON object")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ModelFormatError("the header has a key twice")
    return entries


def _check_entry(name: str, entry: Any, content_size: int) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Type, shape and byte span of one tensor."""
    what = _called(name)
    if type(entry) is not dict or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelFormatError(f"{what} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (type(dtype) is str and _are_counts(shape)):
        raise ModelFormatError(f"{what} has a malformed dtype or shape")
    if dtype not in _DTYPE_NAMES:
        raise UnsupportedError(f"{what} is of type {dtype[:20]!r}; it must be one of {', '.join(_DTYPE_NAMES)}")
    if not (_are_counts(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1] <= content_size):
        raise ModelFormatError(f"{what} has malformed data_offsets, or such as lie outside the file")
    start, end = offsets
    byte_count = checked_size(tuple(shape), what) * np.dtype(STORED_DTYPES[_DTYPE_NAMES[dtype]]).itemsize
    if byte_count != end - start:
        raise ModelFormatError(f"{what} has {end - start} bytes; its type {dtype} and shape need {byte_count}")
    return _DTYPE_NAMES[dtype], tuple(shape), (start, end)


def _are_counts(value: Any) -> bool:
    return type(value) is list and all(type(item) is int and item >= 0 for item in value)
