"""What the model builders share: a layer list that grows at its end, and the arithmetic of their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sepconv.conventions import Convention
from sepconv.graph import (
    MAX_ELEMENTS,
    ActivationName,
    Add,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    FullyConnected,
    GlobalAveragePool,
    Input,
    Layer,
    MaxPool2d,
    Mul,
    Padding,
    Pair,
    Shape,
    Upsample,
    same_padding,
)
from sepconv.graph.base import is_choice, is_finite, is_integer
from sepconv.models.weights import PaddingRule, WeightKind, WeightSource

if TYPE_CHECKING:
    from sepconv.model import Model

MIN_RESOLUTION = 32
DEFAULT_RESOLUTION = 224
MAX_ALPHA = 10  # of which MobileNet V1 has 1.7 GB of weights


class NetworkBuilder:
    """Appends layers, each reading the one before it unless said otherwise, with weights of the shape that fits.

    ``shapes`` has each layer's output (height, width, channels).
    """

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
        if padding is not None and not is_choice(padding, get_args(PaddingRule)):
            raise ValueError(f"padding was {padding!r}, must be None, 'same' or 'torch'")
        if epsilon is not None and not (is_finite(epsilon) and epsilon >= 0):
            raise ValueError(f"batch_norm_epsilon was {epsilon!r}, must be None or a finite number of at least 0")
        self.layers: list[Layer] = []
        self.shapes: dict[str, Shape] = {}
        self._source = source
        self._padding = padding if padding is not None else source.padding
        own = default if source.epsilon is None else source.epsilon
        self._epsilon = own if epsilon is None else epsilon
        self._append(Input(name="input", shape=(resolution, resolution, 3)))

    @property
    def last(self) -> str:
        """Name of the layer that the next one reads: the one appended last, or that of ``resume``."""
        return self._last

    @property
    def shape(self) -> Shape:
        """(height, width, channels) of what the layer ``last`` gives."""
        return self.shapes[self._last]

    def resume(self, name: str) -> None:
        """Go on from the layer of this name."""
        self._last = name

    def conv(
        self,
        name: str,
        kernel: int,
        channels: int,
        stride: int = 1,
        activation: ActivationName = "relu6",
        batch_norm: bool = True,
    ) -> None:
        """Dense convolution, batch norm (else a bias), activation."""
        shape = (kernel, kernel, self.shape[2], channels)
        self._append_convolution(Conv2d, name, "dense", shape, channels, stride, activation, batch_norm)

    def depthwise(self, name: str, kernel: int, stride: int = 1, activation: ActivationName = "relu6") -> None:
        """Depthwise convolution, batch norm, activation."""
        channels = self.shape[2]
        shape = (kernel, kernel, channels, 1)
        self._append_convolution(DepthwiseConv2d, name, "depthwise", shape, channels, stride, activation)

    def add(self, name: str, shortcut: str) -> None:
        """Sum with the layer named ``shortcut``."""
        self._append(Add(name=name, inputs=(shortcut, self.last)))

    def squeeze_and_excite(self, name: str, channels: int, gate: ActivationName) -> None:
        """Channels scaled by factors that the means of all of them decide, by way of ``channels`` hidden ones."""
        x, width = self.last, self.shape[2]
        self._append(GlobalAveragePool(name=f"{name}.pool", inputs=(x,)))
        self.conv(f"{name}.reduce", 1, channels, activation="relu", batch_norm=False)
        self.conv(f"{name}.expand", 1, width, activation=gate, batch_norm=False)
        self._append(Mul(name=f"{name}.scale", inputs=(x, self.last)))

    def max_pool(self, name: str, kernel: int, stride: int) -> None:
        padding = self._window_padding(kernel, stride)
        pair = (stride, stride)
        self._append(MaxPool2d(name=name, inputs=(self.last,), kernel=(kernel, kernel), stride=pair, padding=padding))

    def channel_slice(self, name: str, begin: int, end: int) -> None:
        self._append(ChannelSlice(name=name, inputs=(self.last,), begin=begin, end=end))

    def concat(self, name: str, *inputs: str) -> None:
        self._append(Concat(name=name, inputs=inputs))

    def channel_shuffle(self, name: str, groups: int) -> None:
        self._append(ChannelShuffle(name=name, inputs=(self.last,), groups=groups))

    def upsample(self, name: str, size: Pair) -> None:
        self._append(Upsample(name=name, inputs=(self.last,), size=size))

    def pool(self) -> None:
        self._append(GlobalAveragePool(name="pool", inputs=(self.last,)))

    def fully_connected(self, name: str, channels: int, activation: ActivationName = "none") -> None:
        weight = self._source.weight(name, "fully_connected", (self.shape[2], channels), activation)
        bias = self._source.bias(name, channels, required=True)
        self._append(FullyConnected(name=name, inputs=(self.last,), weight=weight, bias=bias, activation=activation))

    def classifier(self, classes: int) -> None:
        """Global average pool, then a fully connected layer that gives logits (no softmax)."""
        self.pool()
        self.fully_connected("classifier", check_classes(classes))

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
        batch_norm: bool = True,
    ) -> None:
        self._append(
            layer_type(
                name=name,
                inputs=(self.last,),
                weight=self._source.weight(name, kind, weight_shape, activation),
                bias=self._source.bias(name, channels, required=not batch_norm),
                batch_norm=self._source.batch_norm(name, channels, self._epsilon) if batch_norm else None,
                stride=(stride, stride),
                padding=self._window_padding(weight_shape[0], stride),
                activation=activation,
            )
        )

    def _append(self, layer: Layer) -> None:
        self.shapes[layer.name] = layer.output_shape(*(self.shapes[name] for name in layer.inputs))
        self.layers.append(layer)
        self._last = layer.name

    def _window_padding(self, kernel: int, stride: int) -> Padding:
        if self._padding == "torch":
            both = (kernel // 2, kernel // 2)
            return (both, both)
        height, width, _ = self.shape
        return (same_padding(height, kernel, stride), same_padding(width, kernel, stride))


def resolve_resolution(resolution: int, rho: float | None) -> int:
    """The input's height and width, given as such or by rho, the paper's resolution multiplier, as round(224 * rho)."""
    if rho is not None:
        if not (is_finite(rho) and 0 < float(rho) <= MAX_ELEMENTS):
            raise ValueError(f"rho was {rho!r}, must be a positive number of at most {MAX_ELEMENTS}")
        scaled = round(DEFAULT_RESOLUTION * float(rho))
        if check_count("resolution", resolution) not in (DEFAULT_RESOLUTION, scaled):
            raise ValueError(f"resolution was {resolution} beside rho = {rho}, must be left out or {scaled}")
        resolution = scaled
    return check_count("resolution", resolution, MIN_RESOLUTION)


def check_classes(classes: int) -> int:
    """The number of classes, which must be one (else ValueError)."""
    return check_count("classes", classes)


def check_count(argument: str, value: int, minimum: int = 1) -> int:
    """The value, where it is an integer that a dimension can be; else ValueError, which names the argument."""
    if not is_integer(value) or not minimum <= value <= MAX_ELEMENTS:
        raise ValueError(
            f"{argument} was {value!r}, must be an integer of at least {minimum} and at most {MAX_ELEMENTS}"
        )
    return int(value)


def check_alpha(alpha: float) -> float:
    """The width multiplier, which must be one (else ValueError)."""
    if not (is_finite(alpha) and 0 < alpha <= MAX_ALPHA):
        raise ValueError(f"alpha was {alpha!r}, must be a positive number of at most {MAX_ALPHA}")
    return float(alpha)


def round_to_eight(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and never less than 0.9 of ``channels``: widths from MobileNet V2 on."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def stem_channels(channels: int, alpha: float, fixed: bool) -> int:
    """Of the first convolution: ``channels`` at every width where they are fixed, else as any other layer's."""
    if not isinstance(fixed, bool):
        raise TypeError(f"fixed_stem was {fixed!r}, must be True or False")
    return channels if fixed else round_to_eight(channels * alpha)


def compile_model(layers: list[Layer], source: WeightSource, *, name: str, convention: Convention | None) -> Model:
    """The model of these layers, with the convention given or else that of the weights."""
    from sepconv.model import Model  # here, since it loads the compiled core, which layer lists do without

    return Model(layers, name=name, convention=source.convention if convention is None else convention)
