"""The layer list as a float32 TFLite file, NHWC."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sepconv.errors import UnsupportedError
from sepconv.export.arrays import float32
from sepconv.export.shared import check_batch, check_size, check_upsample, ends
from sepconv.export.tflite_builder import TfliteBuilder
from sepconv.graph import (
    NO_PADDING,
    Activation,
    Add,
    AveragePool2d,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Conv2d,
    Convolution,
    FullyConnected,
    GlobalAveragePool,
    Input,
    Layer,
    LayerNorm,
    MaxPool2d,
    Mul,
    Pad,
    Padding,
    Pair,
    PRelu,
    Reshape,
    Softmax,
    Upsample,
    infer_shapes,
    same_padding,
)
from sepconv.layer_lists import LayersLike
from sepconv.lowering import folded, vectors
from sepconv.paths import checked_path, write_files

_Windowed = Convolution | AveragePool2d | MaxPool2d
_SAME, _VALID = 0, 1
_FUSED = {"none": 0, "relu": 1, "relu6": 3}
_UNARY = {"relu": "RELU", "relu6": "RELU6", "hard_swish": "HARD_SWISH", "sigmoid": "LOGISTIC"}


def write_tflite(
    layers: LayersLike,
    path: str | os.PathLike[str],
    batch: int | None = None,
    outputs: Sequence[str] | None = None,
) -> None:
    """Write :func:`to_tflite`'s bytes."""
    write_files({checked_path(path): to_tflite(layers, 1 if batch is None else batch, outputs)})


def to_tflite(layers: LayersLike, batch: int = 1, outputs: Sequence[str] | None = None) -> bytes:
    """A TFLite file for ``batch`` images, with BatchNorm folded. A result's tensor has its layer's name.

    ``layers`` and ``outputs`` as for :func:`sepconv.export.export_model`.

    Raises ValueError for what is no network and no number of images, UnsupportedError for what TFLite has no operator
    for, MissingExtraError without the packages tflite and flatbuffers.
    """
    batch = check_batch(batch)
    needed, names = ends(layers, outputs)
    check_size(needed, "a TFLite file")
    network = _Network(needed, batch, names)
    for layer in needed:
        network.add(layer)
    return network.builder.finish(*(network.values[name] for name in names))


class _Network:
    """Operators so far; ``values`` has the index of each layer's result."""

    def __init__(self, layers: Sequence[Layer], batch: int, outputs: Sequence[str]) -> None:
        self.builder = TfliteBuilder()
        self.shapes = infer_shapes(layers)
        self.vectors = vectors(layers)
        self.batch = batch
        self.values: dict[str, int] = {}
        self.images: dict[str, int] = {}
        # Pooled results that only convolutions read, as in a squeeze-and-excitation.
        others = {x for layer in layers if not isinstance(layer, Convolution) for x in layer.inputs} | {*outputs}
        read = {x for layer in layers for x in layer.inputs}
        pooled = {layer.name for layer in layers if isinstance(layer, GlobalAveragePool)}
        self.kept_images = (pooled & read) - others

    def add(self, layer: Layer) -> None:
        name = layer.name
        match layer:
            case Input():
                self.values[name] = self.builder.tensor(name, self._shape(name))
                self.builder.inputs.append(self.values[name])
            case Convolution():
                self._convolution(layer)
            case FullyConnected():
                weight = self._constant(f"{name}.weight", np.asarray(layer.weight).T)
                bias = np.zeros(self.shapes[name][2]) if layer.bias is None else layer.bias
                inputs = [self.values[layer.inputs[0]], weight, self._constant(f"{name}.bias", bias)]
                self._fused(layer, "FULLY_CONNECTED", inputs, layer.activation, "FullyConnectedOptions")
            case Add():
                self._fused(layer, "ADD", self._alike(layer), layer.activation, "AddOptions")
            case Mul():
                self._fused(layer, "MUL", self._alike(layer), layer.activation, "MulOptions")
            case AveragePool2d() | MaxPool2d():
                self._pool(layer)
            case GlobalAveragePool():
                self._mean(layer)
            case Activation():
                self._activate(name, self.values[layer.inputs[0]], layer.activation)
            case Softmax():
                if layer.beta < 0:  # exp(beta * (x - max)), as TFLite has it, is infinite there
                    self._reject(layer, f"beta {layer.beta},")
                self._operator(
                    layer, "SOFTMAX", [self.values[layer.inputs[0]]], "SoftmaxOptions", Beta=float(layer.beta)
                )
            case PRelu():
                shape = self._shape(name)
                slope = self._constant(
                    f"{name}.slope", np.asarray(layer.slope).reshape((1,) * (len(shape) - 2) + (-1,))
                )
                result = self.builder.tensor(name, shape)
                self.values[name] = self.builder.operator("PRELU", [self.values[layer.inputs[0]], slope], result)
            case LayerNorm():
                self._reject(layer, "a mean over channels,")
            case Reshape():
                self.values[name] = self._reshaped(self.values[layer.inputs[0]], name, self._shape(name))
            case Pad():
                self.values[name] = self._padded(self._image(layer.inputs[0]), self.shapes[name], layer.padding, name)
            case Concat():
                axis = len(self._shape(name)) - 1
                self._operator(layer, "CONCATENATION", self._alike(layer), "ConcatenationOptions", Axis=axis)
            case ChannelSlice():
                shape = self._shape(name)
                begin = self._integers(f"{name}.begin", [0] * (len(shape) - 1) + [int(layer.begin)])
                size = self._integers(f"{name}.size", shape)
                self._operator(layer, "SLICE", [*self._alike(layer), begin, size], "SliceOptions")
            case ChannelShuffle():
                self._shuffle(layer)
            case Upsample():
                check_upsample(layer, self.shapes[layer.inputs[0]], "TFLite")
                inputs = [self._image(layer.inputs[0]), self._integers(f"{name}.size", layer.size)]
                self._operator(layer, "RESIZE_NEAREST_NEIGHBOR", inputs, "ResizeNearestNeighborOptions")

    def _convolution(self, layer: Convolution) -> None:
        weight, bias = folded(layer)
        kh, kw = weight.shape[:2]
        padding = self._same_or_valid(layer, (kh, kw), layer.dilation)
        x = self._with_zeros(layer) if padding is None else self._image(layer.inputs[0])
        options: dict[str, Any] = {
            "Padding": _VALID if padding is None else padding,
            "StrideH": layer.stride[0],
            "StrideW": layer.stride[1],
            "DilationHFactor": layer.dilation[0],
            "DilationWFactor": layer.dilation[1],
        }
        if isinstance(layer, Conv2d):
            kind, table, weight = "CONV_2D", "Conv2DOptions", weight.transpose(3, 0, 1, 2)
        else:
            kind, table = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
            options["DepthMultiplier"] = weight.shape[3]
            weight = weight.reshape(1, kh, kw, -1)
        inputs = [x, self._constant(f"{layer.name}.weight", weight), self._constant(f"{layer.name}.bias", bias)]
        self._fused(layer, kind, inputs, layer.activation, table, **options)

    def _pool(self, layer: AveragePool2d | MaxPool2d) -> None:
        padding = self._same_or_valid(layer, layer.kernel, (1, 1))
        if isinstance(layer, AveragePool2d) and layer.include_padding and layer.padding != NO_PADDING:
            x, padding = self._with_zeros(layer), _VALID
        else:
            x = self._image(layer.inputs[0])
        if padding is None:
            self._reject(layer, f"padding {layer.padding}, which is neither TensorFlow's SAME nor none,")
        options = {"FilterHeight": layer.kernel[0], "FilterWidth": layer.kernel[1], "Padding": padding}
        options |= {"StrideH": layer.stride[0], "StrideW": layer.stride[1]}
        kind = "AVERAGE_POOL_2D" if isinstance(layer, AveragePool2d) else "MAX_POOL_2D"
        self._fused(layer, kind, [x], layer.activation, "Pool2DOptions", **options)

    def _mean(self, layer: GlobalAveragePool) -> None:
        """As an image where all that read it take one, else as a vector."""
        name, keep = layer.name, layer.name in self.kept_images
        inputs = [self._image(layer.inputs[0]), self._integers("axes", [1, 2])]
        if keep:
            image = self.builder.tensor(f"{name}/image", (self.batch, *self.shapes[name]))
            self.images[name] = self.builder.operator("MEAN", inputs, image, "ReducerOptions", KeepDims=True)
        else:
            self._operator(layer, "MEAN", inputs, "ReducerOptions", KeepDims=False)

    def _shuffle(self, layer: ChannelShuffle) -> None:
        """As a transposed matrix of groups. A vector's are those of an image of one pixel, which our reader knows."""
        name, shape = layer.name, self._shape(layer.name)
        image = (self.batch, *self.shapes[name])
        groups, size = int(layer.groups), shape[-1] // int(layer.groups)
        matrix = self._reshaped(self._image(layer.inputs[0]), f"{name}/groups", (*image[:-1], groups, size))
        order = self._integers(f"{name}.order", [0, 1, 2, 4, 3])
        x = self.builder.operator("TRANSPOSE", [matrix, order], (*image[:-1], size, groups), "TransposeOptions")
        if image != shape:
            x = self._reshaped(x, f"{name}/shuffled", image)
        self.values[name] = self._reshaped(x, name, shape)

    def _with_zeros(self, layer: _Windowed) -> int:
        """What the layer reads, with its padding around."""
        h, w, c = self.shapes[layer.inputs[0]]
        (top, bottom), (left, right) = layer.padding
        shape = (h + top + bottom, w + left + right, c)
        return self._padded(self._image(layer.inputs[0]), shape, layer.padding, f"{layer.name}/padded")

    def _same_or_valid(self, layer: _Windowed, kernel: Pair, dilation: Pair) -> int | None:
        """How TFLite names the layer's padding; None where it cannot."""
        size, stride = self.shapes[layer.inputs[0]], layer.stride
        same = tuple(same_padding(size[axis], kernel[axis], stride[axis], dilation[axis]) for axis in (0, 1))
        return _SAME if layer.padding == same else _VALID if layer.padding == NO_PADDING else None

    def _fused(self, layer: Layer, kind: str, inputs: list[int], activation: str, options: str, **fields: Any) -> None:
        """An operator that applies a clamp itself; any other activation is an operator more."""
        if activation in _FUSED:
            self._operator(layer, kind, inputs, options, FusedActivationFunction=_FUSED[activation], **fields)
            return
        sums = self.builder.tensor(f"{layer.name}/sum", self._shape(layer.name))
        self.builder.operator(kind, inputs, sums, options, FusedActivationFunction=0, **fields)
        self._activate(layer.name, sums, activation)

    def _activate(self, name: str, x: int, activation: str) -> None:
        shape = self._shape(name)
        if activation == "none":  # an operator all the same: a file cannot well give its input as an output
            self.values[name] = self._reshaped(x, name, shape)
        elif activation in _UNARY:
            self.values[name] = self.builder.operator(_UNARY[activation], [x], self.builder.tensor(name, shape))
        elif activation in ("gelu", "gelu_tanh"):
            fields = {"Approximate": activation == "gelu_tanh"}
            result = self.builder.tensor(name, shape)
            self.values[name] = self.builder.operator("GELU", [x], result, "GeluOptions", **fields)
        elif activation == "silu":
            gate = self.builder.operator("LOGISTIC", [x], shape)
            self.values[name] = self._binary("MUL", x, gate, self.builder.tensor(name, shape))
        else:  # hard_sigmoid
            three, sixth = (self._constant(f"{name}.{key}", value) for key, value in (("3", 3.0), ("6th", 1 / 6)))
            clamped = self._binary("ADD", x, three, shape, FusedActivationFunction=_FUSED["relu6"])
            self.values[name] = self._binary("MUL", clamped, sixth, self.builder.tensor(name, shape))

    def _binary(self, kind: str, a: int, b: int, result: Sequence[int] | int, **fields: Any) -> int:
        return self.builder.operator(kind, [a, b], result, f"{kind.title()}Options", **fields)

    def _operator(self, layer: Layer, kind: str, inputs: list[int], options: str, **fields: Any) -> None:
        result = self.builder.tensor(layer.name, self._shape(layer.name))
        self.values[layer.name] = self.builder.operator(kind, inputs, result, options, **fields)

    def _padded(self, x: int, shape: tuple[int, int, int], padding: Padding, name: str) -> int:
        pads = self.builder.constant(f"{name}.pads", np.array([(0, 0), *padding, (0, 0)], np.int32))
        return self.builder.operator("PAD", [x, pads], self.builder.tensor(name, (self.batch, *shape)), "PadOptions")

    def _reshaped(self, x: int, name: str, shape: Sequence[int]) -> int:
        target = self._integers(f"{name}.shape", shape)
        result = self.builder.tensor(name, shape)
        return self.builder.operator("RESHAPE", [x, target], result, "ReshapeOptions", NewShape=list(shape))

    def _image(self, x: str) -> int:
        """The tensor [n, h, w, c] of a layer whose own may be [n, c]."""
        if x in self.images:
            return self.images[x]
        value = self.values[x]
        return self._reshaped(value, f"{x}/image", (self.batch, *self.shapes[x])) if x in self.vectors else value

    def _alike(self, layer: Layer) -> list[int]:
        """The inputs' tensors, all of the output's rank."""
        return [self.values[x] if layer.name in self.vectors else self._image(x) for x in layer.inputs]

    def _integers(self, name: str, values: Sequence[int]) -> int:
        return self.builder.constant(name, np.array(values, np.int32))

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self.shapes[name]
        return (self.batch, shape[2]) if name in self.vectors else (self.batch, *shape)

    def _constant(self, name: str, array: Any) -> int:
        values: NDArray[np.float32] = float32(array)
        return self.builder.constant(name, values)

    def _reject(self, layer: Layer, what: str) -> NoReturn:
        raise UnsupportedError(f"layer {layer.name!r} ({type(layer).__name__}) has {what} which TFLite cannot say")
