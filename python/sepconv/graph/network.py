"""Lists of layers as networks: their shapes and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sepconv.graph.base import Layer, Pair, Shape, is_name
from sepconv.graph.layers import (
    Activation,
    Add,
    AveragePool2d,
    GlobalAveragePool,
    Input,
    MaxPool2d,
    Mul,
    Softmax,
)
from sepconv.graph.moving import ChannelShuffle, ChannelSlice, Concat, Pad, Reshape, Upsample
from sepconv.graph.weighted import Conv2d, DepthwiseConv2d, FullyConnected, LayerNorm, PRelu

LAYER_TYPES = (
    Input, Conv2d, DepthwiseConv2d, FullyConnected, Add, Mul, AveragePool2d, MaxPool2d, GlobalAveragePool, Activation,
    Softmax, PRelu, LayerNorm, Reshape, Pad, Concat, ChannelSlice, ChannelShuffle, Upsample,
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
        if not is_name(layer.name):
            layer._reject("name", repr(layer.name), "a non-empty string that UTF-8 can say")
        if layer.name in shapes:
            layer._reject("name", repr(layer.name), "unlike the names of all earlier layers")
        inputs: Any = layer.inputs
        if not isinstance(inputs, tuple | list) or not all(map(is_name, inputs)):
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
    """Names of the layers that no layer reads, in the list's order: the network's outputs. Inputs only if all are."""
    read = {name for layer in layers for name in layer.inputs}
    unread = [layer for layer in layers if layer.name not in read]
    computed = [layer for layer in unread if not isinstance(layer, Input)]
    return tuple(layer.name for layer in computed or unread)


def output_names(outputs: Any) -> tuple[str, ...] | None:
    """An argument that chooses outputs, None or a sequence of names. TypeError for another, a single name too."""
    if outputs is None:
        return None
    ordered = isinstance(outputs, Iterable) and not isinstance(outputs, str | bytes | set | frozenset)
    names = tuple(outputs) if ordered else (None,)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"outputs was {outputs!r}, must be a sequence of names or None")
    return names


def chosen_outputs(layers: Sequence[Layer], outputs_argument: Any, network: str) -> tuple[str, ...]:
    """The outputs that an argument chooses, in its order; those that no layer reads where it is None.

    TypeError for what is no sequence of names, ValueError for a name of no layer, or none at all; ``network`` is what
    the message calls the list.
    """
    chosen = output_names(outputs_argument)
    if chosen is None:
        return outputs(layers)
    names = {layer.name for layer in layers}
    for output in chosen:
        if output not in names:
            raise ValueError(f"outputs has {output!r}, must name layers of {network}, such as {layers[-1].name!r}")
    if not chosen:
        raise ValueError(f"outputs is empty, must name at least one layer of {network}")
    return chosen


def needed_layers(layers: Sequence[Layer], outputs: Iterable[str]) -> list[Layer]:
    """The inputs, and the layers that an output depends on."""
    needed, kept = set(outputs), []
    for layer in reversed(layers):
        if layer.name in needed or isinstance(layer, Input):
            needed.update(layer.inputs)
            kept.append(layer)
    return kept[::-1]


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> Pair:
    """TensorFlow's SAME for one dimension, (before, after): ceil(size / stride) outputs, the odd element after.

    Raises ValueError where size is negative, or kernel, stride or dilation less than 1.
    """
    limits = {"size": (size, 0), "kernel": (kernel, 1), "stride": (stride, 1), "dilation": (dilation, 1)}
    for argument, (number, least) in limits.items():
        if number < least:
            raise ValueError(f"{argument} was {number}, must be at least {least}")
    positions = -(-size // stride)
    total = max((positions - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
