"""Reads torch checkpoints (.pth, .pt) without torch: the zip format, and the legacy one from before torch 1.6.

The files need not be trusted: what they ask for besides tensors in dicts is refused, and nothing of theirs is run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.io.arrays import STORED_DTYPES, Array, MemoryBudget, checked_size, flat_view, widen_half, without_prefixes
from sepconv.io.files import Source, describe, identify, naming, open_source
from sepconv.io.pickle_machine import PickleMachine, TensorRecord
from sepconv.io.zip_archive import Member, read_members

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

# Where training scripts put the weights, in order of preference: averaged weights are those that are evaluated.
_WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "net", "module", "params")
_MAX_WRAPPERS = 4  # one inside another


def read_torch_checkpoint(source: str | os.PathLike[str] | bytes) -> dict[str, Array]:
    """The tensors of a checkpoint, given by path or as bytes, by name.

    Of a checkpoint that holds more than a state dict, that under "state_dict", "model" or the like is taken, an
    averaged one (EMA) rather than the last; prefixes "module." and "_orig_mod." that all names share are dropped, and
    so is what is not a tensor. Arrays are read-only views of the file; float16 and bfloat16 become float32.

    Raises:
        ModelFormatError: not a checkpoint, damaged, or asking for anything but tensors in dicts.
        UnsupportedError: big-endian or compressed storages, a tensor whose negation is put off.
    """
    return read_torch_weights(open_source(source))


def read_torch_weights(source: Source) -> dict[str, Array]:
    """:func:`read_torch_checkpoint` of an open file."""
    data = source.data
    with naming(source.name):
        kind = identify(data)
        if kind == "zip":
            return read_zip_checkpoint(data, read_members(data))
        if kind == "pickle":
            return _read_legacy(data)
        raise ModelFormatError(f"not a torch checkpoint: the file is {describe(data)}")


def read_zip_checkpoint(data: memoryview, members: dict[str, Member]) -> dict[str, Array]:
    """The zip format: a pickle NAME/data.pkl, and each storage as NAME/data/KEY."""
    pickles = [name for name in members if name.count("/") <= 1 and f"/{name}".endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ModelFormatError(f"the archive has {len(pickles)} members data.pkl; a torch checkpoint has one")
    folder = pickles[0][: -len("data.pkl")]
    byte_order = members.get(folder + "byteorder")
    if byte_order is not None and bytes(byte_order.view()[:16]).strip() != b"little":
        raise UnsupportedError("the storages are not little-endian")
    machine = PickleMachine(members[pickles[0]].view())
    root = machine.run()
    storages: dict[str, memoryview] = {}
    for key in machine.storages:
        member = members.get(f"{folder}data/{key}")
        if member is None:
            raise ModelFormatError(f"the storage {key[:40]!r} is missing")
        storages[key] = member.view()
    return _tensors(root, machine, storages, MemoryBudget(len(data)))


def _read_legacy(data: memoryview) -> dict[str, Array]:
    """Pickles one after the other: a magic number, a version, facts on the machine, the object, the storages' keys;
    then each storage as its element count in 64 bits and its bytes."""

    def run(position: int) -> tuple[Any, PickleMachine]:
        machine = PickleMachine(data, position)
        return machine.run(), machine

    magic, machine = run(0)
    if type(magic) is not int or magic != LEGACY_MAGIC:
        raise ModelFormatError("the file is a pickle, but not of a torch checkpoint")
    version, machine = run(machine.position)
    if type(version) is not int or version != LEGACY_PROTOCOL:
        raise UnsupportedError(f"the checkpoint's version is not {LEGACY_PROTOCOL}")
    system, machine = run(machine.position)
    if type(system) is not dict or system.get("little_endian") is not True:
        raise UnsupportedError("the storages are not little-endian")
    root, tensor_machine = run(machine.position)
    keys, machine = run(tensor_machine.position)
    if type(keys) is not list or any(type(key) is not str for key in keys) or len(set(keys)) != len(keys):
        raise ModelFormatError("the list of storages is malformed")
    position = machine.position
    storages: dict[str, memoryview] = {}
    for key in keys:
        storage = tensor_machine.storages.get(key)
        if storage is None:
            raise ModelFormatError(f"the storage {key[:40]!r} belongs to no tensor")
        start = position + 8
        end = start + storage.size * np.dtype(STORED_DTYPES[storage.dtype_name]).itemsize
        if end > len(data) or int.from_bytes(data[position:start], "little") != storage.size:
            raise ModelFormatError(f"the storage {key[:40]!r} has not the {storage.size} elements that it must have")
        storages[key] = data[start:end]
        position = end
    if len(storages) != len(tensor_machine.storages):
        raise ModelFormatError("storages are missing at the file's end")
    return _tensors(root, tensor_machine, storages, MemoryBudget(len(data)))


def _tensors(
    root: Any, machine: PickleMachine, contents: dict[str, memoryview], budget: MemoryBudget
) -> dict[str, Array]:
    storages: dict[str, Array] = {}
    for key, storage in machine.storages.items():
        byte_count = storage.size * np.dtype(STORED_DTYPES[storage.dtype_name]).itemsize
        if byte_count != len(contents[key]):
            raise ModelFormatError(
                f"the storage {key[:40]!r} has {len(contents[key])} bytes; {storage.size} elements of type "
                f"{storage.dtype_name} need {byte_count}"
            )
        storages[key] = flat_view(contents[key], STORED_DTYPES[storage.dtype_name])
    records = _state_dict(root)
    return {name: _array(name, record, storages, budget) for name, record in records.items()}


def _array(name: str, record: TensorRecord, storages: dict[str, Array], budget: MemoryBudget) -> Array:
    storage = storages[record.storage.key]
    what = f"the tensor {name[:80]!r}"
    size = checked_size(record.shape, what)
    # A stride along an extent of 1 is never taken, and may be anything.
    strides = tuple(stride if extent > 1 else 0 for extent, stride in zip(record.shape, record.strides, strict=True))
    last = record.offset + sum((extent - 1) * stride for extent, stride in zip(record.shape, strides, strict=True))
    # More elements than the storage has: expanded along a stride of 0, which a small file could do without end.
    # One without elements may begin anywhere: a part of an empty one begins behind its storage.
    if size > 0 and (last >= storage.size or size > storage.size):
        raise ModelFormatError(f"{what} of shape {list(record.shape)} passes its storage of {storage.size} elements")
    if size == 0:
        view = np.empty(record.shape, storage.dtype)
    else:
        byte_strides = tuple(stride * storage.itemsize for stride in strides)
        view = np.ndarray(record.shape, storage.dtype, storage, record.offset * storage.itemsize, byte_strides)
    return widen_half(view, record.storage.dtype_name, budget, what)


def _state_dict(root: Any) -> Mapping[str, TensorRecord]:
    """The dict of tensors inside what a checkpoint holds."""
    records = _find_tensors(root, _MAX_WRAPPERS, set())
    if not records:
        raise ModelFormatError("the checkpoint holds no dict of tensors, neither at its top nor under a usual name")
    return without_prefixes(records)


def _find_tensors(candidate: Any, depth: int, seen: set[int]) -> dict[str, TensorRecord]:
    """Wrapped tensors before those beside the wrapper: scripts save a best accuracy as a tensor too."""
    if type(candidate) is not dict or depth == 0 or id(candidate) in seen:
        return {}
    seen.add(id(candidate))  # a hostile dict can hold itself
    for name in _WRAPPERS:
        records = _find_tensors(candidate.get(name), depth - 1, seen)
        if records:
            return records
    return {name: value for name, value in candidate.items() if type(name) is str and type(value) is TensorRecord}
