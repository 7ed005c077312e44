"""From nodes of our graph to the layer list, for the regions of a model that become one plan.

A value is [n, c, h, w], [n, c, w] or [n, c] in the file and (h, w, c), (1, w, c) or (1, 1, c) as a layer's result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from sepconv.graph import Input, Layer, Shape
from sepconv.graph.base import new_name
from sepconv.onnx.ir import Array, Graph, Node

MAX_SIZE, MAX_ELEMENTS = 1 << 20, 1 << 31  # of an image in the engine, as csrc/base/tensor.h says


class NotInPlanError(Exception):
    """The layer list does not say this; the message tells what."""


def layer_shape(shape: Sequence[int]) -> Shape:
    """(h, w, c) of a value of this shape."""
    if not 2 <= len(shape) <= 4:
        raise NotInPlanError(f"rank {len(shape)}")
    c, *space = shape[1:]
    h, w = (1, 1, *space)[-2:]
    return h, w, c


class Lowering:
    """Layers while nodes are added one after the other; a value that none of them wrote becomes an Input."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: list[Layer] = []
        self.inputs: list[str] = []
        self.batch: int | None = None
        self._names: dict[str, str] = {}  # the layer that holds a value
        self._taken: set[str] = set()  # names of layers
        self._shapes: dict[str, Shape] = {}

    def add(self, node: Node) -> None:
        """Raises NotInPlanError, or ValueError where the node itself is wrong."""
        lower = _LOWERINGS.get((node.domain, node.op))
        if lower is None:
            raise NotInPlanError(f"no layer for {node.op}")
        if any(node.outputs[1:]) and node.op != "Split":
            raise NotInPlanError("more than one output")
        if any(self.graph.info(name).dtype != np.float32 for name in (node.inputs[0], node.outputs[0])):
            raise NotInPlanError("not float32")
        lower(self, node)

    def shape(self, value: str) -> tuple[int, ...]:
        shape = self.graph.shape(value)
        if shape is None:
            raise NotInPlanError(f"the shape of {value!r} is not known")
        if max(layer_shape(shape)) > MAX_SIZE or math.prod(shape[1:]) > MAX_ELEMENTS:
            raise NotInPlanError("a value larger than the engine takes")
        if math.prod(shape) == 0:
            raise NotInPlanError("an empty value")
        if self.batch is None:
            self.batch = shape[0]
        if shape[0] != self.batch:
            raise NotInPlanError(f"a batch of {shape[0]} beside one of {self.batch}")
        return shape

    def layer(self, value: str) -> str:
        """The name of the layer whose result a value is."""
        if value in self.graph.constants:
            raise NotInPlanError(f"{value!r} is constant")
        if value not in self._names:
            shape = layer_shape(self.shape(value))
            self._names[value] = new_name(value, self._taken)
            self.layers.append(Input(name=self._names[value], shape=shape))
            self.inputs.append(value)
        return self._names[value]

    def constant(self, value: str) -> Array:
        array = self.graph.constant(value)
        if array is None:
            raise NotInPlanError(f"{value!r} is not constant")
        return array

    def emit(
        self,
        node: Node,
        make: Callable[..., Layer],
        *,
        value: str = "",
        part: str = "",
        inputs: Sequence[str] = (),
        **arguments: Any,
    ) -> str:
        """Append a layer that reads these layers (none: the first input's), and is named after what it holds.

        That is ``value``, or the node's first result where neither that is given nor ``part``: a step on the way there.
        """
        value = value or node.outputs[0]
        reads = tuple(inputs) or (self.layer(node.inputs[0]),)
        for argument in ("weight", "bias"):
            if argument in arguments and arguments[argument] is not None and arguments[argument].dtype != np.float32:
                raise NotInPlanError(f"{argument} is not float32")
        # A value of the file may be called as a step of ours is.
        name = new_name(f"{value}/{part}" if part else value, self._taken)
        self.layers.append(make(name=name, inputs=reads, **arguments))
        if not part:
            self._names[value] = name
        return name

    def alias(self, node: Node) -> None:
        """The node's result is its first input."""
        self._names[node.outputs[0]] = self.layer(node.inputs[0])


Lower = Callable[[Lowering, Node], None]
L = TypeVar("L", bound=Lower)
_LOWERINGS: dict[tuple[str, str], Lower] = {}


def lowers(*names: str, domain: str = "") -> Callable[[L], L]:
    def register(lower: L) -> L:
        for name in names:
            _LOWERINGS[domain, name] = lower
        return lower

    return register
