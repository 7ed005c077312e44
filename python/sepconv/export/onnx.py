"""The layer list as an ONNX model: NCHW, float32, opset 14."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepconv import extras
from sepconv._version import __version__
from sepconv.export.arrays import channels_first, float32, folded_channels_first, fully_connected
from sepconv.export.shared import check_batch, check_size, ends
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
    Pool2d,
    PRelu,
    Reshape,
    Softmax,
    Upsample,
    infer_shapes,
)
from sepconv.graph.base import is_name, new_name
from sepconv.layer_lists import LayersLike
from sepconv.lowering import vectors
from sepconv.paths import checked_path, write_files

OPSET = 14  # the first with HardSwish
IR_VERSION = 8


def write_onnx(
    layers: LayersLike,
    path: str | os.PathLike[str],
    batch: int | None = None,
    outputs: Sequence[str] | None = None,
    *,
    fold: bool = True,
) -> None:
    """Write :func:`to_onnx`'s model."""
    write_files({checked_path(path): _serialized(to_onnx(layers, batch, outputs, fold=fold))})


def to_onnx(
    layers: LayersLike,
    batch: int | None = None,
    outputs: Sequence[str] | None = None,
    *,
    fold: bool = True,
    name: str = "sepconv",
) -> Any:
    """An ``onnx.ModelProto`` that onnx.checker has passed; its inputs and outputs have the layers' names.

    Inputs are float32 [n, c, h, w]; outputs [n, c, h, w], or [n, c] where :class:`sepconv.Model` gives vectors.
    ``batch`` fixes n; None leaves it open. ``layers`` and ``outputs`` as for :func:`sepconv.export.export_model`.
    ``fold``: BatchNorm becomes part of weights and biases, else a node.

    Raises ValueError for what is no network, no number of images and no name, TypeError for a ``fold`` that is no bool,
    MissingExtraError without the package onnx, UnsupportedError for more weights than a file holds.
    """
    onnx = extras.require("onnx", package="onnx", extra="onnx", purpose="writing an ONNX file")
    if not isinstance(fold, bool):
        raise TypeError(f"fold was {fold!r}, must be True or False")
    if not is_name(name):
        raise ValueError(f"name was {name!r}, must be a non-empty string that UTF-8 can say")
    batch = None if batch is None else check_batch(batch)
    needed, names = ends(layers, outputs)
    check_size(needed, "an ONNX file")
    graph = _Graph(needed, batch, fold)
    for layer in needed:
        graph.add(layer)
    nodes = graph.needed_nodes(names)
    read = {x for node in nodes for x in node.input}
    proto = onnx.helper.make_graph(
        nodes,
        name,
        [graph.port(layer.name) for layer in needed if isinstance(layer, Input)],
        [graph.port(output) for output in names],
        [tensor for constant, tensor in graph.initializers.items() if constant in read],
    )
    model = onnx.helper.make_model(
        proto,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sepconv",
        producer_version=__version__,
    )
    onnx.checker.check_model(_serialized(model), full_check=True)
    return model


def _serialized(model: Any) -> bytes:
    """Raises MemoryError: what would be too large for the format is refused before."""
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # google.protobuf's own
        raise MemoryError("for an ONNX file of these weights") from error


class _Graph:
    """Nodes and initializers; a layer's result is a value of the layer's name."""

    def __init__(self, layers: Sequence[Layer], batch: int | None, fold: bool) -> None:
        import onnx

        self._onnx = onnx
        self.shapes = infer_shapes(layers)
        self.vectors = vectors(layers)
        self.batch: int | str = "n" if batch is None else batch
        self.fold = fold
        self.taken = set(self.shapes)
        self.names: dict[tuple[str, str], str] = {}
        self.nodes: dict[str, Any] = {}  # by their one output
        self.initializers: dict[str, Any] = {}

    def port(self, name: str) -> Any:
        h, w, c = self.shapes[name]
        shape = (self.batch, c) if name in self.vectors else (self.batch, c, h, w)
        return self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.FLOAT, shape)

    def needed_nodes(self, outputs: Sequence[str]) -> list[Any]:
        """The nodes that an output depends on."""
        needed, kept = set(outputs), []
        for node in reversed(self.nodes.values()):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        return kept[::-1]

    def add(self, layer: Layer) -> None:
        name = layer.name
        match layer:
            case Input():
                pass
            case Convolution():
                self._convolution(layer)
            case FullyConnected():
                weight, bias = fully_connected(layer, self.shapes[layer.inputs[0]])
                constants = [self._constant(name, ".weight", weight), self._constant(name, ".bias", bias)]
                product = self._before(name, layer.activation)
                self._node("Gemm", [self._flat(layer.inputs[0]), *constants], product, transB=1)
                self._activate(name, layer.activation)
            case Add():
                self._node("Add", self._alike(layer), self._before(name, layer.activation))
                self._activate(name, layer.activation)
            case Mul():
                self._node("Mul", self._alike(layer), self._before(name, layer.activation))
                self._activate(name, layer.activation)
            case AveragePool2d() | MaxPool2d():
                self._pool(layer)
            case GlobalAveragePool():
                # An image, which Flatten makes the layer's vector where one is asked for.
                image = self._node("GlobalAveragePool", [self._image(layer.inputs[0])], self._name(name, "/image"))
                self._node("Flatten", [image], name)
            case Activation():
                if layer.activation == "none":
                    self._node("Identity", layer.inputs, name)
                self._activate(name, layer.activation, layer.inputs[0])
            case Softmax():
                x = layer.inputs[0]
                if layer.beta != 1.0:
                    beta = self._constant(name, ".beta", np.float32(layer.beta))
                    x = self._node("Mul", [x, beta], self._name(name, "/scaled"))
                self._node("Softmax", [x], name, axis=1)
            case PRelu():
                shape = (-1,) if name in self.vectors else (-1, 1, 1)
                slope = self._constant(name, ".slope", np.asarray(layer.slope).astype(np.float32).reshape(shape))
                self._node("PRelu", [layer.inputs[0], slope], name)
            case LayerNorm():
                self._layer_norm(layer)
            case Reshape():
                self._reshape(layer)
            case Pad():
                (top, bottom), (left, right) = layer.padding
                pads = self._integers(name, ".pads", [0, 0, top, left, 0, 0, bottom, right])
                self._node("Pad", [self._image(layer.inputs[0]), pads], name)
            case Concat():
                self._node("Concat", self._alike(layer), name, axis=1)
            case ChannelSlice():
                bounds = {"begin": layer.begin, "end": layer.end, "axis": 1}
                constants = [self._integers(name, f".{key}", [value]) for key, value in bounds.items()]
                self._node("Slice", [*self._alike(layer), *constants], name)
            case ChannelShuffle():
                self._shuffle(layer)
            case Upsample():
                self._upsample(layer)

    def _convolution(self, layer: Convolution) -> None:
        name, norm = layer.name, layer.batch_norm
        if self.fold or norm is None:
            weight, bias, groups = folded_channels_first(layer)
            inputs = [self._constant(name, ".weight", weight), self._constant(name, ".bias", bias)]
        else:
            weight, groups = channels_first(layer, np.asarray(layer.weight, dtype=np.float64))
            inputs = [self._constant(name, ".weight", weight)]
            if layer.bias is not None:
                inputs.append(self._constant(name, ".bias", float32(layer.bias)))
        kept = None if self.fold else norm
        sums = self._before(name, layer.activation)
        self._node(
            "Conv",
            [self._image(layer.inputs[0]), *inputs],
            sums if kept is None else self._name(name, "/convolved"),
            kernel_shape=weight.shape[2:],
            strides=layer.stride,
            pads=_pads(layer.padding),
            dilations=layer.dilation,
            group=groups,
        )
        if kept is not None:
            arrays = {"gamma": kept.gamma, "beta": kept.beta, "mean": kept.mean, "variance": kept.variance}
            constants = [self._constant(name, f".batch_norm.{key}", float32(array)) for key, array in arrays.items()]
            inputs = [self._name(name, "/convolved"), *constants]
            self._node("BatchNormalization", inputs, sums, epsilon=float(kept.epsilon))
        self._activate(name, layer.activation)

    def _pool(self, layer: Pool2d) -> None:
        kind, attributes = "MaxPool", {}
        if isinstance(layer, AveragePool2d):
            kind, attributes = "AveragePool", {"count_include_pad": int(layer.include_padding)}
        self._node(
            kind,
            [self._image(layer.inputs[0])],
            self._before(layer.name, layer.activation),
            kernel_shape=layer.kernel,
            strides=layer.stride,
            pads=_pads(layer.padding),
            **attributes,
        )
        self._activate(layer.name, layer.activation)

    def _reshape(self, layer: Reshape) -> None:
        """Elements keep their order in NHWC; a transpose is left out where an image is one pixel or one channel."""
        name, x = layer.name, layer.inputs[0]
        h, w, c = self.shapes[x]
        height, width, channels = layer.shape
        value = x
        if h * w > 1 and c > 1:
            value = self._node("Transpose", [x], self._name(name, "/nhwc"), perm=[0, 2, 3, 1])
        if name in self.vectors:
            self._node("Flatten", [value], name)
        elif height * width > 1 and channels > 1:
            shape = self._integers(name, ".shape", [0, height, width, channels])
            value = self._node("Reshape", [value, shape], self._name(name, "/reshaped"))
            self._node("Transpose", [value], name, perm=[0, 3, 1, 2])
        else:
            shape = self._integers(name, ".shape", [0, channels, height, width])
            self._node("Reshape", [value, shape], name)

    def _shuffle(self, layer: ChannelShuffle) -> None:
        """As a transposed matrix of groups."""
        name, groups = layer.name, int(layer.groups)
        h, w, c = self.shapes[name]
        flat = name in self.vectors
        matrix = self._integers(name, ".groups", [0, groups, c // groups, *([] if flat else [h * w])])
        value = self._node("Reshape", [*self._alike(layer), matrix], self._name(name, "/groups"))
        value = self._node("Transpose", [value], self._name(name, "/swapped"), perm=[0, 2, 1, *([] if flat else [3])])
        self._node("Reshape", [value, self._integers(name, ".shape", [0, c, *([] if flat else [h, w])])], name)

    def _upsample(self, layer: Upsample) -> None:
        """By no whole multiple, Resize finds pixels in floats, each runtime in its own: they are given by number."""
        h, w, _ = self.shapes[layer.inputs[0]]
        height, width = (int(n) for n in layer.size)
        x, name = self._image(layer.inputs[0]), layer.name
        if height % h == 0 and width % w == 0:
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            scales = self._constant(name, ".scales", np.array([1, 1, height // h, width // w], np.float32))
            self._node("Resize", [x, "", scales], name, **how)
        else:
            rows = self._constant(name, ".rows", np.arange(height, dtype=np.int64) * h // height)
            columns = self._constant(name, ".columns", np.arange(width, dtype=np.int64) * w // width)
            x = self._node("Gather", [x, rows], self._name(name, "/rows"), axis=2)
            self._node("Gather", [x, columns], name, axis=3)

    def _layer_norm(self, layer: LayerNorm) -> None:
        """In the operators that it is defined by: ONNX's own, of opset 17, is over last axes."""
        name, x = layer.name, layer.inputs[0]
        channels = self.shapes[name][2]
        shape = (channels,) if name in self.vectors else (channels, 1, 1)
        mean = self._node("ReduceMean", [x], self._name(name, "/mean"), axes=[1])
        centered = self._node("Sub", [x, mean], self._name(name, "/centered"))
        squares = self._node("Mul", [centered, centered], self._name(name, "/squares"))
        variance = self._node("ReduceMean", [squares], self._name(name, "/variance"), axes=[1])
        positive = self._node("Add", [variance, self._number(name, "epsilon", layer.epsilon)], self._name(name, "/sum"))
        deviation = self._node("Sqrt", [positive], self._name(name, "/deviation"))
        value = self._node("Div", [centered, deviation], self._name(name, "/normal"))
        for op, key, array, missing in (("Mul", "scale", layer.scale, 1.0), ("Add", "bias", layer.bias, 0.0)):
            numbers = np.full(channels, missing) if array is None else np.asarray(array)
            constant = self._constant(name, f".{key}", numbers.astype(np.float32).reshape(shape))
            value = self._node(op, [value, constant], name if op == "Add" else self._name(name, f"/{key}"))

    def _before(self, name: str, activation: str) -> str:
        """What the value is called that the layer's activation reads."""
        return name if activation == "none" else self._name(name, "/sum")

    def _activate(self, name: str, activation: str, x: str | None = None) -> None:
        """The nodes of an activation from ``x``, or what ``_before`` names, to ``name``."""
        value = self._before(name, activation) if x is None else x
        match activation:
            case "relu":
                self._node("Relu", [value], name)
            case "relu6":
                self._node("Clip", [value, self._number(name, "low", 0), self._number(name, "high", 6)], name)
            case "hard_swish":
                self._node("HardSwish", [value], name)
            case "hard_sigmoid":
                self._node("HardSigmoid", [value], name, alpha=1 / 6, beta=0.5)
            case "sigmoid":
                self._node("Sigmoid", [value], name)
            case "silu":
                gate = self._node("Sigmoid", [value], self._name(name, "/gate"))
                self._node("Mul", [value, gate], name)
            case "gelu":
                scaled = self._node("Div", [value, self._number(name, "root", math.sqrt(2))], self._name(name, "/x"))
                self._gelu(name, value, self._node("Erf", [scaled], self._name(name, "/erf")))
            case "gelu_tanh":
                square = self._node("Mul", [value, value], self._name(name, "/square"))
                cube = self._node("Mul", [square, value], self._name(name, "/cube"))
                cubic = self._node("Mul", [cube, self._number(name, "cubic", 0.044715)], self._name(name, "/cubic"))
                total = self._node("Add", [value, cubic], self._name(name, "/total"))
                factor = self._number(name, "factor", math.sqrt(2 / math.pi))
                scaled = self._node("Mul", [total, factor], self._name(name, "/x"))
                self._gelu(name, value, self._node("Tanh", [scaled], self._name(name, "/tanh")))

    def _gelu(self, name: str, value: str, gate: str) -> None:
        """value · (1 + gate) / 2, in the order in which other runtimes recognise it. (Gelu itself needs opset 20.)"""
        doubled = self._node("Add", [gate, self._number(name, "one", 1.0)], self._name(name, "/gate"))
        product = self._node("Mul", [value, doubled], self._name(name, "/product"))
        self._node("Mul", [product, self._number(name, "half", 0.5)], name)

    def _number(self, name: str, key: str, value: float) -> str:
        return self._constant(name, f".{key}", np.float32(value))

    def _image(self, x: str) -> str:
        """The value [n, c, h, w] of a layer whose own may be [n, c]."""
        return self._node("Unsqueeze", [x, self._axes()], self._name(x, "/image")) if x in self.vectors else x

    def _alike(self, layer: Layer) -> list[str]:
        """The inputs' values, all of the output's rank."""
        return [x if layer.name in self.vectors else self._image(x) for x in layer.inputs]

    def _integers(self, layer: str, suffix: str, values: Sequence[int]) -> str:
        return self._constant(layer, suffix, np.array(values, np.int64))

    def _flat(self, x: str) -> str:
        return x if x in self.vectors else self._node("Flatten", [x], self._name(x, "/flat"))

    def _axes(self) -> str:
        return self._integers("", "axes", [2, 3])

    def _name(self, layer: str, suffix: str) -> str:
        """What belongs to a layer has its name and ``suffix``, or one alike where another layer is called so."""
        key = layer, suffix
        if key not in self.names:
            self.names[key] = new_name(layer + suffix, self.taken)
        return self.names[key]

    def _constant(self, layer: str, suffix: str, array: NDArray[Any] | np.float32) -> str:
        name = self._name(layer, suffix)
        if name not in self.initializers:
            self.initializers[name] = self._onnx.numpy_helper.from_array(np.asarray(array), name)
        return name

    def _node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        if output not in self.nodes:  # several layers may want one image or flat value
            self.nodes[output] = self._onnx.helper.make_node(kind, list(inputs), [output], name=output, **attributes)
        return output


def _pads(padding: Padding) -> list[int]:
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]
