"""What a network costs: multiply-adds, parameters and bytes, by layer, by type of layer and in total.

Counted as in the MobileNets paper, so that its tables come out: a multiply-add is one, not two operations; biases,
batch norms, activations, sums and poolings count none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sepconv.graph import Conv2d, DepthwiseConv2d, FullyConnected, Input, Layer, Shape, array_shape, infer_shapes
from sepconv.models.efficientnet_lite0 import efficientnet_lite0_layers
from sepconv.models.mobilenet_v1 import Variant, mobilenet_v1_layers
from sepconv.models.mobilenet_v2 import mobilenet_v2_layers
from sepconv.table import format_shape, format_table

FLOAT_BYTES = 4
ALPHAS = (1.0, 0.75, 0.5, 0.25)
RESOLUTIONS = (224, 192, 160, 128)

# The MobileNets paper's tables 4 to 7: alpha, resolution, variant, millions of multiply-adds and of parameters.
PAPER_NETWORKS: tuple[tuple[float, int, Variant, int, float], ...] = (
    (1.0, 224, "separable", 569, 4.2),
    (0.75, 224, "separable", 325, 2.6),
    (0.5, 224, "separable", 149, 1.3),
    (0.25, 224, "separable", 41, 0.5),
    (1.0, 192, "separable", 418, 4.2),
    (1.0, 160, "separable", 290, 4.2),
    (1.0, 128, "separable", 186, 4.2),
    (1.0, 224, "full", 4866, 29.3),
    (1.0, 224, "shallow", 307, 2.9),
)
# Its table 2: per cent of the multiply-adds and of the parameters of 1.0-224.
PAPER_SHARES = {
    "convolution 1x1": (94.86, 74.59),
    "depthwise 3x3": (3.06, 1.06),
    "convolution 3x3": (1.19, 0.02),
    "fully connected": (0.18, 24.33),
}
PAPER_NOTE = """\
Where they differ: 290 is our 290.68 cut off; 4866 is ours without the classifier (4867.29 - 1.02); 1.19 has its digits
exchanged, for with 1.91 the paper's shares add up to 100.01 % and with 1.19 to 99.29 %."""


@dataclass(frozen=True)
class LayerCost:
    """One layer's cost for one image.

    macs: multiply-adds.
    params: trained parameters: weight, bias, and gamma and beta of a batch norm.
    weights: elements of the weight alone, which is what the MobileNets paper calls parameters.
    bytes: ``weights``, all inputs and the output, each once, in float32: the least that a layer alone moves. None for
        the network's input, which the layers that read it count.
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
        macs: dict[str, int] = {}
        weights: dict[str, int] = {}
        for layer in self.layers:
            if layer.weights:
                macs[layer.type] = macs.get(layer.type, 0) + layer.macs
                weights[layer.type] = weights.get(layer.type, 0) + layer.weights
        total_macs, total_weights = self.macs, self.weights
        ordered = sorted(macs, key=lambda kind: macs[kind], reverse=True)
        return {kind: Share(macs[kind] / total_macs, weights[kind] / total_weights) for kind in ordered}

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


def cost(layers: Iterable[Layer]) -> Cost:
    """The cost of a list of layers. Raises what :func:`sepconv.graph.infer_shapes` raises for what is no network."""
    layers = tuple(layers)
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


def format_cost_tables() -> str:
    """The text of ``sepconv cost``: V1 by width and resolution, the paper's figures beside ours, other networks."""
    return "\n\n".join((_width_table(), _paper_table(), _share_table(), PAPER_NOTE, _other_table()))


def _width_table() -> str:
    rows = []
    for alpha in ALPHAS:
        costs = [cost(mobilenet_v1_layers(alpha, resolution)) for resolution in RESOLUTIONS]
        rows.append((alpha, *(_millions(c.macs, 1) for c in costs), _millions(costs[0].params)))
    headers = ["alpha", *(f"rho {n / RESOLUTIONS[0]:.3f} ({n})" for n in RESOLUTIONS), "parameters (M)"]
    return "MobileNet V1: multiply-adds (M) by width alpha and resolution rho\n" + format_table(headers, rows)


def _paper_table() -> str:
    rows = []
    for alpha, resolution, variant, paper_macs, paper_params in PAPER_NETWORKS:
        ours = cost(mobilenet_v1_layers(alpha, resolution, variant=variant))
        name = f"{alpha}-{resolution}" + ("" if variant == "separable" else f" {variant}")
        rows.append((name, _millions(ours.macs), paper_macs, _millions(ours.params), paper_params))
    headers = ("MobileNet V1", "multiply-adds (M)", "paper", "parameters (M)", "paper")
    return format_table(headers, rows, align="<")


def _share_table() -> str:
    rows = []
    for kind, share in cost(mobilenet_v1_layers()).by_type().items():
        paper_macs, paper_weights = PAPER_SHARES[kind]
        rows.append((kind, f"{share.macs:.2%}", paper_macs, f"{share.weights:.2%}", paper_weights))
    headers = ("share in 1.0-224", "multiply-adds", "paper", "weights", "paper")
    return format_table(headers, rows, align="<")


def _other_table() -> str:
    networks = {
        "MobileNet V2 1.0-224": cost(mobilenet_v2_layers()),
        "EfficientNet-Lite0 224": cost(efficientnet_lite0_layers()),
    }
    rows = [(name, _millions(ours.macs), _millions(ours.params)) for name, ours in networks.items()]
    return format_table(("network", "multiply-adds (M)", "parameters (M)"), rows, align="<")


def _millions(number: int, digits: int = 2) -> str:
    return f"{number / 1e6:.{digits}f}"


def _words(name: str) -> str:
    """ "GlobalAveragePool" as "global average pool"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def _grouped(number: int) -> str:
    return f"{number:,}"
