"""The input, and the layers without weights that compute: sums, products, poolings, activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sepconv.graph.base import (
    INPUT_DTYPES,
    NO_PADDING,
    ActivationName,
    Layer,
    Padding,
    Pair,
    Shape,
    is_choice,
    is_float32,
    is_integer,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Input(Layer):
    """The network's input, [n, h, w, c] (or [n, c] given as (1, 1, c)).

    ``dtype`` other than float32 names the integer type that is accepted besides float32, whose values mean
    scale * (q - zero_point).
    """

    inputs: tuple[str, ...] = ()
    shape: Shape
    dtype: str = "float32"
    scale: float = 1.0
    zero_point: int = 0
    input_count: ClassVar[int | None] = 0

    def _output_shape(self, *inputs: Shape) -> Shape:
        if not is_choice(self.dtype, INPUT_DTYPES):
            self._reject("dtype", repr(self.dtype), "one of " + ", ".join(INPUT_DTYPES))
        if not (is_float32(self.scale) and self.scale > 0):
            self._reject("scale", repr(self.scale), "a positive number, finite in float32")
        if not (is_integer(self.zero_point) and is_float32(self.zero_point)):
            self._reject("zero_point", repr(self.zero_point), "an integer, finite in float32")
        return self.shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Layer):
    """activation(a + b), both of one shape."""

    activation: ActivationName = "none"
    input_count: ClassVar[int | None] = 2

    def _output_shape(self, *inputs: Shape) -> Shape:
        a, b = inputs
        if a != b:
            self._reject("second input's shape", b, f"the first's {a}")
        self._check_activation(self.activation)
        return a


@dataclass(frozen=True, kw_only=True, eq=False)
class Mul(Layer):
    """activation(a * b): b has a's shape, or is (1, 1, c) and scales a's channels."""

    activation: ActivationName = "none"
    input_count: ClassVar[int | None] = 2

    def _output_shape(self, *inputs: Shape) -> Shape:
        a, b = inputs
        if b not in (a, (1, 1, a[2])):
            self._reject("second input's shape", b, f"the first's {a} or {(1, 1, a[2])}")
        self._check_activation(self.activation)
        return a


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool2d(Layer):
    """What poolings share. Each window must hold at least one element that is not padding."""

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    activation: ActivationName = "none"

    def _output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        positions = self._window_outputs(x, self.kernel, self.stride, self.padding)
        if any(max(pads) >= size for pads, size in zip(self.padding, self.kernel, strict=True)):
            self._reject(
                "padding", self.padding, f"less than the kernel {self.kernel}, so that no window lies wholly in it"
            )
        self._check_activation(self.activation)
        return (*positions, x[2])


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePool2d(Pool2d):
    include_padding: bool = False  # whether padded zeros count in the divisor

    def _output_shape(self, *inputs: Shape) -> Shape:
        if not isinstance(self.include_padding, bool | np.bool_):
            self._reject("include_padding", repr(self.include_padding), "True or False")
        return super()._output_shape(*inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool2d(Pool2d):
    """Padding never wins, whatever the input's sign."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GlobalAveragePool(Layer):
    """Mean over height and width; the result is (1, 1, c)."""

    def _output_shape(self, *inputs: Shape) -> Shape:
        return (1, 1, inputs[0][2])


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation(Layer):
    activation: ActivationName

    def _output_shape(self, *inputs: Shape) -> Shape:
        self._check_activation(self.activation)
        return inputs[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Softmax(Layer):
    """softmax(beta * x) over channels."""

    beta: float = 1.0

    def _output_shape(self, *inputs: Shape) -> Shape:
        if not is_float32(self.beta):
            self._reject("beta", repr(self.beta), "a number, finite in float32")
        return inputs[0]
