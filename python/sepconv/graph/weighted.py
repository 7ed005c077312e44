"""Layers with weights: convolutions, the fully connected layer, PReLU and layer normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from sepconv.graph.base import NO_PADDING, ActivationName, Layer, Padding, Pair, Shape, array_shape, is_finite


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchNorm:
    """y = gamma * (x - mean) / sqrt(variance + epsilon) + beta, each array of shape [channels]."""

    gamma: ArrayLike
    beta: ArrayLike
    mean: ArrayLike
    variance: ArrayLike
    epsilon: float


BATCH_NORM_ARRAYS = ("gamma", "beta", "mean", "variance")


@dataclass(frozen=True, kw_only=True, eq=False)
class PRelu(Layer):
    """y = x where x >= 0, else slope * x, the slope of shape [channels] (arXiv 1502.01852)."""

    slope: ArrayLike

    def params(self) -> int:
        return math.prod(array_shape(self.slope))

    def _output_shape(self, *inputs: Shape) -> Shape:
        self._check_array("slope", self.slope, C=inputs[0][2])
        return inputs[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerNorm(Layer):
    """y = scale * (x - mean) / sqrt(variance + epsilon) + bias over the channels of each pixel (arXiv 1607.06450).

    scale and bias have the shape [channels]; None is 1 and 0.
    """

    scale: ArrayLike | None = None
    bias: ArrayLike | None = None
    epsilon: float = 1e-5

    def params(self) -> int:
        return sum(math.prod(array_shape(array)) for array in (self.scale, self.bias) if array is not None)

    def _output_shape(self, *inputs: Shape) -> Shape:
        for argument in ("scale", "bias"):
            if getattr(self, argument) is not None:
                self._check_array(argument, getattr(self, argument), C=inputs[0][2])
        if not (is_finite(self.epsilon) and self.epsilon >= 0):
            self._reject("epsilon", repr(self.epsilon), "a finite number of at least 0")
        return inputs[0]


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
            if not isinstance(self.batch_norm, BatchNorm):
                self._reject("batch_norm", repr(self.batch_norm), "a BatchNorm or None")
            for argument in BATCH_NORM_ARRAYS:
                self._check_array(f"batch_norm.{argument}", getattr(self.batch_norm, argument), N=channels)
            epsilon = self.batch_norm.epsilon
            if not (is_finite(epsilon) and epsilon >= 0):
                self._reject("batch_norm.epsilon", repr(epsilon), "a finite number of at least 0")
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
