"""What the model builders share: a layer list that grows at its end, and the arithmetic of their arguments."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, get_args

from sepconv.conventions import Convention
from sepconv.graph import (
    ActivationName,
    Add,
    Conv2d,
    DepthwiseConv2d,
    FullyConnected,
    GlobalAveragePool,
    Input,
    Layer,
    Padding,
    Shape,
    same_padding,
)
from sepconv.models.weights import PaddingRule, WeightKind, WeightSource, is_integer

if TYPE_CHECKING:
    from sepconv.model import Model

MIN_RESOLUTION = 32
DEFAULT_RESOLUTION = 224


class NetworkBuilder:
    """Appends layers, each reading the one before it unless said otherwise, with weights of the shape that fits."""

    def __init__(
        self,
        resolution: int,
        source: WeightSource,
        *,
        padding: PaddingRule | None,
        epsilon: float | None,
        default: float,
    ) -> None:
        """``padding`` and ``epsilon`` (of batch norms): None takes the weights' own, for epsilon else ``default``."""
        if padding not in (None, *get_args(PaddingRule)):
            raise ValueError(f"padding was {padding!r}, must be None, 'same' or 'torch'")
        if epsilon is not None and not (math.isfinite(epsilon) and epsilon >= 0):
            raise ValueError(f"batch_norm_epsilon was {epsilon!r}, must be None or finite and at least 0")
        self.layers: list[Layer] = []
        self._shape: Shape = (resolution, resolution, 3)
        self._shapes: dict[str, Shape] = {}
        self._source = source
        self._padding = padding if padding is not None else source.padding
        own = default if source.epsilon is None else source.epsilon
        self._epsilon = own if epsilon is None else epsilon
        self._append(Input(name="input", shape=self._shape))

    @property
    def last(self) -> str:
        """Name of the layer appended last."""
        return self.layers[-1].name

    @property
    def shape(self) -> Shape:
        """(height, width, channels) of what the layer appended last gives."""
        return self._shape

    def conv(
        self, name: str, kernel: int, channels: int, stride: int = 1, activation: ActivationName = "relu6"
    ) -> None:
        """Dense convolution, batch norm, activation."""
        shape = (kernel, kernel, self._shape[2], channels)
        self._append_convolution(Conv2d, name, "dense", shape, channels, stride, activation)

    def depthwise(self, name: str, kernel: int, stride: int = 1, activation: ActivationName = "relu6") -> None:
        """Depthwise convolution, batch norm, activation."""
        channels = self._shape[2]
        shape = (kernel, kernel, channels, 1)
        self._append_convolution(DepthwiseConv2d, name, "depthwise", shape, channels, stride, activation)

    def add(self, name: str, shortcut: str) -> None:
        """Sum with the layer named ``shortcut``."""
        self._append(Add(name=name, inputs=(shortcut, self.last)))

    def classifier(self, classes: int) -> None:
        """Global average pool, then a fully connected layer that gives logits (no softmax)."""
        if not is_integer(classes) or classes < 1:
            raise ValueError(f"classes was {classes!r}, must be an integer of at least 1")
        self._append(GlobalAveragePool(name="pool", inputs=(self.last,)))
        weight = self._source.weight("classifier", "fully_connected", (self._shape[2], classes), "none")
        bias = self._source.bias("classifier", classes, required=True)
        self._append(FullyConnected(name="classifier", inputs=(self.last,), weight=weight, bias=bias))

    def finish(self) -> list[Layer]:
        """The layers, once the weights have turned out to be those that the network needs (else ValueError)."""
        self._source.finish()
        return self.layers

    def _append_convolution(
        self,
        layer_type: type[Conv2d] | type[DepthwiseConv2d],
        name: str,
        kind: WeightKind,
        weight_shape: tuple[int, int, int, int],
        channels: int,
        stride: int,
        activation: ActivationName,
    ) -> None:
        self._append(
            layer_type(
                name=name,
                inputs=(self.last,),
                weight=self._source.weight(name, kind, weight_shape, activation),
                bias=self._source.bias(name, channels, required=False),
                batch_norm=self._source.batch_norm(name, channels, self._epsilon),
                stride=(stride, stride),
                padding=self._window_padding(weight_shape[0], stride),
                activation=activation,
            )
        )

    def _append(self, layer: Layer) -> None:
        self._shape = layer.output_shape(*(self._shapes[name] for name in layer.inputs))
        self._shapes[layer.name] = self._shape
        self.layers.append(layer)

    def _window_padding(self, kernel: int, stride: int) -> Padding:
        if self._padding == "torch":
            both = (kernel // 2, kernel // 2)
            return (both, both)
        height, width, _ = self._shape
        return (same_padding(height, kernel, stride), same_padding(width, kernel, stride))


def resolve_resolution(resolution: int, rho: float | None) -> int:
    """The input's height and width, given as such or by rho, the paper's resolution multiplier, as round(224 * rho)."""
    if rho is not None:
        if not (math.isfinite(rho) and rho > 0):
            raise ValueError(f"rho was {rho!r}, must be positive and finite")
        scaled = round(DEFAULT_RESOLUTION * rho)
        if resolution not in (DEFAULT_RESOLUTION, scaled):
            raise ValueError(f"resolution was {resolution} beside rho = {rho}, must be left out or {scaled}")
        resolution = scaled
    if not is_integer(resolution) or resolution < MIN_RESOLUTION:
        raise ValueError(f"resolution was {resolution!r}, must be an integer of at least {MIN_RESOLUTION}")
    return operator.index(resolution)


def check_alpha(alpha: float) -> None:
    """ValueError unless the width multiplier is one."""
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"alpha was {alpha!r}, must be positive and finite")


def round_to_eight(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and never less than 0.9 of ``channels``: widths from MobileNet V2 on."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def compile_model(layers: list[Layer], source: WeightSource, *, name: str, convention: Convention | None) -> Model:
    """The model of these layers, with the convention given or else that of the weights."""
    from sepconv.model import Model  # here, since it loads the compiled core, which layer lists do without

    return Model(layers, name=name, convention=source.convention if convention is None else convention)
