"""A network while its TFLite file is read: the layers so far, and which layer holds which tensor's value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.graph import Activation, ActivationName, Layer, Shape
from sepconv.io._tflite_tensors import Tensor, Tensors
from sepconv.io.arrays import MemoryBudget

# Elements of one activation, of one image, padding included: 1 GiB as float32.
MAX_ACTIVATION_ELEMENTS = 1 << 28
MAX_EXTENT = 1 << 20  # of height, width and channels, as in the compiled core

_ACTIVATION_TYPES = ("FLOAT32", "UINT8", "INT8")


@dataclass(frozen=True)
class Value:
    """An activation: the layer that computes it, and its full shape, batch included."""

    layer: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Matrix:
    """Channels seen as ``groups`` rows, [n, h, w, groups, c / groups], or with ``swapped`` these columns first."""

    source: Value
    groups: int
    swapped: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        rows, columns = self.groups, self.source.shape[-1] // self.groups
        return (*self.source.shape[:-1], *((columns, rows) if self.swapped else (rows, columns)))


@dataclass
class Network:
    tensors: Tensors
    budget: MemoryBudget
    batch: int = 1
    layers: list[Layer] = field(default_factory=list)
    _values: dict[int, Value] = field(default_factory=dict)
    _constants: dict[int, Tensor] = field(default_factory=dict)
    _matrices: dict[int, Matrix] = field(default_factory=dict)
    # By the name of a layer that computes relu6(x + 3): x. Part of a hard sigmoid, as files have it.
    shifted: dict[str, Value] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _name_counts: dict[str, int] = field(default_factory=dict)

    def value(self, index: int) -> Value:
        """The activation that tensor ``index`` holds."""
        value = self._values.get(index)
        if value is not None:
            return value
        tensor = self.tensors.get(index)
        if index in self._matrices:
            raise UnsupportedError(
                f"tensor {index}, {tensor.name!r}, has channels as a matrix, {list(self._matrices[index].shape)}; only "
                "a shuffle of channels can read it"
            )
        if tensor.is_constant or index in self._constants:
            raise UnsupportedError(f"tensor {index}, {tensor.name!r}, is constant where an activation is needed")
        raise ModelFormatError(f"tensor {index}, {tensor.name!r}, is read before anything writes it")

    def is_activation(self, index: int) -> bool:
        return index in self._values

    def matrix(self, index: int) -> Matrix | None:
        """The matrix of channels that tensor ``index`` holds, or None."""
        return self._matrices.get(index)

    def set_matrix(self, index: int, matrix: Matrix) -> None:
        """Makes tensor ``index`` stand for ``matrix``."""
        self._check_written(index, matrix.shape)
        self._matrices[index] = matrix

    def constant(self, index: int) -> Tensor:
        """Tensor ``index``, or the constant that it was dequantised from."""
        return self._constants.get(index) or self.tensors.get(index)

    def set_constant(self, index: int, source: Tensor) -> None:
        """Makes tensor ``index`` stand for the constant ``source``."""
        tensor = self._writable(index)
        if tensor.shape != source.shape:
            raise ModelFormatError(
                f"tensor {index} has the shape {list(tensor.shape)}; it must be {list(source.shape)}, that of the "
                "constant it is made from"
            )
        self._constants[index] = source

    def image_shape(self, shape: tuple[int, ...]) -> Shape:
        """(h, w, c) of one image in an activation of ``shape``: [n, h, w, c], [n, w, c], [n, c], or [c] if n is 1."""
        image = shape if len(shape) == 1 and self.batch == 1 else shape[1:]
        if not 1 <= len(image) <= 3 or (image is not shape and shape[0] != self.batch):
            raise UnsupportedError(
                f"an activation has the shape {list(shape)}; it must be [n, h, w, c], [n, w, c] or [n, c] with the "
                f"batch size n = {self.batch}"
            )
        self.check_size(image)
        height, width, channels = (1, 1, *image)[-3:]
        return height, width, channels

    def check_size(self, shape: tuple[int, ...]) -> None:
        if max(shape) > MAX_EXTENT:
            raise UnsupportedError(
                f"an activation has the shape {list(shape)}; each extent can be at most {MAX_EXTENT}"
            )
        if math.prod(shape) > MAX_ACTIVATION_ELEMENTS:
            raise UnsupportedError(
                f"one image's activation has the shape {list(shape)}; at most {MAX_ACTIVATION_ELEMENTS} elements "
                "are possible"
            )

    def add(self, layer: Layer, index: int, shape: tuple[int, ...]) -> None:
        """Appends a layer that writes tensor ``index``, whose computed full shape is ``shape``."""
        self.image_shape(shape)
        self._write(index, Value(layer.name, shape))
        self.layers.append(layer)

    def add_saturated(
        self, layer: Layer, index: int, shape: tuple[int, ...], known: tuple[ActivationName, ...] = ()
    ) -> None:
        """The same, and the activation that the tensor's quantised range implies, but for those that change nothing."""
        activation = self.tensors.get(index).implied_activation()
        self.add(layer, index, shape)
        if activation not in ("none", *known):
            cut = Activation(name=self.unique_name(index), inputs=(layer.name,), activation=activation)
            self._values[index] = Value(cut.name, shape)
            self.layers.append(cut)

    def check_range_kept(self, source: int, target: int) -> None:
        """Raises ModelFormatError where an operator that copies integers gives them another meaning."""
        tensors = [self.tensors.get(index) for index in (source, target)]
        if any(tensor.type_name not in ("INT8", "UINT8") or not tensor.is_quantised for tensor in tensors):
            return
        before, after = (tensor.scalar_quantization(f"tensor {tensor.name!r}") for tensor in tensors)
        if abs(before[0] - after[0]) > 1e-3 * before[0] or before[1] != after[1]:
            raise ModelFormatError(
                f"scale and zero point are {before} of the input and {after} of the output; they must be the same"
            )

    def add_alias(self, index: int, value: Value) -> None:
        """Makes tensor ``index`` another name of ``value``."""
        self._write(index, value)

    def live_layers(self, outputs: list[str]) -> list[Layer]:
        """All layers but those of ``shifted`` that became part of a hard sigmoid and that nobody else reads."""
        read = {name for layer in self.layers for name in layer.inputs} | set(outputs)
        return [layer for layer in self.layers if layer.name in read or layer.name not in self.shifted]

    def _write(self, index: int, value: Value) -> None:
        self._check_written(index, value.shape)
        self._values[index] = value

    def _check_written(self, index: int, shape: tuple[int, ...]) -> None:
        tensor = self._writable(index)
        if tensor.type_name not in _ACTIVATION_TYPES:
            raise UnsupportedError(
                f"tensor {index}, {tensor.name!r}, is of type {tensor.type_name}; activations must be one of "
                f"{', '.join(_ACTIVATION_TYPES)}"
            )
        if tensor.shape not in ((), shape):
            raise ModelFormatError(
                f"tensor {index}, {tensor.name!r}, is declared with the shape {list(tensor.shape)}; what is written to "
                f"it has the shape {list(shape)}"
            )

    def _writable(self, index: int) -> Tensor:
        tensor = self.tensors.get(index)
        if tensor.is_constant:
            raise ModelFormatError(f"tensor {index}, {tensor.name!r}, is constant and is written to")
        if index in self._values or index in self._constants or index in self._matrices:
            raise ModelFormatError(f"tensor {index}, {tensor.name!r}, is written to twice")
        return tensor

    def unique_name(self, index: int) -> str:
        """A layer name for the writer of tensor ``index``: the tensor's, up to ";", made unique."""
        base = self.tensors.get(index).name.split(";")[0] or f"tensor_{index}"
        name = base
        while name in self._names:
            self._name_counts[base] = self._name_counts.get(base, 0) + 1
            name = f"{base}_{self._name_counts[base]}"
        self._names.add(name)
        return name
