"""TFLite operators that move elements: parts and concatenations of channels, their shuffles, enlargements."""

from __future__ import annotations

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.graph import ActivationName, ChannelShuffle, ChannelSlice, Concat, Upsample
from sepconv.io._tflite_network import Matrix, Network, Value
from sepconv.io._tflite_options import Operator, image_input, named_activation, small_integers
from sepconv.io._tflite_schema import Options
from sepconv.io._tflite_tensors import MAX_RANK
from sepconv.lowering import float32_repeats

MAX_RESIZED = 4096  # rows or columns


def _charge_channels(network: Network, channels: int) -> None:
    network.budget.charge(40 * channels, "where each channel comes from")  # in a plan


def concatenation(network: Network, operator: Operator) -> None:
    options = operator.options_of(Options.CONCATENATION)
    if named_activation(options, 1) != "none":
        raise UnsupportedError("a concatenation with a fused activation is not supported")
    if not operator.inputs:
        raise ModelFormatError("there is no input")
    values = [network.value(operator.input(position, "a part")) for position in range(len(operator.inputs))]
    first = values[0].shape
    axis = options.integer(0, "i")
    if axis not in (-1, len(first) - 1):
        raise UnsupportedError(f"the parts are joined along axis {axis}; it must be the last, the channels")
    for value in values:
        if value.shape[:-1] != first[:-1]:
            raise ModelFormatError(f"the parts have the shapes {list(first)} and {list(value.shape)}")
    channels = sum(value.shape[-1] for value in values)
    _charge_channels(network, channels)
    layer = Concat(name=network.unique_name(operator.output), inputs=tuple(value.layer for value in values))
    implied = {network.tensors.get(index).implied_activation() for index in operator.inputs}
    known: tuple[ActivationName, ...] = tuple(implied) if len(implied) == 1 else ()
    network.add_saturated(layer, operator.output, (*first[:-1], channels), known)


def slice_(network: Network, operator: Operator) -> None:
    source = network.value(operator.input(0, "the activation"))
    rank = len(source.shape)
    begins = small_integers(network, operator, 1, "the begin", MAX_RANK)
    sizes = small_integers(network, operator, 2, "the size", MAX_RANK)
    if len(begins) != rank or len(sizes) != rank:
        raise ModelFormatError(f"begin and size have {len(begins)} and {len(sizes)} elements; they must have {rank}")
    ends = []
    for extent, begin, size in zip(source.shape, begins, sizes, strict=True):
        end = extent if size == -1 else begin + size
        if not 0 <= begin < end <= extent:
            raise ModelFormatError(f"begin {begins} and size {sizes} reach out of the shape {list(source.shape)}")
        ends.append(end)
    if any(begins[:-1]) or tuple(ends[:-1]) != source.shape[:-1]:
        raise UnsupportedError(f"begin {begins} and size {sizes} take a part of other than the channels")
    network.check_range_kept(operator.inputs[0], operator.output)
    _charge_channels(network, ends[-1] - begins[-1])
    layer = ChannelSlice(
        name=network.unique_name(operator.output), inputs=(source.layer,), begin=begins[-1], end=ends[-1]
    )
    network.add(layer, operator.output, (*source.shape[:-1], ends[-1] - begins[-1]))


def resize_nearest_neighbor(network: Network, operator: Operator) -> None:
    options = operator.optional_options(Options.RESIZE_NEAREST_NEIGHBOR)
    if options is not None and (options.integer(0, "B") or options.integer(1, "B")):
        raise UnsupportedError("aligned corners and half pixel centers are not supported")
    source = image_input(network, operator)
    network.check_range_kept(operator.inputs[0], operator.output)
    sizes = small_integers(network, operator, 1, "the size", 2)
    if len(sizes) != 2 or min(sizes) < 1:
        raise ModelFormatError(f"the size is {sizes}; it must be height and width, at least 1")
    if max(sizes) > MAX_RESIZED:
        raise UnsupportedError(f"the size is {sizes}; it can be at most {MAX_RESIZED}")
    for before, after in zip(source.shape[1:3], sizes, strict=True):
        if after < before or not float32_repeats(before, after):
            raise UnsupportedError(f"{before} rows or columns become {after}; only some enlargements are supported")
    layer = Upsample(name=network.unique_name(operator.output), inputs=(source.layer,), size=(sizes[0], sizes[1]))
    network.add(layer, operator.output, (source.shape[0], *sizes, source.shape[3]))


# --- Shuffles of channels: they are made a matrix, which is transposed, and a vector again


def split_channels(network: Network, operator: Operator, source: Value, shape: tuple[int, ...]) -> bool:
    """Takes a reshape that is a step of a shuffle: [n, h, w, c] to [n, h, w, rows, columns], or back; else False."""
    matrix = network.matrix(operator.input(0, "the activation"))
    if matrix is not None:
        if not matrix.swapped or shape != source.shape:
            raise UnsupportedError(f"a matrix of channels, {list(matrix.shape)}, becomes {list(shape)}: no shuffle")
        _charge_channels(network, source.shape[-1])
        layer = ChannelShuffle(name=network.unique_name(operator.output), inputs=(source.layer,), groups=matrix.groups)
        network.add(layer, operator.output, shape)
        return True
    if len(shape) != 5 or shape[:3] != source.shape[:3] or len(source.shape) != 4:
        return False
    network.set_matrix(operator.output, Matrix(source, shape[3]))
    return True


def transpose(network: Network, operator: Operator) -> None:
    matrix = network.matrix(operator.input(0, "the activation"))
    order = small_integers(network, operator, 1, "the permutation", MAX_RANK)
    if matrix is None or matrix.swapped or order != [0, 1, 2, 4, 3]:
        raise UnsupportedError(f"the permutation {order} is not a step of a shuffle of channels")
    network.set_matrix(operator.output, Matrix(matrix.source, matrix.groups, swapped=True))
