"""The compiled core. Not a public interface: use the names of ``sepconv``."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import nd as nd
from . import ref as ref

__version__: str
MAX_THREADS: int

_Float32 = NDArray[np.float32]
_Pair = tuple[int, int]
_Padding = tuple[_Pair, _Pair]
_Shape = tuple[int, int, int]
_BatchNorm = tuple[_Float32, _Float32, _Float32, _Float32, float]

def isa() -> str: ...
def supported_isas() -> list[str]: ...
def vector_lanes() -> int: ...
def set_num_threads(n: int) -> None: ...
def num_threads() -> int: ...
def default_threads() -> int: ...

# Operations or bytes a second, of all threads together: a number for each of many short bursts.
def measure_fma(isa: str, threads: int, seconds: float) -> list[float]: ...
def measure_read(isa: str, bytes: int, threads: int, seconds: float) -> list[float]: ...
def l2_bytes() -> int: ...

# Gradients: x and dy NHWC, contiguous; weights as torch holds them. needs: of x, of weight and bias; else None.
def depthwise_grad(
    x: _Float32,
    weight: _Float32,
    dy: _Float32,
    stride: _Pair,
    padding: _Padding,
    dilation: _Pair,
    needs: tuple[bool, bool],
    threads: int,
) -> tuple[_Float32 | None, _Float32 | None, _Float32 | None]: ...

# x [pixels, C], weight [N, C], dy [pixels, N]; out: for the gradient of x.
def pointwise_grad(
    x: _Float32, weight: _Float32, dy: _Float32, needs: tuple[bool, bool], threads: int, out: _Float32 | None = None
) -> tuple[_Float32 | None, _Float32 | None, _Float32 | None]: ...

# [n, rows, columns] as [n, columns, rows].
def transposed(x: _Float32, threads: int, out: _Float32 | None = None) -> _Float32: ...

# For arrays of float32 or of float64. out: may be value or dy.
def activation_grad(
    activation: str, value: NDArray[Any], dy: NDArray[Any], threads: int, out: NDArray[Any] | None = None
) -> NDArray[Any]: ...

_Stage = tuple["Weights", _Pair, _Padding, _Pair, str]  # stride, padding, dilation, activation

# The eager operators: arrays in NHWC order, of any strides.
class Weights:
    def __init__(
        self, kind: str, weight: _Float32, bias: _Float32 | None, groups: int, pixels: int = 0, isa: str | None = None
    ) -> None: ...

# A new array that begins on a cache line, unless it is small.
def empty(shape: tuple[int, ...]) -> NDArray[np.float32]: ...

# Whether equal arguments are of the same types, in tuples too.
def same_types(a: object, b: object) -> bool: ...

class Block:
    def __init__(self, shape: _Shape, stages: Sequence[_Stage], isa: str | None = None) -> None: ...
    def call(
        self,
        x: object,
        addend: object,
        out: object,
        channels_first: bool,
        threads: int,
        key: tuple[Any, ...],
        checked: tuple[Any, ...],
    ) -> _Float32 | None: ...
    def call_into(self, x: _Float32, addend: _Float32 | None, out: _Float32, threads: int) -> None: ...
    @property
    def kernels(self) -> list[str]: ...

# A DLPack capsule's array, bfloat16 as uint16: (values, is bfloat16, its producer copied, its producer has DLPack 1).
def import_dlpack(argument: str, capsule: object) -> tuple[NDArray[Any], bool, bool, bool]: ...

# An array for other libraries' from_dlpack; one of uint16 holds bfloat16.
class DLPackArray:
    def __init__(self, array: NDArray[Any]) -> None: ...
    @staticmethod
    def __dlpack_device__() -> tuple[int, int]: ...
    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...  # a capsule

class Graph:
    def __init__(self, isa: str | None = None, weight_bytes: int = 0) -> None: ...
    def input(self, name: str, shape: _Shape) -> int: ...
    def conv2d(
        self,
        name: str,
        x: int,
        weight: _Float32,
        bias: _Float32 | None,
        batch_norm: _BatchNorm | None,
        stride: _Pair,
        padding: _Padding,
        dilation: _Pair,
        activation: str,
    ) -> int: ...
    def depthwise_conv2d(
        self,
        name: str,
        x: int,
        weight: _Float32,
        bias: _Float32 | None,
        batch_norm: _BatchNorm | None,
        stride: _Pair,
        padding: _Padding,
        dilation: _Pair,
        activation: str,
    ) -> int: ...
    def fully_connected(self, name: str, x: int, weight: _Float32, bias: _Float32 | None, activation: str) -> int: ...
    def add(self, name: str, a: int, b: int, activation: str) -> int: ...
    def mul(self, name: str, a: int, b: int, activation: str) -> int: ...
    def average_pool2d(
        self,
        name: str,
        x: int,
        kernel: _Pair,
        stride: _Pair,
        padding: _Padding,
        include_padding: bool,
        activation: str,
    ) -> int: ...
    def max_pool2d(
        self, name: str, x: int, kernel: _Pair, stride: _Pair, padding: _Padding, activation: str
    ) -> int: ...
    def global_average_pool(self, name: str, x: int) -> int: ...
    def activation(self, name: str, x: int, activation: str) -> int: ...
    def prelu(self, name: str, x: int, slope: NDArray[Any]) -> int: ...
    def layer_norm(
        self, name: str, x: int, scale: NDArray[Any] | None, bias: NDArray[Any] | None, epsilon: float
    ) -> int: ...
    def softmax(self, name: str, x: int, beta: float) -> int: ...
    def pad(self, name: str, x: int, padding: _Padding) -> int: ...
    def reshape(self, name: str, x: int, shape: _Shape) -> int: ...
    def concat(self, name: str, inputs: Sequence[int]) -> int: ...
    def channel_slice(self, name: str, x: int, begin: int, end: int) -> int: ...
    def channel_shuffle(self, name: str, x: int, groups: int) -> int: ...
    def upsample(self, name: str, x: int, size: _Pair) -> int: ...
    def output(self, x: int) -> None: ...
    def shape(self, node: int) -> _Shape: ...

class OperatorInfo(NamedTuple):
    step: int
    layer: str
    fused: list[str]
    kernel: str
    input_shape: _Shape
    output_shape: _Shape
    macs: int
    weight_bytes: int

class Plan:
    def __init__(self, graph: Graph, fusion: str = "automatic") -> None: ...
    def run(self, inputs: Sequence[_Float32], threads: int) -> list[_Float32]: ...
    def call(self, x: object, threads: object, vector: bool) -> Any | None: ...
    def run_timed(self, inputs: Sequence[_Float32], threads: int) -> tuple[list[_Float32], list[float]]: ...
    def describe(self) -> list[OperatorInfo]: ...
    @property
    def arena_bytes(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def tail(self) -> int: ...
    GROUP: ClassVar[int]

class ChannelsFirst:
    def __init__(self, plan: Plan, results: Sequence[tuple[int, Sequence[int], bool]]) -> None: ...
    def run(self, inputs: Sequence[_Float32], threads: int) -> list[_Float32]: ...
