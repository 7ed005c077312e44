"""What all layers share: names, inputs, checks of arguments, and the shape of the output."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn, get_args

import numpy as np
from numpy.typing import ArrayLike

ActivationName = Literal["none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu", "gelu", "gelu_tanh"]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
Shape = tuple[int, int, int]

NO_PADDING: Padding = ((0, 0), (0, 0))
INPUT_DTYPES = ("float32", "uint8", "int8", "int16")
FLOAT32_MAX = float(np.finfo(np.float32).max)
MAX_ELEMENTS = 2**31 - 1  # of one image's activation; also the largest stride, dilation, padding and window


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """Base of all layers. Layers compare by identity: arrays have no plain equality.

    Lists of sizes become tuples and NumPy's integers Python's, which compare and add up as the types say.
    """

    name: str
    inputs: tuple[str, ...]
    input_count: ClassVar[int | None] = 1  # None: any, but at least one

    def __post_init__(self) -> None:
        for argument in ("shape", "kernel", "stride", "padding", "dilation", "size", "begin", "end", "groups"):
            if isinstance(value := getattr(self, argument, None), list | tuple | np.integer):
                object.__setattr__(self, argument, _as_sizes(value))

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the output for inputs of these shapes. ValueError names the layer and the argument that is wrong."""
        fits = len(inputs) >= 1 if self.input_count is None else len(inputs) == self.input_count
        if not fits:
            self._reject("number of inputs", len(inputs), self.input_count or "at least 1")
        shapes = [self._check_shape("input shape", shape) for shape in inputs]
        return self._check_shape("output shape", self._output_shape(*shapes))

    def macs(self, input_shapes: Sequence[Shape], output_shape: Shape) -> int:
        """Multiply-adds for one image. As in the papers, only convolutions and fully connected layers count."""
        return 0

    def weight_count(self) -> int:
        """Elements of ``weight`` alone, which is what the MobileNets paper counts as parameters."""
        return 0

    def params(self) -> int:
        """Trained parameters: weight, bias, and a batch norm's gamma and beta."""
        return 0

    def _output_shape(self, *inputs: Shape) -> Shape:
        raise NotImplementedError(f"{type(self).__name__} does not define its output's shape")

    def _reject(self, argument: str, was: object, must_be: object) -> NoReturn:
        raise ValueError(f"layer {self.name!r} ({type(self).__name__}): {argument} was {was}, must be {must_be}")

    def _check_shape(self, argument: str, shape: Any) -> Shape:
        if not are_integers(shape, 3, minimum=1):
            self._reject(argument, shape, f"(height, width, channels), integers from 1 to {MAX_ELEMENTS}")
        height, width, channels = map(int, shape)
        if height * width * channels > MAX_ELEMENTS:
            self._reject(argument, shape, f"of at most {MAX_ELEMENTS} elements")
        return height, width, channels

    def _check_array(self, argument: str, array: ArrayLike, **sizes: int | None) -> tuple[int, ...]:
        """Return the array's shape, which must have these named dimensions (None: any size of at least 1)."""
        layout = f"[{', '.join(sizes)}]"
        try:
            shape = array_shape(array)
        except (TypeError, ValueError):
            self._reject(argument, f"a {type(array).__name__}", f"an array {layout}")
        expected = list(sizes.values())
        fits = [n >= 1 and m in (None, n) for n, m in zip(shape, expected, strict=False)]
        if len(shape) != len(expected) or not all(fits):
            known = ", ".join("any" if m is None else str(m) for m in expected)
            self._reject(f"{argument} shape", list(shape), f"{layout} = [{known}]")
        return shape

    def _check_activation(self, activation: str) -> None:
        if not is_choice(activation, get_args(ActivationName)):
            self._reject("activation", repr(activation), "one of " + ", ".join(get_args(ActivationName)))

    def _check_padding(self, padding: Any) -> None:
        if not (is_sequence(padding, 2) and all(are_integers(side, 2, minimum=0) for side in padding)):
            self._reject("padding", padding, f"((top, bottom), (left, right)), integers from 0 to {MAX_ELEMENTS}")

    def _window_outputs(self, x: Shape, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = (1, 1)) -> Pair:
        """Check a sliding window's arguments; return how many positions it has: (vertical, horizontal)."""
        for argument, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
            if not are_integers(value, 2, minimum=1):
                self._reject(argument, value, f"(vertical, horizontal), integers from 1 to {MAX_ELEMENTS}")
        self._check_padding(padding)
        positions = []
        for axis, side in enumerate(("height", "width")):
            padded = x[axis] + sum(padding[axis])
            extent = (kernel[axis] - 1) * dilation[axis] + 1
            if padded < extent:
                self._reject(f"padded input {side}", padded, f"at least the window's {extent}")
            positions.append((padded - extent) // stride[axis] + 1)
        return positions[0], positions[1]


def array_shape(array: ArrayLike) -> tuple[int, ...]:
    """Shape of an array-like, without making an array of one that has a ``shape``."""
    shape = getattr(array, "shape", None)
    return tuple(int(n) for n in (np.shape(array) if shape is None else shape))


def reject_masked(what: str, array: Any) -> None:
    """TypeError for a masked array, whose mask would be ignored."""
    masked = sys.modules.get("numpy.ma")  # which takes 20 ms to import, and nobody has such an array without
    if masked is not None and isinstance(array, masked.MaskedArray):
        raise TypeError(f"{what} was a masked array, must be one without a mask: fill it first")


def is_name(value: Any) -> bool:
    """Whether it is a string that holds something, and that UTF-8 can say: no half of a surrogate pair."""
    if not isinstance(value, str) or value == "":
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def new_name(wanted: str, taken: set[str], spelled: Callable[[str], str] = str) -> str:
    """``wanted``, as ``spelled`` writes it, or with underscores more where that is taken; it is taken from then on."""
    while (name := spelled(wanted)) in taken:
        wanted += "_"
    taken.add(name)
    return name


def is_choice(value: Any, choices: Sequence[str]) -> bool:
    """Whether it is one of these strings, and no array that equals one."""
    return isinstance(value, str) and value in choices


def is_integer(value: Any) -> bool:
    """Whether it is an integer of Python's or numpy's, and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether it is a real number of Python's or numpy's that a float can be, and no truth value."""
    if not is_integer(value) and not isinstance(value, (float, np.floating)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def is_float32(value: Any) -> bool:
    """Whether it is such a number, and finite in float32 too."""
    return is_finite(value) and abs(float(value)) <= FLOAT32_MAX


def _as_sizes(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_as_sizes, value))
    return int(value) if isinstance(value, np.integer) else value


def is_sequence(value: Any, length: int) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == length


def are_integers(value: Any, count: int, *, minimum: int) -> bool:
    if not is_sequence(value, count) or not all(map(is_integer, value)):
        return False
    return bool(minimum <= min(value) and max(value) <= MAX_ELEMENTS)
