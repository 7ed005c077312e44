"""The layer list as an ncnn network: a ``.param`` file of text and a ``.bin`` file of float32 weights."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from sepconv.errors import UnsupportedError
from sepconv.export.arrays import folded_channels_first, fully_connected
from sepconv.export.shared import check_upsample, ends
from sepconv.graph import (
    Activation,
    Add,
    AveragePool2d,
    ChannelShuffle,
    ChannelSlice,
    Concat,
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
    PRelu,
    Reshape,
    Softmax,
    Upsample,
    infer_shapes,
)
from sepconv.graph.base import is_integer, new_name
from sepconv.layer_lists import LayersLike
from sepconv.lowering import vectors
from sepconv.paths import checked_path, is_same_file, write_files

MAGIC = "7767517"
LONGEST_NAME = 255  # characters that ncnn reads
_DIGEST = 16  # characters
_FUSED = {"none": "9=0", "relu": "9=1", "relu6": "9=3 -23310=2,0.0,6.0"}
_LAYERS = {
    "relu": "ReLU",
    "relu6": "Clip",
    "hard_swish": "HardSwish",
    "hard_sigmoid": "HardSigmoid",
    "sigmoid": "Sigmoid",
    "silu": "Swish",
    "gelu": "GELU",
    "gelu_tanh": "GELU",
}
_PARAMETERS = {
    "relu6": "0=0.0 1=6.0",
    "hard_swish": "0=0.16666667 1=0.5",
    "hard_sigmoid": "0=0.16666667 1=0.5",
    "gelu": "0=0",
    "gelu_tanh": "0=1",
}
_ADD, _MULTIPLY = 0, 2


def write_ncnn(
    layers: LayersLike,
    path: str | os.PathLike[str],
    batch: int | None = None,
    outputs: Sequence[str] | None = None,
) -> None:
    """Write ``path`` and, beside it, the weights with the suffix ``.bin``. An input or result is the blob of its name.

    ``layers`` and ``outputs`` as for :func:`sepconv.export.export_model`; results are the blobs that no layer reads.
    ncnn runs one image at a time: ``batch`` must be None or 1 (ValueError). Raises UnsupportedError for what it has no
    layer for.
    """
    if batch is not None and not (is_integer(batch) and batch == 1):
        raise ValueError(f"batch was {batch!r}, must be 1: ncnn runs one image at a time")
    text, weights = ncnn_files(checked_path(path))
    needed, names = ends(layers, outputs)
    network = _Network(needed, names)
    for layer in needed:
        network.add(layer)
    write_files({text: network.text().encode("ascii"), weights: b"".join(network.weights)})


def ncnn_files(path: Path) -> tuple[Path, Path]:
    """The file of text, and beside it that of the weights. ValueError where they are one."""
    weights = path.parent / f"{path.stem}.bin"
    if is_same_file(path, weights):
        raise ValueError(f"path was {str(path)!r}, which is {weights.name!r} too; must be another file")
    return path, weights


def ncnn_name(name: str) -> str:
    """A layer's name as ncnn takes it: without spaces, in ASCII; one too long for it ends in a digest of the whole."""
    plain = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name)
    if len(plain) <= LONGEST_NAME:
        return plain
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{plain[: LONGEST_NAME - _DIGEST - 1]}_{digest}"


class _Network:
    """Lines and weights so far. A result that is read more than once, or that is an output and read, is split.

    Each reader has a blob of its own, which ncnn may free when it is read; an output's blob has none.
    """

    def __init__(self, layers: Sequence[Layer], outputs: Sequence[str]) -> None:
        self.shapes = infer_shapes(layers)
        self.vectors = vectors(layers)
        self.readers = Counter(name for layer in layers for name in layer.inputs)
        self.outputs = set(outputs)
        self.copies: dict[str, list[str]] = {}  # of such a result, the blobs that are yet to be read
        self.lines: list[str] = []
        self.blobs = 0
        self.weights: list[bytes] = []
        names = Counter(ncnn_name(name) for name in self.shapes)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise UnsupportedError(f"several layers' names become {twice[0]!r} in ncnn's characters; rename one")
        self.taken = set(names)

    def text(self) -> str:
        return "\n".join([MAGIC, f"{len(self.lines)} {self.blobs}", *self.lines, ""])

    def add(self, layer: Layer) -> None:
        name = layer.name
        match layer:
            case Input():
                h, w, c = layer.shape
                if name in self.outputs and self.readers[name]:
                    raise UnsupportedError(f"the input {name!r} is an output too, which ncnn cannot say")
                self._line("Input", name, [], f"0={w} 1={h} 2={c}")
            case Convolution():
                self._convolution(layer)
            case FullyConnected():
                weight, bias = fully_connected(layer, self.shapes[layer.inputs[0]])
                self._weights(weight, bias)
                self._fused("InnerProduct", layer, f"0={len(bias)} 1=1 2={weight.size}", layer.activation)
            case Add():
                self._fused_after("BinaryOp", layer, f"0={_ADD}", layer.activation)
            case Mul():
                self._fused_after("BinaryOp", layer, f"0={_MULTIPLY}", layer.activation)
            case AveragePool2d() | MaxPool2d():
                average = isinstance(layer, AveragePool2d)
                include = int(isinstance(layer, AveragePool2d) and layer.include_padding)
                (kh, kw), (sh, sw) = layer.kernel, layer.stride
                pads = _numbered(layer.padding, top=13, bottom=15, left=3, right=14)
                window = f"0={int(average)} 1={kw} 11={kh} 2={sw} 12={sh} {pads} 5=1 6={include}"
                self._fused_after("Pooling", layer, window, layer.activation)
            case GlobalAveragePool():
                # The mean of one pixel is itself; a vector would be an image's row to ncnn.
                same = layer.inputs[0] in self.vectors
                self._line("Noop" if same else "Pooling", name, self._inputs(layer), "" if same else "0=1 4=1")
            case Activation():
                self._activation(name, self._inputs(layer), layer.activation)
            case Softmax():
                inputs = self._inputs(layer)
                if layer.beta != 1.0:
                    scaling = f"0={_MULTIPLY} 1=1 2={float(layer.beta)!r}"
                    inputs = [self._between("BinaryOp", f"{name}/scaled", inputs, scaling)]
                self._line("Softmax", name, inputs, "0=0 1=1")
            case PRelu():
                slope = np.asarray(layer.slope).astype(np.float32)
                self.weights.append(slope.tobytes())
                self._line("PReLU", name, self._inputs(layer), f"0={slope.size}")
            case LayerNorm():
                self._reject(layer, "a mean over channels")
            case Reshape():
                x = self.shapes[layer.inputs[0]]
                if x[0] * x[1] > 1 or layer.shape[:2] != (1, 1):
                    self._reject(layer, f"shapes {x} and {layer.shape}")
                self._line("Flatten", name, self._inputs(layer), "")
            case Pad():
                pads = _numbered(layer.padding, top=0, bottom=1, left=2, right=3)
                self._line("Padding", name, self._inputs(layer), f"{pads} 4=0 5=0.0")
            case Concat():
                self._line("Concat", name, self._inputs(layer), "0=0")
            case ChannelSlice():
                bounds = f"-23309=1,{layer.begin} -23310=1,{layer.end} -23311=1,0"
                self._line("Crop", name, self._inputs(layer), bounds)
            case ChannelShuffle():
                self._shuffle(layer)
            case Upsample():
                check_upsample(layer, self.shapes[layer.inputs[0]], "ncnn")
                self._line("Interp", name, self._inputs(layer), f"0=1 3={layer.size[0]} 4={layer.size[1]}")

    def _convolution(self, layer: Convolution) -> None:
        weight, bias, groups = folded_channels_first(layer)
        kh, kw = weight.shape[2:]
        (sh, sw), (dh, dw) = layer.stride, layer.dilation
        pads = _numbered(layer.padding, top=14, bottom=16, left=4, right=15)
        window = f"0={len(bias)} 1={kw} 11={kh} 2={dw} 12={dh} 3={sw} 13={sh} {pads} 5=1 6={weight.size}"
        self._weights(weight, bias)
        if groups > 1:
            self._fused("ConvolutionDepthWise", layer, f"{window} 7={groups}", layer.activation)
        else:
            self._fused("Convolution", layer, window, layer.activation)

    def _shuffle(self, layer: ChannelShuffle) -> None:
        """ncnn shuffles images alone."""
        name, inputs, groups = layer.name, self._inputs(layer), f"0={layer.groups}"
        if name not in self.vectors:
            self._line("ShuffleChannel", name, inputs, groups)
            return
        image = self._between("Reshape", f"{name}/image", inputs, f"0=1 1=1 2={self.shapes[name][2]}")
        self._line("Flatten", name, [self._between("ShuffleChannel", f"{name}/shuffled", [image], groups)], "")

    def _fused(self, kind: str, layer: Layer, parameters: str, activation: str) -> None:
        if activation in _FUSED:
            self._line(kind, layer.name, self._inputs(layer), f"{parameters} {_FUSED[activation]}")
        else:
            self._fused_after(kind, layer, parameters, activation)

    def _fused_after(self, kind: str, layer: Layer, parameters: str, activation: str) -> None:
        if activation == "none":
            self._line(kind, layer.name, self._inputs(layer), parameters)
        else:
            sums = self._between(kind, f"{layer.name}/sum", self._inputs(layer), parameters)
            self._activation(layer.name, [sums], activation)

    def _activation(self, name: str, inputs: list[str], activation: str) -> None:
        self._line(_LAYERS.get(activation, "Noop"), name, inputs, _PARAMETERS.get(activation, ""))

    def _inputs(self, layer: Layer) -> list[str]:
        inputs = []
        for name in layer.inputs:
            x = self.copies[name].pop(0) if name in self.copies else ncnn_name(name)
            if name in self.vectors and layer.name not in self.vectors and not isinstance(layer, FullyConnected):
                x = self._between("Reshape", f"{layer.name}/image", [x], f"0=1 1=1 2={self.shapes[name][2]}")
            inputs.append(x)
        return inputs

    def _line(self, kind: str, name: str, inputs: list[str], parameters: str) -> None:
        """The line that gives a layer's result, and the one that copies it where it has several readers."""
        result, readers = ncnn_name(name), self.readers[name]
        given = name in self.outputs
        if readers + given < 2:
            self._write(kind, result, inputs, [result], parameters)
            return
        whole = self._new_name(f"{result}_whole") if given else result
        self.copies[name] = [self._new_name(f"{result}_{i}") for i in range(readers)]
        self._write(kind, whole, inputs, [whole], parameters)
        self._write("Split", self._new_name(f"{result}_split"), [whole], [result] * given + self.copies[name])

    def _between(self, kind: str, wanted: str, inputs: list[str], parameters: str) -> str:
        """A line of which no layer's result comes; returns its blob, called ``wanted`` or alike."""
        result = self._new_name(wanted)
        self._write(kind, result, inputs, [result], parameters)
        return result

    def _write(self, kind: str, name: str, inputs: Sequence[str], results: Sequence[str], parameters: str = "") -> None:
        counts = (str(len(inputs)), str(len(results)))
        self.lines.append(" ".join([kind, name, *counts, *inputs, *results, parameters]).rstrip())
        self.blobs += len(results)

    def _new_name(self, wanted: str) -> str:
        return new_name(wanted, self.taken, ncnn_name)

    def _weights(self, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        # Four bytes of zeros say that what follows is float32; biases always are.
        self.weights += [bytes(4), weight.tobytes(), bias.tobytes()]

    def _reject(self, layer: Layer, what: str) -> NoReturn:
        raise UnsupportedError(f"layer {layer.name!r} ({type(layer).__name__}) has {what}, which ncnn cannot say")


def _numbered(padding: Padding, **keys: int) -> str:
    (top, bottom), (left, right) = padding
    sizes: Mapping[str, int] = {"top": top, "bottom": bottom, "left": left, "right": right}
    return " ".join(f"{keys[side]}={size}" for side, size in sizes.items())
