"""TFLite operators as layers, one function an operator."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.graph import (
    Activation,
    ActivationName,
    AveragePool2d,
    Conv2d,
    DepthwiseConv2d,
    FullyConnected,
    GlobalAveragePool,
    MaxPool2d,
    Pad,
    Padding,
    Reshape,
    Softmax,
)
from sepconv.io._tflite_elementwise import add, leaky_relu, mul, prelu
from sepconv.io._tflite_moving import concatenation, resize_nearest_neighbor, slice_, split_channels, transpose
from sepconv.io._tflite_network import Network, Value
from sepconv.io._tflite_options import (
    MAX_STEP,
    Operator,
    fused_activation,
    image_input,
    named_activation,
    padded_extents,
    pair,
    place_windows,
    small_integers,
)
from sepconv.io._tflite_schema import Options
from sepconv.io._tflite_tensors import BIAS_TYPES, MAX_RANK, WEIGHT_TYPES, Weights


def _bias(network: Network, operator: Operator, weight: Weights, channels: int) -> ArrayLike | None:
    index = operator.optional_input(2)
    if index is None:
        return None
    bias = network.constant(index).weights("the bias", BIAS_TYPES, 0, network.budget)
    if bias.stored.size != channels:
        raise ModelFormatError(f"the bias has {bias.stored.size} elements; it must have {channels}")
    source = network.tensors.get(operator.input(0, "the activation"))
    if bias.scale is not None and weight.scale is not None and source.type_name in ("INT8", "UINT8"):
        scale = weight.scale * source.scalar_quantization("the input")[0]  # that of the sums, whatever the file says
        if np.any(np.abs(bias.scale - scale) > 0.02 * scale):
            raise ModelFormatError("the bias has other quantisation scales than the input's times the weights'")
    return bias.arranged(bias.stored.reshape(channels), (channels,))


def _conv_2d(network: Network, operator: Operator) -> None:
    options = operator.options_of(Options.CONV_2D)
    source = image_input(network, operator)
    weight = network.constant(operator.input(1, "the weight")).weights("the weight", WEIGHT_TYPES, 0, network.budget)
    if weight.stored.ndim != 4:
        raise ModelFormatError(f"the weights have the shape {list(weight.stored.shape)}; it must be [n, kh, kw, c]")
    count, kernel_height, kernel_width, channels = weight.stored.shape
    if channels != source.shape[3]:
        grouped = source.shape[3] % channels == 0
        raise (UnsupportedError if grouped else ModelFormatError)(
            f"the weights have {channels} input channels; they must have the input's {source.shape[3]}"
            + (": grouped convolutions are not supported" if grouped else "")
        )
    stride = pair(options, 2, 1, "the stride")
    dilation = pair(options, 5, 4, "the dilation", default=1)
    window = place_windows(network, source, (kernel_height, kernel_width), stride, dilation, options.integer(0, "b"))
    layer = Conv2d(
        name=network.unique_name(operator.output),
        inputs=(source.layer,),
        weight=weight.arranged(weight.stored.transpose(1, 2, 3, 0), (count,)),
        bias=_bias(network, operator, weight, count),
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        activation=fused_activation(network, operator, options, 3),
    )
    network.add(layer, operator.output, (source.shape[0], *window.extent, count))


def _depthwise_conv_2d(network: Network, operator: Operator) -> None:
    options = operator.options_of(Options.DEPTHWISE_CONV_2D)
    source = image_input(network, operator)
    weight = network.constant(operator.input(1, "the weight")).weights("the weight", WEIGHT_TYPES, 3, network.budget)
    if weight.stored.ndim != 4 or weight.stored.shape[0] != 1:
        raise ModelFormatError(f"the weights have the shape {list(weight.stored.shape)}; it must be [1, kh, kw, c*m]")
    _, kernel_height, kernel_width, count = weight.stored.shape
    channels = source.shape[3]
    multiplier, rest = divmod(count, channels)
    if rest or options.integer(3, "i") not in (0, multiplier):
        raise ModelFormatError(
            f"the weights have {count} channels; they must have the depth multiplier {options.integer(3, 'i')} times "
            f"the input's {channels}"
        )
    stride = pair(options, 2, 1, "the stride")
    dilation = pair(options, 6, 5, "the dilation", default=1)
    window = place_windows(network, source, (kernel_height, kernel_width), stride, dilation, options.integer(0, "b"))
    stored = weight.stored.reshape(kernel_height, kernel_width, channels, multiplier)
    layer = DepthwiseConv2d(
        name=network.unique_name(operator.output),
        inputs=(source.layer,),
        weight=weight.arranged(stored, (channels, multiplier)),
        bias=_bias(network, operator, weight, count),
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        activation=fused_activation(network, operator, options, 4),
    )
    network.add(layer, operator.output, (source.shape[0], *window.extent, count))


def _fully_connected(network: Network, operator: Operator) -> None:
    options = operator.options_of(Options.FULLY_CONNECTED)
    if options.integer(1, "b"):
        raise UnsupportedError("the weights are stored in a shuffled format")
    source = network.value(operator.input(0, "the activation"))
    weight = network.constant(operator.input(1, "the weight")).weights("the weight", WEIGHT_TYPES, 0, network.budget)
    if weight.stored.ndim != 2:
        raise ModelFormatError(f"the weights have the shape {list(weight.stored.shape)}; it must be [n, k]")
    count, depth = weight.stored.shape
    height, width, channels = network.image_shape(source.shape)
    if height * width * channels != depth:
        raise UnsupportedError(
            f"the weights take {depth} values and one image gives {height * width * channels}; to apply them to a part "
            "of an image is not supported"
        )
    layer = FullyConnected(
        name=network.unique_name(operator.output),
        inputs=(source.layer,),
        weight=weight.arranged(weight.stored.T, (count,)),
        bias=_bias(network, operator, weight, count),
        activation=fused_activation(network, operator, options, 0),
    )
    keep_dimensions = bool(options.integer(2, "B"))
    if keep_dimensions and source.shape[-1] != depth:
        raise ModelFormatError(f"the weights take {depth} values; the last axis that is kept has {source.shape[-1]}")
    batch = source.shape[:-1] if keep_dimensions else (network.batch,)
    network.add(layer, operator.output, (*batch, count))


def _pool(network: Network, operator: Operator, kind: type[AveragePool2d] | type[MaxPool2d]) -> None:
    options = operator.options_of(Options.POOL_2D)
    source = image_input(network, operator)
    network.check_range_kept(operator.inputs[0], operator.output)
    kernel = pair(options, 4, 3, "the kernel")
    stride = pair(options, 2, 1, "the stride")
    window = place_windows(network, source, kernel, stride, (1, 1), options.integer(0, "b"))
    layer = kind(
        name=network.unique_name(operator.output),
        inputs=(source.layer,),
        kernel=kernel,
        stride=stride,
        padding=window.padding,
        activation=named_activation(options, 5),  # the output's range is the input's
    )
    network.add(layer, operator.output, (source.shape[0], *window.extent, source.shape[3]))


def _mean(network: Network, operator: Operator) -> None:
    options = operator.optional_options(Options.REDUCER)
    source = image_input(network, operator)
    axes = small_integers(network, operator, 1, "the axis", MAX_RANK)
    if {axis + 4 if axis < 0 else axis for axis in axes} != {1, 2}:
        raise UnsupportedError(f"the mean is over the axes {axes}; they must be 1 and 2, height and width")
    keep_dimensions = options is not None and bool(options.integer(0, "B"))
    batch, _, _, channels = source.shape
    layer = GlobalAveragePool(name=network.unique_name(operator.output), inputs=(source.layer,))
    # The mean of what lies in such a range lies there too.
    before = network.tensors.get(operator.inputs[0]).implied_activation()
    known: tuple[ActivationName, ...] = (before, "relu") if before != "none" else ()
    shape = (batch, 1, 1, channels) if keep_dimensions else (batch, channels)
    network.add_saturated(layer, operator.output, shape, known)


def _pad(network: Network, operator: Operator) -> None:
    source = image_input(network, operator)
    network.check_range_kept(operator.inputs[0], operator.output)
    widths = small_integers(network, operator, 1, "the padding", 2 * MAX_RANK)
    if len(widths) != 8 or min(widths) < 0:
        raise ModelFormatError(f"the paddings are {widths}; they must be 4 pairs of integers not below 0")
    if any(widths[:2]) or any(widths[6:]):
        raise UnsupportedError(f"the paddings are {widths}; only height and width may be padded")
    if max(widths) > MAX_STEP:
        raise UnsupportedError(f"the paddings are {widths}; they can be at most {MAX_STEP}")
    padding: Padding = ((widths[2], widths[3]), (widths[4], widths[5]))
    layer = Pad(name=network.unique_name(operator.output), inputs=(source.layer,), padding=padding)
    network.add(layer, operator.output, (source.shape[0], *padded_extents(source, padding)))


def _add_reshape(network: Network, operator: Operator, source: Value, shape: tuple[int, ...]) -> None:
    layer = Reshape(name=network.unique_name(operator.output), inputs=(source.layer,), shape=network.image_shape(shape))
    network.add(layer, operator.output, shape)


def _reshape(network: Network, operator: Operator) -> None:
    index = operator.input(0, "the activation")
    matrix = network.matrix(index)
    source = network.value(index) if matrix is None else matrix.source
    network.check_range_kept(index, operator.output)
    options = operator.optional_options(Options.RESHAPE)
    # The shape is the second input, or an option in older files, or else that of the output tensor.
    option = [] if options is None else options.integers(0, MAX_RANK + 1)[1]
    given = operator.optional_input(1)
    if given is not None:
        shape = small_integers(network, operator, 1, "the shape", MAX_RANK)
        tensor = network.constant(given)
        if option not in ([], shape) and (tensor.type_name != "INT32" or len(tensor.shape) != 1):
            raise ModelFormatError(f"the new shape is {shape} by the input, but {option} by the options")
    else:
        shape = option or list(network.tensors.get(operator.output).shape)
    size = math.prod(source.shape)
    known = math.prod(extent for extent in shape if extent != -1)
    if len(shape) > MAX_RANK or shape.count(-1) > 1 or known < 1 or min(shape, default=1) < -1 or size % known:
        raise ModelFormatError(f"the new shape {shape} does not fit the input's {list(source.shape)}")
    resolved = tuple(size // known if extent == -1 else extent for extent in shape)
    if math.prod(resolved) != size:
        raise ModelFormatError(f"the new shape {shape} has another number of elements than {list(source.shape)}")
    if matrix is None and resolved == source.shape:
        _activation(network, operator, "none")  # an image of one pixel is no vector after it, as by a Reshape it were
    elif not split_channels(network, operator, source, resolved):
        _add_reshape(network, operator, source, resolved)


def _squeeze(network: Network, operator: Operator) -> None:
    source = network.value(operator.input(0, "the activation"))
    network.check_range_kept(operator.inputs[0], operator.output)
    options = operator.optional_options(Options.SQUEEZE)
    rank = len(source.shape)
    axes = [] if options is None else options.integers(0, MAX_RANK + 1)[1]
    removed = {axis + rank if axis < 0 else axis for axis in axes}
    if not axes:
        removed = {axis for axis, extent in enumerate(source.shape) if extent == 1}
    if len(axes) > MAX_RANK or any(not 0 <= axis < rank or source.shape[axis] != 1 for axis in removed):
        raise ModelFormatError(f"the dimensions {axes} of the shape {list(source.shape)} are not all of size 1")
    _add_reshape(
        network, operator, source, tuple(extent for axis, extent in enumerate(source.shape) if axis not in removed)
    )


def _softmax(network: Network, operator: Operator) -> None:
    source = network.value(operator.input(0, "the activation"))
    beta = operator.options_of(Options.SOFTMAX).real(0)
    if not math.isfinite(beta):
        raise ModelFormatError(f"beta is {beta}; it must be finite")
    layer = Softmax(name=network.unique_name(operator.output), inputs=(source.layer,), beta=beta)
    network.add(layer, operator.output, source.shape)


def _activation(network: Network, operator: Operator, name: ActivationName) -> None:
    source = network.value(operator.input(0, "the activation"))
    layer = Activation(name=network.unique_name(operator.output), inputs=(source.layer,), activation=name)
    known: tuple[ActivationName, ...] = ("relu", "relu6") if name in ("relu", "relu6", "sigmoid") else ()
    network.add_saturated(layer, operator.output, source.shape, known)


def _gelu(network: Network, operator: Operator) -> None:
    options = operator.optional_options(Options.GELU)
    approximate = options is not None and options.integer(0, "b") != 0
    _activation(network, operator, "gelu_tanh" if approximate else "gelu")


def _quantize(network: Network, operator: Operator) -> None:
    source, target = (network.tensors.get(index) for index in (operator.input(0, "the activation"), operator.output))
    activation = target.implied_activation()
    if activation in ("none", source.implied_activation()):
        network.add_alias(operator.output, network.value(operator.inputs[0]))
    else:
        _activation(network, operator, activation)


def _dequantize(network: Network, operator: Operator) -> None:
    """Of an activation: nothing to do. Of a constant: the reader of the output takes the constant itself."""
    index = operator.input(0, "the tensor")
    if network.is_activation(index) or not network.constant(index).is_constant:
        _quantize(network, operator)
    else:
        network.set_constant(operator.output, network.constant(index))


_TRANSLATORS: dict[str, Callable[[Network, Operator], None]] = {
    "ADD": add,
    "AVERAGE_POOL_2D": lambda network, operator: _pool(network, operator, AveragePool2d),
    "CONCATENATION": concatenation,
    "CONV_2D": _conv_2d,
    "DEPTHWISE_CONV_2D": _depthwise_conv_2d,
    "DEQUANTIZE": _dequantize,
    "FULLY_CONNECTED": _fully_connected,
    "GELU": _gelu,
    "HARD_SWISH": lambda network, operator: _activation(network, operator, "hard_swish"),
    "LEAKY_RELU": leaky_relu,
    "LOGISTIC": lambda network, operator: _activation(network, operator, "sigmoid"),
    "MAX_POOL_2D": lambda network, operator: _pool(network, operator, MaxPool2d),
    "MEAN": _mean,
    "MUL": mul,
    "PAD": _pad,
    "PRELU": prelu,
    "QUANTIZE": _quantize,
    "RELU": lambda network, operator: _activation(network, operator, "relu"),
    "RELU6": lambda network, operator: _activation(network, operator, "relu6"),
    "RESHAPE": _reshape,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest_neighbor,
    "SLICE": slice_,
    "SOFTMAX": _softmax,
    "SQUEEZE": _squeeze,
    "TRANSPOSE": transpose,
}


def translate(network: Network, operator: Operator) -> None:
    """Appends the operator's layer to the network."""
    if operator.kind not in _TRANSLATORS:
        raise UnsupportedError(f"this operator is not supported; supported are {', '.join(_TRANSLATORS)}")
    if len(operator.outputs) != 1:
        raise ModelFormatError(f"there are {len(operator.outputs)} outputs; there must be one")
    _TRANSLATORS[operator.kind](network, operator)
