"""Anyone's arrays as views of their memory, and results as the caller's kind of array.

What is taken: numpy arrays, objects with ``__dlpack__`` in CPU memory, the buffer protocol, and what has ``__array__``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepconv import _core
from sepconv.graph.base import reject_masked

FLOAT32 = np.dtype(np.float32)
# Devices of DLPack whose memory this process can read: the CPU's own, and pages pinned for CUDA and ROCm.
HOST_DEVICES = (1, 3, 11)
DEVICE_NAMES = {2: "CUDA", 4: "OpenCL", 7: "Vulkan", 8: "Metal", 10: "ROCm", 13: "CUDA managed", 14: "oneAPI"}
DLPACK_VERSION = (1, 1)
PART = 1 << 22  # numbers that are converted at a time
MUST_HAVE = "must have float32, float16, bfloat16 or float64"


@dataclass(frozen=True)
class Taken:
    """An argument as numpy sees it.

    values: the caller's memory where it could be viewed: of a floating type, or uint16, which holds bfloat16.
    caller: the object to which results are made alike; None for numpy.
    own_type: numpy's own type where values is a view of another one: bfloat16 as ml_dtypes brings it.
    copied: whether the producer says that it gave a copy of its memory.
    mute: whether the producer cannot say if its memory may be written to: DLPack before 1.0.
    """

    values: NDArray[Any]
    caller: Any = None
    own_type: np.dtype[Any] | None = None
    copied: bool = False
    mute: bool = False


def take(argument: str, x: Any) -> Taken:
    """A view of ``x``. Raises TypeError, ValueError or BufferError that names the argument."""
    if type(x) is np.ndarray:
        taken = Taken(x)
        if x.dtype == FLOAT32:
            return taken
    elif isinstance(x, np.ndarray):
        reject_masked(argument, x)
        taken = Taken(np.asarray(x))
    elif hasattr(x, "__dlpack__"):
        return _from_dlpack(argument, x)
    else:
        taken = Taken(_from_buffer(argument, x))
    dtype = taken.values.dtype
    if dtype.name == "bfloat16":
        return Taken(taken.values.view(np.uint16), own_type=dtype)
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise TypeError(f"{argument} had dtype {dtype}, {MUST_HAVE}")
    return taken


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """The values themselves where they are aligned float32 of this machine's byte order, else a copy."""
    if values.dtype == FLOAT32 and values.flags.aligned:
        return values
    result = np.empty(values.shape, FLOAT32)
    _in_parts(values, result, _widen if values.dtype == np.uint16 else _copy)
    return result


def as_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16 numbers, ties to even, as uint16; laid out in memory as ``values`` are."""
    result = np.empty_like(values, np.uint16)
    _in_parts(values, result, _narrow)
    return result


def as_type(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values in a floating type, or uint16 for bfloat16; themselves where they have it, else laid out like them."""
    if dtype == np.uint16:
        return as_bfloat16(values)
    if dtype == FLOAT32:
        return values
    result = np.empty_like(values, dtype)
    store(values, result)
    return result


def store(result: NDArray[np.float32], target: NDArray[Any]) -> None:
    """Write the result into an array of any taken type."""
    _in_parts(result, target, _narrow if target.dtype == np.uint16 else _copy)


def _in_parts(source: NDArray[Any], target: NDArray[Any], convert: Callable[[Any, Any], None]) -> None:
    """convert(target, source), a part after the other: Python looks for Ctrl-C between them, and numpy within none."""
    if source.size <= PART:
        convert(target, source)
        return
    axis = next(axis for axis, size in enumerate(source.shape) if size > 1)
    middle = source.shape[axis] // 2
    for part in (slice(None, middle), slice(middle, None)):
        at = (*(slice(None),) * axis, part)
        _in_parts(source[at], target[at], convert)


def _copy(target: NDArray[Any], source: NDArray[Any]) -> None:
    target[...] = source


def _widen(target: NDArray[np.float32], source: NDArray[np.uint16]) -> None:
    target[...] = (source.astype(np.uint32) << np.uint32(16)).view(FLOAT32)  # the upper half of a float32


def _narrow(target: NDArray[np.uint16], source: NDArray[np.float32]) -> None:
    bits = source.view(np.uint32)
    upper = bits >> np.uint32(16)
    # Beyond the largest number the carry makes an infinity, as it must; NaNs keep their sign and become quiet.
    nearest = (bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    target[...] = np.where(np.isnan(source), upper | np.uint32(0x40), nearest)


def _from_dlpack(argument: str, x: Any) -> Taken:
    kind = type(x).__name__
    x = _plain_torch(argument, x)
    try:
        device = x.__dlpack_device__()
    except Exception as error:
        raise BufferError(f"{argument} was a {kind} that does not tell where its memory is: {error}") from error
    if not isinstance(device, tuple) or len(device) != 2 or not all(isinstance(part, int) for part in device):
        raise TypeError(f"{argument} was a {kind} whose __dlpack_device__() is {device!r}, must be (type, id)")
    where = int(device[0]), int(device[1])
    if where[0] not in HOST_DEVICES:
        name = f" ({DEVICE_NAMES[where[0]]})" if where[0] in DEVICE_NAMES else ""
        raise ValueError(f"{argument} was on DLPack device {where}{name}, must be in CPU memory: (1, 0)")
    try:
        try:
            capsule = x.__dlpack__(max_version=DLPACK_VERSION)
        except TypeError:  # a producer before DLPack 1.0 does not know the argument
            capsule = x.__dlpack__()
    except Exception as error:
        raise BufferError(f"{argument} was a {kind} that does not give its memory: {error}") from error
    values, _, copied, versioned = _core.import_dlpack(argument, capsule)
    return Taken(values, x, copied=copied, mute=not versioned)


def _plain_torch(argument: str, x: Any) -> Any:
    """``x``, where torch gives its memory as it is; what DLPack would give wrongly, or refuse tersely, is refused."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor):
        return x
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise TypeError(f"{argument} had dtype {x.dtype}, {MUST_HAVE}")
    if x.device.type != "cpu":
        raise ValueError(f"{argument} was on torch's device {x.device}, must be in CPU memory: {argument}.cpu()")
    if x.layout != torch.strided:
        raise BufferError(f"{argument} had layout {x.layout}, must be dense: {argument}.to_dense()")
    if x.is_neg():  # DLPack would give the numbers before the negation
        raise BufferError(f"{argument} was a negation that torch has put off, must be {argument}.resolve_neg()")
    forward_ad = torch.autograd.forward_ad
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None:
        raise BufferError(
            f"{argument} had a tangent, and this function has no derivative in forward mode: "
            f"must be torch.autograd.forward_ad.unpack_dual({argument}).primal"
        )
    if x.requires_grad:
        if torch.is_grad_enabled():
            raise BufferError(
                f"{argument} required a gradient, which this function does not have: must be {argument}.detach(), "
                "within torch.no_grad(), or an argument of sepconv.torch's operators"
            )
        return x.detach()
    return x


def _from_buffer(argument: str, x: Any) -> NDArray[Any]:
    try:
        return np.asarray(memoryview(x))
    except ValueError as error:  # released
        raise ValueError(f"{argument} was a {type(x).__name__} that gives no memory: {error}") from error
    except TypeError:
        if hasattr(x, "__array__") or hasattr(x, "__array_interface__"):
            return np.asarray(x)
    raise TypeError(f"{argument} was a {type(x).__name__}, must be a numpy array, a buffer or an array with __dlpack__")


def give(result: NDArray[np.float32], like: Taken) -> Any:
    """The result as the caller's kind of array and type: an array of the library that ``like`` comes from."""
    numbers = as_type(result, like.values.dtype)
    if like.caller is None:
        return numbers if like.own_type is None else numbers.view(like.own_type)
    from_dlpack = _namespace_function(like.caller)
    if from_dlpack is not None:
        return from_dlpack(_core.DLPackArray(numbers))
    return result if numbers.dtype == np.uint16 else numbers  # numpy has no bfloat16


def _namespace_function(x: Any) -> Any:
    """``from_dlpack`` of the library that x comes from, or None."""
    if hasattr(x, "__array_namespace__"):
        function = getattr(x.__array_namespace__(), "from_dlpack", None)
        if function is not None:
            return function
    for kind in type(x).__mro__:  # a subclass may come from anywhere
        library = sys.modules.get(kind.__module__.partition(".")[0])
        function = getattr(library, "from_dlpack", None)
        if function is not None:
            return function
    return None


def note_change(x: Any) -> None:
    """Tell torch, where x is a tensor, that it is written to: autograd and packed weights go by its version."""
    torch = None if isinstance(x, np.ndarray) else sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        torch.autograd.graph.increment_version(x)


def overlaps_itself(x: NDArray[Any]) -> bool:
    """Whether two elements of x may share memory, as in broadcast views. True for some odd views where none do."""
    if x.flags.c_contiguous:  # so is an empty one
        return False
    reach = x.itemsize
    for stride, size in sorted(
        (abs(stride), size) for stride, size in zip(x.strides, x.shape, strict=True) if size > 1
    ):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False
