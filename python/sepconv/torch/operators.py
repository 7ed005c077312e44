"""What nodes of an fx graph ask for, in terms of layers: one small class an operator.

Its ``lower`` adds its layers to a :class:`Builder` once the shapes are known, or raises :class:`Unsupported` with the
reason why it cannot.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from sepconv import graph
from sepconv.graph import Layer, Padding, Pair, Shape

Weight = Any  # a torch.Tensor, or the Node that gives it
PLAIN = (torch.Tensor, torch.nn.Parameter)  # what other classes of tensors do, they alone know


class Unsupported(Exception):  # noqa: N818 - a reason, not always an error
    """Why a node stays with torch."""


@dataclass(frozen=True)
class Value:
    """The result of a layer: [n, c, h, w] to torch, or with ``flat`` [n, c*h*w]; c, h, w of ``shape``."""

    layer: str
    shape: Shape
    flat: bool = False


@dataclass
class Builder:
    """A layer list in the making. ``tensors`` gives the tensor of a weight."""

    tensors: Callable[[Weight], torch.Tensor]
    layers: list[Layer] = field(default_factory=list)
    values: dict[Node, Value] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)  # by the layer that joins the results of so many convolutions

    def array(self, weight: Weight) -> NDArray[np.float32]:
        """A weight as float32, without a copy but for a view that negates. Unsupported where it is anything else."""
        tensor = self.tensors(weight)
        check(type(tensor) in PLAIN, f"weights are a {type(tensor).__name__}")
        check(tensor.device.type == "cpu", f"weights are on {tensor.device}, not on the CPU")
        check(tensor.dtype == torch.float32, f"weights are {tensor.dtype}, not torch.float32")
        check(tensor.layout == torch.strided, f"weights are {tensor.layout}, not strided")
        array: NDArray[np.float32] = tensor.detach().resolve_neg().numpy()
        return array

    def optional(self, weight: Weight | None) -> NDArray[np.float32] | None:
        return None if weight is None else self.array(weight)

    def input(self, node: Node, shape: Shape, flat: bool) -> None:
        self.layers.append(graph.Input(name=node.name, shape=shape))
        self.values[node] = Value(node.name, shape, flat)

    def add(self, layer: Layer, *inputs: Value, flat: bool = False) -> Value:
        """Appends a layer. Unsupported where it does not fit its inputs."""
        try:
            shape = layer.output_shape(*(value.shape for value in inputs))
        except ValueError as error:
            raise Unsupported(str(error)) from error
        self.layers.append(layer)
        return Value(layer.name, shape, flat)

    def read_by(self, value: Value) -> set[Node]:
        """Who reads the layer of a value, by whatever names it has so far; those names themselves left out."""
        names = {node for node, known in self.values.items() if known.layer == value.layer}
        return {user for node in names for user in node.users} - names

    def place(self, value: Value) -> int:
        """Where the layer of a value stands."""
        return next(i for i in reversed(range(len(self.layers))) if self.layers[i].name == value.layer)

    def convolutions(self, value: Value, reader: Node) -> list[int]:
        """Where the convolution stands, or one for each group, that what only ``reader`` reads can become part of."""
        end = self.place(value)
        places = list(range(end + 1 - 2 * self.groups[value.layer], end, 2)) if value.layer in self.groups else [end]
        layers = [self.layers[place] for place in places]
        plain = all(isinstance(layer, graph.Convolution) and layer.activation == "none" for layer in layers)
        return places if plain and self.read_by(value) == {reader} else []


def check(condition: bool, reason: str) -> None:
    if not condition:
        raise Unsupported(reason)


def as_image(value: Value) -> Value:
    check(not value.flat, "its input is not [n, c, h, w]")
    return value


@dataclass(frozen=True)
class Operator(ABC):
    """``inputs``: the nodes of its activations. ``weights``: tensors, or nodes that give them."""

    inputs: tuple[Node, ...]
    heavy = False  # whether a region is worth its while for this alone
    alias = False  # whether the result may share memory with the input
    keeps_first = False  # whether the first of the dimensions stays as it is, however many the one input has

    @property
    def weights(self) -> tuple[Weight, ...]:
        return ()

    @abstractmethod
    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        """Add the layers of this operator, named after ``node``, and return the result's value. See Unsupported."""


@dataclass(frozen=True)
class Activate(Operator):
    activation: graph.ActivationName
    keeps_first = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        places = to.convolutions(x[0], node) if x[0].layer in to.groups else []
        for place in places:  # the core does so with a single convolution
            part: Any = to.layers[place]
            to.layers[place] = dataclasses.replace(part, activation=self.activation)
        if places:
            return x[0]
        layer = graph.Activation(name=node.name, inputs=(x[0].layer,), activation=self.activation)
        return to.add(layer, x[0], flat=x[0].flat)


@dataclass(frozen=True)
class PRelu(Operator):
    slope: Weight | float
    keeps_first = True

    @property
    def weights(self) -> tuple[Weight, ...]:
        return () if isinstance(self.slope, float) else (self.slope,)

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        channels = x[0].shape[2]
        check(not x[0].flat or x[0].shape[:2] == (1, 1), "its input is a flattened image")
        slope = np.full(1, self.slope, np.float32) if isinstance(self.slope, float) else to.array(self.slope)
        check(slope.shape in ((1,), (channels,)), f"its slope is of shape {slope.shape}")
        layer = graph.PRelu(name=node.name, inputs=(x[0].layer,), slope=np.broadcast_to(slope, (channels,)))
        return to.add(layer, x[0], flat=x[0].flat)


@dataclass(frozen=True)
class Sum(Operator):
    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        check(x[0].flat == x[1].flat and x[0].shape == x[1].shape, "its inputs have different shapes")
        layer = graph.Add(name=node.name, inputs=(x[0].layer, x[1].layer))
        return to.add(layer, *x, flat=x[0].flat)


@dataclass(frozen=True)
class Product(Operator):
    """Of two tensors of one shape, or of an image and a factor for each of its channels."""

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        image, factor = x if x[0].shape[:2] != (1, 1) else (x[1], x[0])
        check(image.flat == factor.flat, "its inputs have different shapes")
        fits = factor.shape == image.shape or (not image.flat and factor.shape == (1, 1, image.shape[2]))
        check(fits, "its inputs have different shapes")
        layer = graph.Mul(name=node.name, inputs=(image.layer, factor.layer))
        return to.add(layer, image, factor, flat=image.flat)


@dataclass(frozen=True)
class Pool(Operator):
    kernel: Pair
    stride: Pair
    padding: Pair
    largest: bool
    include_padding: bool = False
    keeps_first = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        window: dict[str, Any] = {
            "name": node.name,
            "inputs": (as_image(x[0]).layer,),
            "kernel": self.kernel,
            "stride": self.stride,
            "padding": ((self.padding[0],) * 2, (self.padding[1],) * 2),
        }
        if self.largest:
            return to.add(graph.MaxPool2d(**window), x[0])
        return to.add(graph.AveragePool2d(include_padding=self.include_padding, **window), x[0])


@dataclass(frozen=True)
class PoolTo(Operator):
    """Adaptive average pooling to ``size``; None keeps a dimension."""

    size: tuple[int | None, int | None]
    keeps_first = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        shape = as_image(x[0]).shape
        height, width = (old if new is None else new for old, new in zip(shape[:2], self.size, strict=True))
        if (height, width) == (1, 1):
            return to.add(graph.GlobalAveragePool(name=node.name, inputs=(x[0].layer,)), x[0])
        fits = height >= 1 and width >= 1 and shape[0] % height == 0 and shape[1] % width == 0
        check(fits, f"an image of {shape[0]}x{shape[1]} does not divide into {height}x{width} equal windows")
        window = (shape[0] // height, shape[1] // width)
        return to.add(graph.AveragePool2d(name=node.name, inputs=(x[0].layer,), kernel=window, stride=window), x[0])


@dataclass(frozen=True)
class Mean(Operator):
    """Over height and width."""

    keep: bool
    keeps_first = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        layer = graph.GlobalAveragePool(name=node.name, inputs=(as_image(x[0]).layer,))
        return to.add(layer, x[0], flat=not self.keep)


@dataclass(frozen=True)
class Flatten(Operator):
    """All but the batch; to ``features``, where that is said."""

    features: int | None = None
    alias = True

    @property
    def keeps_first(self) -> bool:  # type: ignore[override]
        return self.features is None

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        size = int(np.prod(x[0].shape))
        check(self.features in (None, size), f"it makes rows of {self.features} of images of {size} values")
        return dataclasses.replace(x[0], flat=True)


@dataclass(frozen=True)
class Linear(Operator):
    weight: Weight
    bias: Weight | None
    heavy = True
    keeps_first = True

    @property
    def weights(self) -> tuple[Weight, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        check(x[0].flat, "its input is not [n, features]")
        height, width, channels = x[0].shape
        weight = to.array(self.weight)
        check(weight.ndim == 2 and weight.shape[1] == height * width * channels, f"its weight is {weight.shape}")
        if height * width > 1:  # flattened by torch as c, h, w; here as h, w, c
            rows = weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
            weight = np.ascontiguousarray(rows).reshape(len(weight), -1)
        layer = graph.FullyConnected(name=node.name, inputs=(x[0].layer,), weight=weight.T, bias=to.optional(self.bias))
        return to.add(layer, x[0], flat=True)


@dataclass(frozen=True)
class SoftMax(Operator):
    dim: int
    keeps_first = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        channels = self.dim in ((1, -1) if x[0].flat else (1, -3))
        check(channels and (not x[0].flat or x[0].shape[:2] == (1, 1)), f"it runs over dimension {self.dim}")
        return to.add(graph.Softmax(name=node.name, inputs=(x[0].layer,)), x[0], flat=x[0].flat)


@dataclass(frozen=True)
class PadZeros(Operator):
    padding: Padding

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        return to.add(graph.Pad(name=node.name, inputs=(as_image(x[0]).layer,), padding=self.padding), x[0])


@dataclass(frozen=True)
class Same(Operator):
    """What changes nothing when a network is not trained: dropout, identity."""

    alias = True
    keeps_first = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        return x[0]
