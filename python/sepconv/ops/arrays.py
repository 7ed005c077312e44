"""Anyone's arrays as float32 views, and results as the caller's kind of array.

What is taken: numpy arrays, objects with ``__dlpack__`` in CPU memory, the buffer protocol, and what has ``__array__``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT32 = np.dtype(np.float32)
# Devices of DLPack whose memory this process can read: the CPU's own, and pages pinned for CUDA and ROCm.
HOST_DEVICES = (1, 3, 11)


@dataclass(frozen=True)
class Taken:
    """An argument as numpy sees it.

    values: the caller's memory where it could be viewed, of any floating type.
    caller: the object to which results are made alike; None for numpy.
    """

    values: NDArray[Any]
    caller: Any = None


def take(argument: str, x: Any) -> Taken:
    """A view of ``x``. Raises TypeError, ValueError or BufferError that names the argument."""
    if type(x) is np.ndarray:
        taken = Taken(x)
    elif isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{argument} was a masked array, must be one without a mask: fill it first")
    elif isinstance(x, np.ndarray):
        taken = Taken(np.asarray(x))
    elif hasattr(x, "__dlpack__"):
        taken = Taken(_from_dlpack(argument, x), x)
    else:
        taken = Taken(_from_buffer(argument, x))
    if not is_floating(taken.values.dtype):
        raise TypeError(f"{argument} had dtype {taken.values.dtype}, must have float32, float16, bfloat16 or float64")
    return taken


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether values of this type are taken: float16, 32 and 64, and bfloat16 as ml_dtypes brings it."""
    return (dtype.kind == "f" and dtype.itemsize <= 8) or dtype.name == "bfloat16"


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """The values themselves where they are aligned float32 of this machine's byte order, else a copy."""
    if values.dtype == FLOAT32 and values.flags.aligned:
        return values
    return np.ascontiguousarray(values).astype(FLOAT32)


def _from_dlpack(argument: str, x: Any) -> NDArray[Any]:
    device = x.__dlpack_device__()
    if int(device[0]) not in HOST_DEVICES:
        raise ValueError(f"{argument} was on DLPack device {tuple(map(int, device))}, must be in CPU memory: (1, 0)")
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError) as error:
        raise BufferError(f"{argument} was a {type(x).__name__} that does not give its memory: {error}") from error


def _from_buffer(argument: str, x: Any) -> NDArray[Any]:
    try:
        return np.asarray(memoryview(x))
    except TypeError:
        if hasattr(x, "__array__") or hasattr(x, "__array_interface__"):
            return np.asarray(x)
    raise TypeError(f"{argument} was a {type(x).__name__}, must be a numpy array, a buffer or an array with __dlpack__")


def give(result: NDArray[Any], like: Taken) -> Any:
    """The result as the caller's kind of array and type: an array of the library that ``like`` comes from."""
    if like.caller is None:
        return result.astype(like.values.dtype, copy=False)
    result = result.astype(like.values.dtype, copy=False)
    from_dlpack = _namespace_function(like.caller)
    return result if from_dlpack is None else from_dlpack(result)


def _namespace_function(x: Any) -> Any:
    """``from_dlpack`` of the library that x comes from, or None."""
    if hasattr(x, "__array_namespace__"):
        function = getattr(x.__array_namespace__(), "from_dlpack", None)
        if function is not None:
            return function
    library = sys.modules.get(type(x).__module__.partition(".")[0])
    return getattr(library, "from_dlpack", None)


def overlaps_itself(x: NDArray[Any]) -> bool:
    """Whether two elements of x may share memory, as in broadcast views. True for some odd views where none do."""
    reach = x.itemsize
    for stride, size in sorted(
        (abs(stride), size) for stride, size in zip(x.strides, x.shape, strict=True) if size > 1
    ):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False
