"""Layers that move elements and compute nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from sepconv.graph.base import Layer, Padding, Pair, Shape, are_integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Reshape(Layer):
    """One image's elements in NHWC order, seen as another shape."""

    shape: Shape

    def _output_shape(self, *inputs: Shape) -> Shape:
        self._check_shape("shape", self.shape)
        if math.prod(self.shape) != math.prod(inputs[0]):
            self._reject("shape", self.shape, f"of as many elements as the input {inputs[0]}")
        return self.shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Pad(Layer):
    """Zeros around height and width."""

    padding: Padding

    def _output_shape(self, *inputs: Shape) -> Shape:
        self._check_padding(self.padding)
        height, width, channels = inputs[0]
        return (height + sum(self.padding[0]), width + sum(self.padding[1]), channels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(Layer):
    """The channels of all inputs, one input's after the other's; height and width must be the same."""

    input_count: ClassVar[int | None] = None

    def _output_shape(self, *inputs: Shape) -> Shape:
        height, width, _ = inputs[0]
        for shape in inputs:
            if shape[:2] != (height, width):
                self._reject("input shape", shape, f"of the first input's height and width {(height, width)}")
        return (height, width, sum(shape[2] for shape in inputs))


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelSlice(Layer):
    """The input's channels from ``begin`` on, up to and without ``end``. A split is one of these for each part."""

    begin: int
    end: int

    def _output_shape(self, *inputs: Shape) -> Shape:
        height, width, channels = inputs[0]
        bounds = (self.begin, self.end)
        if not are_integers(bounds, 2, minimum=0) or not self.begin < self.end <= channels:
            self._reject("begin, end", bounds, f"integers with 0 <= begin < end <= {channels}")
        return (height, width, int(self.end) - int(self.begin))


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelShuffle(Layer):
    """Channels as a matrix of ``groups`` rows, transposed: output j*groups + g is input channel g*(c/groups) + j.

    What a convolution in groups computed thus reaches all groups of the next one.
    """

    groups: int

    def _output_shape(self, *inputs: Shape) -> Shape:
        channels = inputs[0][2]
        if not are_integers((self.groups,), 1, minimum=1) or channels % self.groups:
            self._reject("groups", self.groups, f"an integer of at least 1 that divides the {channels} channels")
        return inputs[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Upsample(Layer):
    """Pixels repeated up to another height and width: row y is the input's row floor(y * h / size[0])."""

    size: Pair

    def _output_shape(self, *inputs: Shape) -> Shape:
        height, width, channels = inputs[0]
        if not are_integers(self.size, 2, minimum=1) or self.size[0] < height or self.size[1] < width:
            self._reject("size", self.size, f"(height, width), integers of at least the input's {(height, width)}")
        return (int(self.size[0]), int(self.size[1]), channels)
