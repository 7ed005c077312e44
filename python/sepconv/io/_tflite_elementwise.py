"""TFLite's sums and products: of two activations, or of an activation and constants."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.graph import Activation, ActivationName, Add, DepthwiseConv2d, Mul, PRelu
from sepconv.io._tflite_network import Network, Value
from sepconv.io._tflite_options import Operator, fused_activation
from sepconv.io._tflite_schema import Options

_FLOATS = ("FLOAT32", "FLOAT16")


def add(network: Network, operator: Operator) -> None:
    activation = fused_activation(network, operator, operator.optional_options(Options.ADD), 0)
    constant = _constant_operand(network, operator)
    if constant is not None:
        source, values = constant
        layer = _each_channel(network, operator, source, None, values, activation)
        if activation == "relu6" and bool(np.all(values == 3.0)):
            network.shifted[layer.name] = source
        return
    left, right = (network.value(operator.input(position, "a summand")) for position in (0, 1))
    if left.shape != right.shape:
        raise UnsupportedError(f"the summands have the shapes {list(left.shape)} and {list(right.shape)}, not the same")
    sums = Add(name=network.unique_name(operator.output), inputs=(left.layer, right.layer), activation=activation)
    network.add(sums, operator.output, left.shape)


def mul(network: Network, operator: Operator) -> None:
    activation = fused_activation(network, operator, operator.optional_options(Options.MUL), 0)
    constant = _constant_operand(network, operator)
    if constant is not None:
        source, values = constant
        inner = network.shifted.get(source.layer)
        if inner is not None and activation == "none" and bool(np.all(np.abs(values - 1 / 6) < 1e-6 / 6)):
            name = network.unique_name(operator.output)
            network.add(
                Activation(name=name, inputs=(inner.layer,), activation="hard_sigmoid"), operator.output, source.shape
            )
        else:
            _each_channel(network, operator, source, values, None, activation)
        return
    image, factor = (network.value(operator.input(position, "a factor")) for position in (0, 1))
    if len(image.shape) == 4 and image.shape[1:3] == (1, 1):
        image, factor = factor, image
    each_channel = (*image.shape[:1], 1, 1, *image.shape[3:])
    if factor.shape != image.shape and (len(image.shape) != 4 or factor.shape != each_channel):
        raise UnsupportedError(
            f"the factors have the shapes {list(image.shape)} and {list(factor.shape)}; they must be the same, or one "
            "[n, 1, 1, c]"
        )
    layer = Mul(name=network.unique_name(operator.output), inputs=(image.layer, factor.layer), activation=activation)
    network.add(layer, operator.output, image.shape)


def prelu(network: Network, operator: Operator) -> None:
    constant = _constant_operand(network, operator)
    if constant is None or network.is_activation(operator.input(1, "the slope")):
        raise UnsupportedError("the slope is no constant")
    _add_slope(network, operator, *constant)


def leaky_relu(network: Network, operator: Operator) -> None:
    source = network.value(operator.input(0, "the activation"))
    slope = operator.options_of(Options.LEAKY_RELU).real(0)
    if not math.isfinite(slope):
        raise ModelFormatError(f"the slope is {slope}; it must be finite")
    network.budget.charge(12 * source.shape[-1], "the slope")  # of its layer, each channel's and packed
    _add_slope(network, operator, source, np.broadcast_to(np.float32(slope), source.shape[-1:]))


def _add_slope(network: Network, operator: Operator, source: Value, slope: NDArray[np.float32]) -> None:
    layer = PRelu(name=network.unique_name(operator.output), inputs=(source.layer,), slope=slope)
    network.add_saturated(layer, operator.output, source.shape)


def _constant_operand(network: Network, operator: Operator) -> tuple[Value, NDArray[np.float32]] | None:
    """The activation, and a constant as one value a channel, where one of the operands is constant."""
    indices = [operator.input(position, "an operand") for position in (0, 1)]
    constants = [not network.is_activation(index) and network.constant(index).is_constant for index in indices]
    if constants not in ([True, False], [False, True]):
        return None
    place = constants.index(True)
    source = network.value(indices[1 - place])
    stored = network.constant(indices[place]).values("the constant operand", _FLOATS)
    channels = source.shape[-1]
    last = stored.shape[-1] if stored.ndim else 1
    if stored.size not in (1, channels) or stored.size != last or stored.ndim > len(source.shape):
        raise UnsupportedError(
            f"the constant operand has the shape {list(stored.shape)}; it must hold one value, or one for each of the "
            f"{channels} channels"
        )
    if not np.isfinite(stored).all():
        raise ModelFormatError("the constant operand holds values that are not finite")
    network.budget.charge(8 * channels, "the constant operand")  # its layer's weights and biases
    return source, np.broadcast_to(stored.astype(np.float32).reshape(-1), (channels,))


def _each_channel(
    network: Network,
    operator: Operator,
    source: Value,
    factors: NDArray[np.float32] | None,
    terms: NDArray[np.float32] | None,
    activation: ActivationName,
) -> DepthwiseConv2d:
    """factor * x + term for each channel, as a depthwise convolution of one pixel."""
    channels = source.shape[-1]
    ones = np.broadcast_to(np.float32(1), (channels,))
    layer = DepthwiseConv2d(
        name=network.unique_name(operator.output),
        inputs=(source.layer,),
        weight=(ones if factors is None else factors)[None, None, :, None],
        bias=terms,
        activation=activation,
    )
    network.add(layer, operator.output, source.shape)
    return layer
