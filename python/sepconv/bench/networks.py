"""What a benchmark runs: a network by its name with width and resolution, a file's, or one operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sepconv.graph import (
    MAX_ELEMENTS,
    NO_PADDING,
    Activation,
    ActivationName,
    Conv2d,
    DepthwiseConv2d,
    Input,
    Layer,
    Padding,
    Pair,
    Shape,
    infer_shapes,
    needed_layers,
    same_padding,
)
from sepconv.graph import (
    outputs as final_outputs,
)
from sepconv.graph.base import new_name
from sepconv.models.catalog import named_layers, similar_names

OperatorName = Literal["depthwise", "pointwise", "separable", "conv"]
DEFAULT_MODELS = ("mobilenet_v1_1.0_224", "mobilenet_v2_1.0_224", "mobilenet_v1_0.25_128", "efficientnet_lite0")


@dataclass(frozen=True)
class Network:
    """A layer list with one input, what it is called, and the layers whose results it gives, in their order."""

    name: str
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...] = ()  # none: those that no layer reads
    operator: bool = False  # one, which sepconv runs by its functions on arrays

    def __post_init__(self) -> None:
        if not self.outputs:
            object.__setattr__(self, "outputs", final_outputs(self.layers))
        inputs = [layer for layer in self.layers if isinstance(layer, Input)]
        if len(inputs) != 1:
            raise ValueError(f"{self.name} has {len(inputs)} inputs, must have one")
        infer_shapes(self.layers)  # what does not fit is to be known before the measuring

    @property
    def input(self) -> Input:
        return next(layer for layer in self.layers if isinstance(layer, Input))

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        shapes = infer_shapes(self.layers)
        return sum(layer.macs([shapes[name] for name in layer.inputs], shapes[layer.name]) for layer in self.layers)

    def random_input(self, batch: int, seed: int = 0) -> NDArray[np.float32]:
        """Normally distributed float32 [batch, h, w, c]. Raises ValueError for more than the machine's memory holds."""
        from sepconv.bench.machine import available_bytes  # here, since it imports this module

        needed, available = 4 * batch * math.prod(self.input.shape), available_bytes()
        if available is not None and needed > available:
            gigabytes = f"{needed / 1e9:.1f} GB, must take at most the {available / 1e9:.1f} GB that are free"
            raise ValueError(f"batch is {batch}, with which the input of {self.name} takes {gigabytes}")
        return np.random.default_rng(seed).standard_normal((batch, *self.input.shape), dtype=np.float32)


def open_network(model: str, seed: int = 0, weights: str | None = None) -> Network:
    """The network that ``model`` names, with random weights from ``seed``; or that of a file, with the file's.

    Names are those of :mod:`sepconv.models.catalog`: ``mobilenet_v1_1.0_224``, ``mobilenet_v3_large_0.75_160`` (alpha,
    then resolution), ``efficientnet_lite4``. ``weights``: a file of trained ones.

    Raises ValueError for what is neither a name nor an existing file, and what reading a file raises.
    """
    named = named_layers(model, weights, seed)
    if named is not None:
        name, layers = named
        return Network(name, tuple(layers))
    path = Path(model)
    if not model or not path.exists():
        raise ValueError(
            f"MODEL is {model!r}, must be an existing .tflite or .onnx file or a name such as "
            f"{', '.join(similar_names(model) or DEFAULT_MODELS)}"
        )
    if weights is not None:
        raise ValueError(f"weights is {weights!r}, must be left out: {model} has its own")
    layers, outputs = read_network(path)
    return Network(path.stem, *_apart(needed_layers(layers, outputs), outputs))


def read_network(path: Path) -> tuple[list[Layer], tuple[str, ...]]:
    """The layers of a .tflite or .onnx file, and the names of those whose results it gives, in its order."""
    from sepconv.io import check_tflite
    from sepconv.io.files import identify, open_file
    from sepconv.io.tflite import read_tflite_network

    source = open_file(path)
    if identify(source.data) == "onnx":
        from sepconv.onnx.whole import read_onnx_layers

        return read_onnx_layers(path)
    check_tflite(source, path)
    network = read_tflite_network(source)
    return network.layers, network.outputs


def _apart(layers: list[Layer], outputs: Sequence[str]) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """A result that is given twice, given by a layer more: formats name each output once."""
    taken, names = {layer.name for layer in layers}, list[str]()
    for name in outputs:
        if name in names:
            layers = [*layers, Activation(name=new_name(name, taken), inputs=(name,), activation="none")]
            name = layers[-1].name
        names.append(name)
    return tuple(layers), tuple(names)


def operator(
    kind: OperatorName,
    shape: Sequence[int],
    *,
    kernel: Pair | None = None,
    stride: Pair = (1, 1),
    dilation: Pair | None = None,
    padding: Literal["same", "valid"] | None = None,
    activation: ActivationName = "none",
    seed: int = 0,
) -> Network:
    """A network of one operator (``separable``: of its two halves), with random weights.

    ``shape`` is (h, w, c), or (h, w, c, n) with the output's channels: c unless said otherwise, for ``depthwise`` a
    multiple of c. ``kernel`` (None: 3), ``dilation`` (1) and ``padding`` (same) are not for ``pointwise``, whose kernel
    is 1; in ``separable`` stride, dilation and padding are those of the depthwise half.

    Raises ValueError for arguments that do not fit.
    """
    window_options = {"kernel": kernel, "dilation": dilation, "padding": padding}
    given = [f"{option} is {value!r}" for option, value in window_options.items() if value not in (None, (1, 1))]
    if kind == "pointwise" and given:
        raise ValueError(f"{given[0]}, must be left out for a pointwise convolution")
    kernel, dilation, padding = kernel or (3, 3), dilation or (1, 1), padding or "same"
    if kind not in get_args(OperatorName):
        raise ValueError(f"op is {kind!r}, must be one of {', '.join(get_args(OperatorName))}")
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ValueError(f"shape is {tuple(shape)}, must be H,W,C or H,W,C,N, whole numbers of at least 1")
    h, w, c = shape[:3]
    n = shape[3] if len(shape) == 4 else c
    if kind == "depthwise" and n % c:
        raise ValueError(f"shape is {tuple(shape)}, must have N a multiple of C for a depthwise convolution")
    random = np.random.default_rng(seed)

    def weight(kh: int, kw: int, inputs: int, outputs: int, fan_in: int) -> NDArray[np.float32]:
        if kh * kw * inputs * outputs > MAX_ELEMENTS:
            given = f"shape is {tuple(shape)} and kernel {kernel}"
            raise ValueError(f"{given}, must give a weight of at most {MAX_ELEMENTS} elements")
        values = random.standard_normal((kh, kw, inputs, outputs), dtype=np.float32)
        return values * np.float32(math.sqrt(1 / fan_in))

    def bias(channels: int) -> NDArray[np.float32]:
        return random.standard_normal(channels, dtype=np.float32)

    kh, kw = kernel
    window = NO_PADDING if padding == "valid" else _same((h, w, c), kernel, stride, dilation)
    layers: list[Layer] = [Input(name="input", shape=(h, w, c))]
    if kind in ("depthwise", "separable"):
        multiplier = n // c if kind == "depthwise" else 1
        layers.append(
            DepthwiseConv2d(
                name="depthwise", inputs=("input",), weight=weight(kh, kw, c, multiplier, kh * kw),
                bias=bias(c * multiplier), stride=stride, padding=window, dilation=dilation, activation=activation,
            )
        )  # fmt: skip
    if kind == "conv":
        layers.append(
            Conv2d(
                name="conv", inputs=("input",), weight=weight(kh, kw, c, n, kh * kw * c), bias=bias(n), stride=stride,
                padding=window, dilation=dilation, activation=activation,
            )
        )  # fmt: skip
    if kind in ("pointwise", "separable"):
        layers.append(
            Conv2d(
                name="pointwise", inputs=(layers[-1].name,), weight=weight(1, 1, c, n, c), bias=bias(n),
                stride=stride if kind == "pointwise" else (1, 1), activation=activation,
            )
        )  # fmt: skip
    size = "" if kind == "pointwise" else f" {kh}x{kw}"
    outputs = "" if n == c else f"→{n}"
    name = f"{kind}{size} {h}x{w}x{c}{outputs}"
    for option, pair in (("stride", stride), ("dilation", dilation)):
        name += "" if pair == (1, 1) else f" {option} {pair[0]}x{pair[1]}"
    words = (word for word, usual in ((padding, "same"), (activation, "none")) if word != usual)
    return Network(" ".join([name, *words]), tuple(layers), operator=True)


def _same(x: Shape, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    top, left = (same_padding(x[axis], kernel[axis], stride[axis], dilation[axis]) for axis in (0, 1))
    return (top, left)
