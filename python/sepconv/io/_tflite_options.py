"""What the operators of a TFLite file have in common: inputs, options, fused activations, where windows lie."""

from __future__ import annotations

from dataclasses import dataclass

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.graph import ActivationName, Padding, Pair, same_padding
from sepconv.io import _tflite_schema as schema
from sepconv.io._tflite_network import Network, Value
from sepconv.io._tflite_schema import Options
from sepconv.io._tflite_tensors import INDEX_TYPES
from sepconv.io.flatbuffer import Table

MAX_STEP = 1 << 20  # of strides, dilations and paddings, as in the compiled core
MAX_WINDOW = 1024  # height or width that a kernel spans, dilation included


@dataclass(frozen=True)
class Operator:
    """One operator of the file, ``where`` it is. An input of -1 is an optional one left out."""

    where: str
    kind: str
    inputs: list[int]
    outputs: list[int]
    options_type: int
    options: Table | None

    def input(self, position: int, what: str) -> int:
        if position >= len(self.inputs) or self.inputs[position] == -1:
            raise ModelFormatError(f"input {position}, {what}, is missing")
        return self.inputs[position]

    def optional_input(self, position: int) -> int | None:
        return None if position >= len(self.inputs) or self.inputs[position] == -1 else self.inputs[position]

    @property
    def output(self) -> int:
        return self.outputs[0]

    def options_of(self, expected: Options) -> Table:
        if self.options is None or self.options_type != expected:
            raise ModelFormatError(f"the options are of type {self.options_type}; they must be {expected.value}")
        return self.options

    def optional_options(self, expected: Options) -> Table | None:
        """For operators whose options all have defaults; many writers leave them out."""
        return None if self.options is None or self.options_type == Options.NONE else self.options_of(expected)


@dataclass(frozen=True)
class Window:
    """Where a kernel's windows lie, by TensorFlow's rules: padding made explicit, and the output's height and width."""

    stride: Pair
    dilation: Pair
    padding: Padding
    extent: Pair


def image_input(network: Network, operator: Operator) -> Value:
    """Input 0, which must be [n, h, w, c]."""
    source = network.value(operator.input(0, "the activation"))
    if len(source.shape) != 4:
        raise UnsupportedError(f"the input has the shape {list(source.shape)}; it must be [n, h, w, c]")
    return source


def small_integers(network: Network, operator: Operator, position: int, what: str, max_size: int) -> list[int]:
    """A small constant of integers, flattened."""
    tensor = network.constant(operator.input(position, what))
    values = tensor.values(what, INDEX_TYPES)
    if values.size > max_size:
        raise ModelFormatError(f"{what} has {values.size} elements; it must have at most {max_size}")
    return [int(value) for value in values.reshape(-1)]


def pair(options: Table, height_field: int, width_field: int, what: str, default: int = 0) -> Pair:
    height, width = (options.integer(field, "i", default) for field in (height_field, width_field))
    if height < 1 or width < 1:
        raise ModelFormatError(f"{what} is ({height}, {width}); both must be at least 1")
    if max(height, width) > MAX_STEP:
        raise UnsupportedError(f"{what} is ({height}, {width}); both can be at most {MAX_STEP}")
    return height, width


def place_windows(
    network: Network, source: Value, kernel: Pair, stride: Pair, dilation: Pair, padding_code: int
) -> Window:
    """SAME gives ceil(size / stride) outputs and pads as little as that needs, an odd pixel after; VALID pads 0."""
    rule = schema.name_of(schema.PADDINGS, padding_code)
    if rule not in schema.PADDINGS:
        raise ModelFormatError(f"the padding is {rule}; it must be one of {', '.join(schema.PADDINGS)}")
    sides: list[Pair] = []
    extents: list[int] = []
    for size, taps, step, spread in zip(source.shape[1:3], kernel, stride, dilation, strict=True):
        span = (taps - 1) * spread + 1
        if span > MAX_WINDOW:
            raise UnsupportedError(f"the kernel spans {span} rows or columns; at most {MAX_WINDOW} are possible")
        side = same_padding(size, taps, step, spread) if rule == "SAME" else (0, 0)
        extent = (size + sum(side) - span) // step + 1
        if extent < 1:
            raise ModelFormatError(f"the kernel spans {span} rows or columns and the input has only {size}")
        sides.append(side)
        extents.append(extent)
    network.check_size(padded_extents(source, (sides[0], sides[1])))
    return Window(stride, dilation, (sides[0], sides[1]), (extents[0], extents[1]))


def padded_extents(source: Value, padding: Padding) -> tuple[int, int, int]:
    _, height, width, channels = source.shape
    return height + sum(padding[0]), width + sum(padding[1]), channels


def fused_activation(network: Network, operator: Operator, options: Table | None, field: int) -> ActivationName:
    """What the options name; where they name none, what the output's quantised range does to values."""
    named = named_activation(options, field)
    return network.tensors.get(operator.output).implied_activation() if named == "none" else named


def named_activation(options: Table | None, field: int) -> ActivationName:
    name = "NONE" if options is None else schema.name_of(schema.FUSED_ACTIVATIONS, options.integer(field, "b"))
    if name not in schema.SUPPORTED_ACTIVATIONS:
        raise UnsupportedError(
            f"the fused activation is {name}; it must be one of {', '.join(schema.SUPPORTED_ACTIVATIONS)}"
        )
    return schema.SUPPORTED_ACTIVATIONS[name]
