"""The layer list: what a network is, before any kernel is chosen.

A network is a plain list of the dataclasses below, in order of execution. A layer's output is known by the layer's
name; ``inputs`` names the layers it reads. Model builders and importers both produce such lists, and
:class:`sepconv.Model` compiles them.

Activations are NHWC; a shape is one image's (height, width, channels). Weights are as TensorFlow holds them: dense
``[kh, kw, C, N]``, depthwise ``[kh, kw, C, M]`` (output channel ``c*M + m``), fully connected ``[C, N]``. Paddings are
explicit: ``((top, bottom), (left, right))``. Arrays are only asked for their shape here, so they may be lazy.
"""

from __future__ import annotations

from sepconv.graph.base import (
    INPUT_DTYPES,
    MAX_ELEMENTS,
    NO_PADDING,
    ActivationName,
    Layer,
    Padding,
    Pair,
    Shape,
    array_shape,
)
from sepconv.graph.layers import (
    Activation,
    Add,
    AveragePool2d,
    GlobalAveragePool,
    Input,
    MaxPool2d,
    Mul,
    Pool2d,
    Softmax,
)
from sepconv.graph.moving import ChannelShuffle, ChannelSlice, Concat, Pad, Reshape, Upsample
from sepconv.graph.network import (
    LAYER_TYPES,
    chosen_outputs,
    infer_shapes,
    needed_layers,
    output_names,
    outputs,
    same_padding,
)
from sepconv.graph.weighted import (
    BatchNorm,
    Conv2d,
    Convolution,
    DepthwiseConv2d,
    FullyConnected,
    LayerNorm,
    PRelu,
    WeightedLayer,
)

__all__ = [
    "INPUT_DTYPES",
    "LAYER_TYPES",
    "MAX_ELEMENTS",
    "NO_PADDING",
    "Activation",
    "ActivationName",
    "Add",
    "AveragePool2d",
    "BatchNorm",
    "ChannelShuffle",
    "ChannelSlice",
    "Concat",
    "Conv2d",
    "Convolution",
    "DepthwiseConv2d",
    "FullyConnected",
    "GlobalAveragePool",
    "Input",
    "Layer",
    "LayerNorm",
    "MaxPool2d",
    "Mul",
    "PRelu",
    "Pad",
    "Padding",
    "Pair",
    "Pool2d",
    "Reshape",
    "Shape",
    "Softmax",
    "Upsample",
    "WeightedLayer",
    "array_shape",
    "chosen_outputs",
    "infer_shapes",
    "needed_layers",
    "output_names",
    "outputs",
    "same_padding",
]
