"""The layer list: what a network is, before any kernel is chosen.

A network is a plain list of the dataclasses below, in order of execution. A layer's output is known by the layer's
name; ``inputs`` names the layers it reads. Model builders and importers both produce such lists, and
:class:`sepconv.Model` compiles them.

Activations are NHWC; a shape is one image's (height, width, channels). Weights are as TensorFlow holds them: dense
``[kh, kw, C, N]``, depthwise ``[kh, kw, C, M]`` (output channel ``c*M + m``), fully connected ``[C, N]``. Paddings are
explicit: ``((top, bottom), (left, right))``. Arrays are only asked for their shape here, so they may be lazy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn, get_args

import numpy as np
from numpy.typing import ArrayLike

ActivationName = Literal["none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu"]
Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
Shape = tuple[int, int, int]

NO_PADDING: Padding = ((0, 0), (0, 0))
INPUT_DTYPES = ("float32", "uint8", "int8", "int16")
MAX_ELEMENTS = 2**31 - 1  # of one image's activation; also the largest stride, dilation, padding and window


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNorm:
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, each array of shape [channels]."""

    gamma: ArrayLike
    beta: ArrayLike
    mean: ArrayLike
    variance: ArrayLike
    epsilon: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """Base of all layers. Layers compare by identity: arrays have no plain equality."""

    name: str
    inputs: tuple[str, ...]
    input_count: ClassVar[int] = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the output for inputs of these shapes. ValueError names the layer and the argument that is wrong."""
        if len(inputs) != self.input_count:
            self._reject("number of inputs", len(inputs), self.input_count)
        for shape in inputs:
            self._check_shape("input shape", shape)
        output = self._output_shape(*inputs)
        self._check_shape("output shape", output)
        return output

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

    def _check_shape(self, argument: str, shape: Any) -> None:
        if not _are_integers(shape, 3, minimum=1):
            self._reject(argument, shape, "(height, width, channels), integers of at least 1")
        if math.prod(int(n) for n in shape) > MAX_ELEMENTS:
            self._reject(argument, shape, f"of at most {MAX_ELEMENTS} elements")

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
        if activation not in get_args(ActivationName):
            self._reject("activation", repr(activation), "one of " + ", ".join(get_args(ActivationName)))

    def _check_padding(self, padding: Any) -> None:
        if not (_is_sequence(padding, 2) and all(_are_integers(side, 2, minimum=0) for side in padding)):
            self._reject("padding", padding, "((top, bottom), (left, right)), integers of at least 0")

    def _window_outputs(self, x: Shape, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair = (1, 1)) -> Pair:
        """Check a sliding window's arguments; return how many positions it has: (vertical, horizontal)."""
        for argument, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
            if not _are_integers(value, 2, minimum=1):
                self._reject(argument, value, "(vertical, horizontal), integers of at least 1")
        self._check_padding(padding)
        positions = []
        for axis, side in enumerate(("height", "width")):
            padded = x[axis] + sum(padding[axis])
            extent = (kernel[axis] - 1) * dilation[axis] + 1
            if padded < extent:
                self._reject(f"padded input {side}", padded, f"at least the window's {extent}")
            positions.append((padded - extent) // stride[axis] + 1)
        return positions[0], positions[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Input(Layer):
    """The network's input, [n, h, w, c] (or [n, c] given as (1, 1, c)).

    ``dtype`` other than float32 names the integer type that is accepted besides float32, whose values mean
    scale * (q - zero_point).
    """

    inputs: tuple[str, ...] = ()
    shape: Shape
    dtype: str = "float32"
    scale: float = 1.0
    zero_point: int = 0
    input_count: ClassVar[int] = 0

    def _output_shape(self, *inputs: Shape) -> Shape:
        if self.dtype not in INPUT_DTYPES:
            self._reject("dtype", repr(self.dtype), "one of " + ", ".join(INPUT_DTYPES))
        if not (math.isfinite(self.scale) and self.scale > 0):
            self._reject("scale", self.scale, "positive and finite")
        return self.shape


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedLayer(Layer):
    """What convolutions and fully connected layers share: y = activation(weight * x + bias)."""

    weight: ArrayLike
    bias: ArrayLike | None = None  # [channels of the output]
    activation: ActivationName = "none"

    def macs(self, input_shapes: Sequence[Shape], output_shape: Shape) -> int:
        # Every element of the weight meets every position of the output once.
        return output_shape[0] * output_shape[1] * self.weight_count()

    def weight_count(self) -> int:
        return math.prod(array_shape(self.weight))

    def params(self) -> int:
        return self.weight_count() + (0 if self.bias is None else math.prod(array_shape(self.bias)))

    def _check_channels(self, channels: int) -> int:
        """Check what is added to or applied on ``channels`` outputs, and return ``channels``."""
        if self.bias is not None:
            self._check_array("bias", self.bias, N=channels)
        self._check_activation(self.activation)
        return channels


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(WeightedLayer):
    """y = activation(batch_norm(weight * x + bias)), padded with zeros."""

    batch_norm: BatchNorm | None = None
    stride: Pair = (1, 1)
    padding: Padding = NO_PADDING
    dilation: Pair = (1, 1)

    def params(self) -> int:
        trained = () if self.batch_norm is None else (self.batch_norm.gamma, self.batch_norm.beta)
        return super().params() + sum(math.prod(array_shape(array)) for array in trained)

    def _check_channels(self, channels: int) -> int:
        if self.batch_norm is not None:
            for argument in ("gamma", "beta", "mean", "variance"):
                self._check_array(f"batch_norm.{argument}", getattr(self.batch_norm, argument), N=channels)
            epsilon = self.batch_norm.epsilon
            if not (math.isfinite(epsilon) and epsilon >= 0):
                self._reject("batch_norm.epsilon", epsilon, "finite and at least 0")
        return super()._check_channels(channels)

    def _outputs(self, x: Shape, kernel: tuple[int, ...], channels: int) -> Shape:
        positions = self._window_outputs(x, (kernel[0], kernel[1]), self.stride, self.padding, self.dilation)
        return (*positions, self._check_channels(channels))


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d(Convolution):
    """Dense convolution, weight [kh, kw, C, N]."""

    def _output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        weight = self._check_array("weight", self.weight, kh=None, kw=None, C=x[2], N=None)
        return self._outputs(x, weight, weight[3])


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthwiseConv2d(Convolution):
    """A window per channel, weight [kh, kw, C, M]: output channel c*M + m is input channel c under window (c, m)."""

    def _output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        weight = self._check_array("weight", self.weight, kh=None, kw=None, C=x[2], M=None)
        return self._outputs(x, weight, weight[2] * weight[3])


@dataclass(frozen=True, kw_only=True, eq=False)
class FullyConnected(WeightedLayer):
    """Flattens its input in NHWC order, then multiplies by the weight [h*w*c, N]; the result is (1, 1, N)."""

    def _output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        weight = self._check_array("weight", self.weight, C=math.prod(x), N=None)
        return (1, 1, self._check_channels(weight[1]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Add(Layer):
    """activation(a + b), both of one shape."""

    activation: ActivationName = "none"
    input_count: ClassVar[int] = 2

    def _output_shape(self, *inputs: Shape) -> Shape:
        a, b = inputs
        if a != b:
            self._reject("second input's shape", b, f"the first's {a}")
        self._check_activation(self.activation)
        return a


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool2d(Layer):
    """What poolings share. Each window must hold at least one element that is not padding."""

    kernel: Pair
    stride: Pair
    padding: Padding = NO_PADDING
    activation: ActivationName = "none"

    def _output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        positions = self._window_outputs(x, self.kernel, self.stride, self.padding)
        for axis, (before, _) in enumerate(self.padding):
            if before >= self.kernel[axis] or (positions[axis] - 1) * self.stride[axis] - before >= x[axis]:
                self._reject("padding", self.padding, "such that no window lies wholly in it")
        self._check_activation(self.activation)
        return (*positions, x[2])


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePool2d(Pool2d):
    include_padding: bool = False  # whether padded zeros count in the divisor


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool2d(Pool2d):
    """Padding never wins, whatever the input's sign."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GlobalAveragePool(Layer):
    """Mean over height and width; the result is (1, 1, c)."""

    def _output_shape(self, *inputs: Shape) -> Shape:
        return (1, 1, inputs[0][2])


@dataclass(frozen=True, kw_only=True, eq=False)
class Activation(Layer):
    activation: ActivationName

    def _output_shape(self, *inputs: Shape) -> Shape:
        self._check_activation(self.activation)
        return inputs[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Softmax(Layer):
    """softmax(beta * x) over channels."""

    beta: float = 1.0

    def _output_shape(self, *inputs: Shape) -> Shape:
        if not _is_finite(self.beta):
            self._reject("beta", repr(self.beta), "a finite number")
        return inputs[0]


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


LAYER_TYPES = (
    Input, Conv2d, DepthwiseConv2d, FullyConnected, Add, AveragePool2d, MaxPool2d, GlobalAveragePool, Activation,
    Softmax, Reshape, Pad,
)  # fmt: skip


def infer_shapes(layers: Iterable[Layer]) -> dict[str, Shape]:
    """The output shape of every layer by its name, in the list's order.

    Raises TypeError for what is no known layer, ValueError (naming layer and argument) for a list that is no network:
    a name used twice, an input that no earlier layer gives, no Input, or shapes and arguments that do not fit.
    """
    shapes: dict[str, Shape] = {}
    has_input = False
    for index, layer in enumerate(layers):
        if not isinstance(layer, LAYER_TYPES):
            known = ", ".join(kind.__name__ for kind in LAYER_TYPES)
            raise TypeError(f"layers[{index}] was {type(layer).__name__}, must be one of {known}")
        if not _is_name(layer.name):
            layer._reject("name", repr(layer.name), "a non-empty string")
        if layer.name in shapes:
            layer._reject("name", repr(layer.name), "unlike the names of all earlier layers")
        if isinstance(layer.inputs, str):  # would be taken for a sequence of one-letter names
            layer._reject("inputs", repr(layer.inputs), "a tuple of layer names")
        for name in layer.inputs:
            if name not in shapes:
                layer._reject("inputs", layer.inputs, f"names of earlier layers, which {name!r} is not")
        has_input = has_input or isinstance(layer, Input)
        shapes[layer.name] = layer.output_shape(*(shapes[name] for name in layer.inputs))
    if not has_input:
        raise ValueError(f"layers held {len(shapes)} layers and no Input, must hold at least one Input")
    return shapes


def outputs(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Names of the layers that no layer reads, in the list's order: the network's outputs."""
    read = {name for layer in layers for name in layer.inputs}
    return tuple(layer.name for layer in layers if layer.name not in read)


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> Pair:
    """TensorFlow's SAME for one dimension, (before, after): ceil(size / stride) outputs, the odd element after."""
    positions = -(-size // stride)
    total = max((positions - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def array_shape(array: ArrayLike) -> tuple[int, ...]:
    """Shape of an array-like, without making an array of one that has a ``shape``."""
    shape = getattr(array, "shape", None)
    return tuple(int(n) for n in (np.shape(array) if shape is None else shape))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.floating)) and math.isfinite(value)


def _is_sequence(value: Any, length: int) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == length


def _are_integers(value: Any, count: int, *, minimum: int) -> bool:
    return _is_sequence(value, count) and all(
        isinstance(n, (int, np.integer)) and not isinstance(n, bool) and minimum <= n <= MAX_ELEMENTS for n in value
    )
