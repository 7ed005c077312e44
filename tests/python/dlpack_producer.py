"""A producer of DLPack capsules made by hand, whose every field can be wrong."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import CFUNCTYPE, POINTER, Structure, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

DELETER = CFUNCTYPE(None, c_void_p)
READ_ONLY, COPIED = 1, 2
FLOAT, BFLOAT = 2, 4

_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [c_void_p, ctypes.c_char_p, c_void_p]
_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]


class Tensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class Legacy(Structure):
    _fields_ = [("tensor", Tensor), ("context", c_void_p), ("deleter", DELETER)]


class Versioned(Structure):
    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("context", c_void_p),
        ("deleter", DELETER),
        ("flags", c_uint64),
        ("tensor", Tensor),
    ]


class Producer:
    """Lends ``values``; the arguments change what it says of them. One capsule a producer.

    old: from before DLPack 1.0: it does not know ``max_version``.
    fields: of the tensor; shape and strides (in elements) as sequences, or None for null.
    deleted: how often the consumer called the deleter.
    """

    def __init__(
        self,
        values: NDArray[Any],
        *,
        old: bool = False,
        device: Any = (1, 0),
        flags: int = 0,
        version: tuple[int, int] = (1, 0),
        name: bytes | None = None,
        deleter: bool = True,
        error: BaseException | None = None,
        **fields: Any,
    ) -> None:
        self.values, self.old, self.device, self.flags, self.version = values, old, device, flags, version
        self.name, self.has_deleter, self.error, self.fields = name, deleter, error, fields
        self.deleted = 0
        self.capsule: Any = None
        self.asked: dict[str, Any] = {}

    def __dlpack_device__(self) -> Any:
        if isinstance(self.device, BaseException):
            raise self.device
        return self.device

    def __dlpack__(self, **arguments: Any) -> Any:
        if self.old and arguments:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        if self.error is not None:
            raise self.error
        self.asked = arguments
        return self.lend()

    def lend(self) -> Any:
        """The capsule."""
        values = self.values
        tensor = Tensor(
            data=values.ctypes.data,
            device_type=1,
            ndim=values.ndim,
            code=FLOAT,
            bits=8 * values.itemsize,
            lanes=1,
            shape=_pointer(values.shape),
            strides=_pointer([stride // values.itemsize for stride in values.strides]),
        )
        for field, value in self.fields.items():
            if field in ("shape", "strides"):
                value = None if value is None else _pointer(value)
            setattr(tensor, field, value)
        deleter = DELETER(self._delete) if self.has_deleter else DELETER()
        if self.old:
            self.managed: Legacy | Versioned = Legacy(tensor, None, deleter)
        else:
            self.managed = Versioned(*self.version, None, deleter, self.flags, tensor)
        self.given_name = self.name or (b"dltensor" if self.old else b"dltensor_versioned")
        self.capsule = _new(ctypes.addressof(self.managed), self.given_name, None)
        return self.capsule

    def _delete(self, managed: int) -> None:
        assert managed == ctypes.addressof(self.managed)
        self.deleted += 1

    @property
    def capsule_name(self) -> bytes:
        name: bytes = _name(self.capsule)
        return name


def _pointer(numbers: Sequence[int]) -> Any:
    return (c_int64 * max(len(numbers), 1))(*numbers)


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """By rounding in float64: the nearest of the two neighbours, ties to even."""
    low = (values.view(np.uint32) >> np.uint32(16)).astype(np.uint32)
    down, up = ((low + np.uint32(step) << np.uint32(16)).view(np.float32).astype(np.float64) for step in (0, 1))
    below, above = np.abs(values - down), np.abs(up - values)
    odd = (low & np.uint32(1)).astype(bool)
    return np.where((above < below) | ((above == below) & odd), low + 1, low).astype(np.uint16)
