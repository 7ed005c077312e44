"""The small classes around :class:`sepconv.onnx.session.InferenceSession`, named and shaped as onnxruntime's."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sepconv.graph.base import is_integer
from sepconv.onnx.ir import Array

CPU = "CPUExecutionProvider"
SIZE_ENTRY = "sepconv.size."  # of config_entries; the name of an open size follows

# What onnxruntime calls the types of tensors.
_TYPE_NAMES = {
    "float32": "float", "float64": "double", "float16": "float16", "int8": "int8", "uint8": "uint8", "int16": "int16",
    "uint16": "uint16", "int32": "int32", "uint32": "uint32", "int64": "int64", "uint64": "uint64", "bool": "bool",
}  # fmt: skip


class GraphOptimizationLevel(enum.IntEnum):
    """Below ORT_ENABLE_BASIC no pass runs; above, all do."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(enum.IntEnum):
    """Accepted; nodes run one after the other, each on all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


@dataclass(slots=True)
class SessionOptions:
    """``intra_op_num_threads`` (0: :func:`sepconv.num_threads`) and ``graph_optimization_level`` have an effect.

    The rest is taken so that programs need no change.
    """

    intra_op_num_threads: int = 0
    inter_op_num_threads: int = 0
    graph_optimization_level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_ENABLE_ALL
    execution_mode: ExecutionMode = ExecutionMode.ORT_SEQUENTIAL
    enable_cpu_mem_arena: bool = True
    enable_mem_pattern: bool = True
    enable_mem_reuse: bool = True
    enable_profiling: bool = False
    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    optimized_model_filepath: str = ""
    use_deterministic_compute: bool = True
    config_entries: dict[str, str] = field(default_factory=dict)

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """Say how large an open size of this name is."""
        if size < 1:
            raise ValueError(f"size is {size}, must be at least 1")
        self.config_entries[SIZE_ENTRY + name] = str(int(size))

    def threads(self) -> int | None:
        """What ``intra_op_num_threads`` asks for. Raises ValueError."""
        count = self.intra_op_num_threads
        if not is_integer(count) or count < 0:
            raise ValueError(f"intra_op_num_threads is {count!r}, must be a whole number, 0 for all")
        return int(count) or None

    def size(self, name: str) -> int | None:
        """What an entry says of the open size of this name. Raises ValueError."""
        text = self.config_entries.get(SIZE_ENTRY + name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and 0 < len(text) < 11 and int(text) > 0):
            raise ValueError(f"the session entry {SIZE_ENTRY + name!r} is {text!r}, must be a positive whole number")
        return int(text)

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Set an entry: ``sepconv.external_data`` and ``sepconv.size.NAME`` have an effect."""
        self.config_entries[key] = value

    def get_session_config_entry(self, key: str) -> str:
        """The entry that was set. Raises KeyError where none was."""
        return self.config_entries[key]


@dataclass(slots=True)
class RunOptions:
    """Accepted; nothing in it has an effect."""

    log_severity_level: int = -1
    log_verbosity_level: int = 0
    logid: str = ""
    terminate: bool = False
    only_execute_path_to_fetches: bool = False
    config_entries: dict[str, str] = field(default_factory=dict)

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Set an entry, which has no effect."""
        self.config_entries[key] = value

    def get_run_config_entry(self, key: str) -> str:
        """The entry that was set. Raises KeyError where none was."""
        return self.config_entries[key]


@dataclass(frozen=True)
class NodeArg:
    """An input or output: its name, its type, "tensor(float)", and its shape with names or None for open sizes."""

    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True)
class ModelMetadata:
    """What the file says about itself."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]


class OrtValue:
    """An array, as onnxruntime wraps it."""

    def __init__(self, array: Array) -> None:
        self._array = array

    @staticmethod
    def ortvalue_from_numpy(array: Array, device_type: str = "cpu", device_id: int = 0) -> OrtValue:
        """Of an array, without a copy where it is contiguous. Raises ValueError for another device than the CPU."""
        check_device(device_type, device_id)
        return OrtValue(np.ascontiguousarray(array))

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], element_type: Any = np.float32, device_type: str = "cpu", device_id: int = 0
    ) -> OrtValue:
        """Of zeros. ``element_type``: NumPy's, or ONNX's number of it."""
        check_device(device_type, device_id)
        return OrtValue(np.zeros(tuple(shape), element_dtype(element_type)))

    def numpy(self) -> Array:
        """The array itself."""
        return self._array

    def shape(self) -> list[int]:
        """Its sizes."""
        return list(self._array.shape)

    def data_type(self) -> str:
        """Its type as onnxruntime calls it, "tensor(float)"."""
        return type_name(self._array.dtype)

    def element_type(self) -> int:
        """ONNX's number of its elements' type."""
        import onnx

        return int(onnx.helper.np_dtype_to_tensor_dtype(self._array.dtype))

    def data_ptr(self) -> int:
        """The address of its first element."""
        return int(self._array.ctypes.data)

    def device_name(self) -> str:
        """Always "cpu"."""
        return "cpu"

    def is_tensor(self) -> bool:
        """Always True."""
        return True

    def is_tensor_sequence(self) -> bool:
        """Always False."""
        return False

    def has_value(self) -> bool:
        """Always True."""
        return True

    def update_inplace(self, array: Array) -> None:
        """Write other values of the same shape into its memory."""
        self._array[...] = array


def type_name(dtype: np.dtype[Any] | None) -> str:
    """What onnxruntime calls a tensor of this type."""
    if dtype is None:
        return "unknown"
    return f"tensor({'string' if dtype.hasobject else _TYPE_NAMES.get(dtype.name, dtype.name)})"


def element_dtype(element_type: Any) -> np.dtype[Any]:
    """NumPy's type for its own, or for ONNX's number of it. Raises ValueError."""
    import onnx

    try:
        if is_integer(element_type):
            element_type = onnx.helper.tensor_dtype_to_np_dtype(int(element_type))
        dtype: np.dtype[Any] = np.dtype(element_type)
        return dtype
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"element_type is {element_type!r}, must be a type of NumPy or ONNX's number of one") from None


def check_device(device_type: str, device_id: int) -> None:
    if device_type.lower() != "cpu" or device_id != 0:
        raise ValueError(f"device is {device_type!r} {device_id}, must be 'cpu' 0")


def get_available_providers() -> list[str]:
    """The names that ``providers`` may have without a warning: the CPU's alone."""
    return [CPU]


def get_all_providers() -> list[str]:
    """The same as :func:`get_available_providers`."""
    return [CPU]


def get_device() -> str:
    """What models run on: always "CPU"."""
    return "CPU"


def set_default_logger_severity(severity: int) -> None:
    """Accepted: sepconv logs nothing."""
