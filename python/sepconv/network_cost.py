"""What a network costs: multiply-adds, parameters and bytes, by layer, by type of layer and in total.

Counted as in the MobileNets paper, so that its tables come out: a multiply-add is one, not two operations; biases,
batch norms, activations, sums and poolings count none.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from sepconv.graph import Conv2d, DepthwiseConv2d, FullyConnected, Input, Layer, Shape, array_shape, infer_shapes
from sepconv.layer_lists import LayersLike, layer_list
from sepconv.table import format_shape, format_table

FLOAT_BYTES = 4


@dataclass(frozen=True)
class LayerCost:
    """One layer's cost for one image.

    macs: multiply-adds.
    params: trained parameters: weight, bias, and gamma and beta of a batch norm.
    weights: elements of the weight alone, which is what the MobileNets paper calls parameters.
    bytes: ``weights``, all inputs and the output, each once, in float32: the least that a layer alone moves. 0 for the
        network's input, which the layers that read it count.
    """

    name: str
    type: str
    output_shape: Shape
    macs: int
    params: int
    weights: int
    bytes: int


@dataclass(frozen=True)
class Share:
    """What the layers of one type take of a network's multiply-adds and weights: fractions of 1."""

    macs: float
    weights: float


@dataclass(frozen=True)
class Cost:
    """A network's cost for one image: totals, and ``layers`` in order. ``str`` gives it as a table."""

    layers: tuple[LayerCost, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def params(self) -> int:
        """Trained parameters of all layers."""
        return sum(layer.params for layer in self.layers)

    @property
    def weights(self) -> int:
        """Elements of all layers' weights."""
        return sum(layer.weights for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Sum over the layers; an activation between two layers counts for both. Fused layers move less."""
        return sum(layer.bytes for layer in self.layers)

    def by_type(self) -> dict[str, Share]:
        """Each type's share, for the types that have weights, most multiply-adds first."""
        macs, weights = Counter[str](), Counter[str]()
        for layer in self.layers:
            if layer.weights:
                macs[layer.type] += layer.macs
                weights[layer.type] += layer.weights
        total_macs, total_weights = self.macs, self.weights
        return {kind: Share(n / total_macs, weights[kind] / total_weights) for kind, n in macs.most_common()}

    def __str__(self) -> str:
        rows = [
            (
                layer.name,
                layer.type,
                format_shape(layer.output_shape),
                *map(_grouped, (layer.macs, layer.params, layer.bytes)),
            )
            for layer in self.layers
        ]
        total = ("total", "", "", *map(_grouped, (self.macs, self.params, self.bytes)))
        headers = ("layer", "type", "output", "multiply-adds", "parameters", "bytes")
        return format_table(headers, [*rows, (), total], align="<<")


def cost(layers: LayersLike) -> Cost:
    """The cost of a list of layers, or of a :class:`sepconv.Model`.

    Raises TypeError for what is neither, ValueError (naming layer and argument) for a list that is no network.
    """
    layers = layer_list(layers)
    shapes = infer_shapes(layers)
    return Cost(
        tuple(_layer_cost(layer, [shapes[name] for name in layer.inputs], shapes[layer.name]) for layer in layers)
    )


def type_name(layer: Layer) -> str:
    """A layer's type in words, a convolution's with the size of its window: "depthwise 3x3"."""
    if isinstance(layer, Conv2d):
        return f"convolution {format_shape(array_shape(layer.weight)[:2])}"
    if isinstance(layer, DepthwiseConv2d):
        return f"depthwise {format_shape(array_shape(layer.weight)[:2])}"
    return "fully connected" if isinstance(layer, FullyConnected) else _words(type(layer).__name__)


def _layer_cost(layer: Layer, inputs: list[Shape], output: Shape) -> LayerCost:
    weights = layer.weight_count()
    elements = 0 if isinstance(layer, Input) else weights + sum(map(math.prod, inputs)) + math.prod(output)
    return LayerCost(
        layer.name,
        type_name(layer),
        output,
        layer.macs(inputs, output),
        layer.params(),
        weights,
        FLOAT_BYTES * elements,
    )


def _words(name: str) -> str:
    """ "GlobalAveragePool" as "global average pool"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _grouped(number: int) -> str:
    return f"{number:,}"
