"""Operators over arrays of any rank. Not a public interface."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Array = NDArray[Any]
_Float32 = NDArray[np.float32]
_Sizes = Sequence[int]

class PackedMatrix:
    def __init__(self, matrix: _Float32, bias: _Float32 | None = None) -> None: ...
    @property
    def k(self) -> int: ...
    @property
    def n(self) -> int: ...

def copy(to: _Array, source: _Array, threads: int) -> None: ...
def dense(x: _Array, threads: int) -> _Array: ...
def gather(x: _Array, index: Sequence[Sequence[int]], fill: _Array, threads: int) -> _Array: ...
def select(condition: _Array, a: _Array, b: _Array, threads: int) -> _Array: ...
def unary(name: str, x: _Array, a: float, b: float, threads: int) -> _Float32: ...
def has_unary(name: str) -> bool: ...
def binary(name: str, a: _Array, b: _Array, threads: int) -> _Array: ...
def cast(x: _Array, dtype: np.dtype[Any], threads: int) -> _Array: ...
def matmul(a: _Float32, b: PackedMatrix, threads: int) -> _Float32: ...
def products(a: _Float32, b: _Float32, threads: int) -> _Float32: ...
def conv(
    x: _Float32,
    weights: _Float32,
    groups: int,
    out: _Sizes,
    kernel: _Sizes,
    stride: _Sizes,
    begin: _Sizes,
    end: _Sizes,
    dilation: _Sizes,
    threads: int,
) -> _Float32: ...
def conv_transpose(
    x: _Float32,
    groups: Sequence[PackedMatrix],
    bias: _Float32 | None,
    in_: _Sizes,
    out: _Sizes,
    kernel: _Sizes,
    stride: _Sizes,
    begin: _Sizes,
    end: _Sizes,
    dilation: _Sizes,
    threads: int,
) -> _Float32: ...
def pool(
    kind: str,
    x: _Array,
    out: _Sizes,
    kernel: _Sizes,
    stride: _Sizes,
    begin: _Sizes,
    end: _Sizes,
    dilation: _Sizes,
    with_indices: bool,
    threads: int,
) -> Any: ...
def reduce(name: str, x: _Array, threads: int) -> _Array: ...
def softmax(x: _Float32, logarithm: bool, threads: int) -> _Float32: ...
def normalize(
    x: _Float32,
    epsilon: float,
    center: bool,
    threads: int,
    scale: _Float32 | None = None,
    bias: _Float32 | None = None,
    run: int = 1,
) -> tuple[_Float32, _Float32, _Float32]: ...
def resample(x: _Float32, index: NDArray[np.int64], weight: _Float32, threads: int) -> _Float32: ...
