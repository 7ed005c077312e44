"""Where a model builder's layers take their arrays from: a seed, or arrays named in one of several ways.

Our own names are the layer's, then ``.weight``, ``.bias`` or ``.batch_norm.gamma`` (``beta``, ``mean``, ``variance``),
in the layouts of :mod:`sepconv.graph`. Other packages' names are told apart by the stem's; their arrays, in torch's
layouts, become transposed views: nothing is copied.

A source answers a builder's ``weight``, ``bias`` and ``batch_norm`` with arrays of our shapes, or None for what the
layer does not have, and says in ``finish`` whether they were what the model needs. Its ``padding``, ``epsilon`` (None:
the model's own default) and ``convention`` are those that the weights were trained with.
"""

from __future__ import annotations

import dataclasses
import math
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sepconv.conventions import TIMM, Convention
from sepconv.graph import ActivationName, BatchNorm, Convolution, WeightedLayer
from sepconv.graph.base import is_integer, is_name, reject_masked
from sepconv.graph.weighted import BATCH_NORM_ARRAYS
from sepconv.io.arrays import without_prefixes
from sepconv.layer_lists import LayersLike, layer_list
from sepconv.paths import checked_path
from sepconv.table import printable

PaddingRule = Literal["same", "torch"]
WeightKind = Literal["dense", "depthwise", "fully_connected"]
_TORCH_BATCH_NORM_FIELDS = ("weight", "bias", "running_mean", "running_var")
# torch's [N, C, kh, kw], [C, 1, kh, kw] and [N, C] to ours.
_FROM_TORCH: dict[WeightKind, tuple[int, ...]] = {
    "dense": (2, 3, 1, 0),
    "depthwise": (2, 3, 0, 1),
    "fully_connected": (1, 0),
}
_LISTED, _NAME_LENGTH = 8, 160  # names in an error message, of each sort, and characters of each


@dataclass(frozen=True, kw_only=True)
class NamingScheme:
    """How one package names (and trained) a model's weights.

    prefixes: our layer's name -> the package's names of its convolution and of its batch norm (None where it has none).
    """

    name: str
    prefixes: Mapping[str, tuple[str, str | None]]
    padding: PaddingRule
    epsilon: float
    convention: Convention | None = None


class SeededNormal:
    """A lazy array of normally distributed float32, the same for the same key and shape; made anew at each use."""

    dtype = np.dtype(np.float32)

    def __init__(self, shape: Sequence[int], std: float, key: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self._std = std
        self._key = tuple(key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("copy was False, must be None or True: seeded weights are made at each use")
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(self._key)))
        values = generator.standard_normal(self.shape, dtype=np.float32)
        values *= np.float32(self._std)
        return values if dtype is None else values.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"SeededNormal(shape={self.shape}, std={self._std:.4g})"


@dataclass(frozen=True)
class SeededWeights:
    """A source of He-normal weights, zero biases and batch norms that do nothing but for their epsilon."""

    seed: int
    padding: PaddingRule = "same"
    epsilon: float | None = None
    convention: Convention | None = None

    def weight(self, layer: str, kind: WeightKind, shape: Sequence[int], activation: ActivationName) -> ArrayLike:
        # The last dimension is no part of the sum, nor are a depthwise convolution's channels.
        fan_in = math.prod(shape[:2]) if kind == "depthwise" else math.prod(shape[:-1])
        # He's factor 2 makes up for what a rectifier takes away; where none follows, it would let activations grow.
        gain = 1.0 if activation == "none" else 2.0
        return SeededNormal(shape, math.sqrt(gain / fan_in), (self.seed, zlib.crc32(layer.encode())))

    def bias(self, layer: str, channels: int, *, required: bool) -> ArrayLike | None:
        return _constant(0, channels) if required else None

    def batch_norm(self, layer: str, channels: int, epsilon: float) -> BatchNorm:
        zeros, ones = _constant(0, channels), _constant(1, channels)
        return BatchNorm(gamma=ones, beta=zeros, mean=zeros, variance=ones, epsilon=epsilon)

    def finish(self) -> None:
        pass


@dataclass
class NamedWeights:
    """A source that takes arrays by name, and keeps account of what does not fit, so that one error can tell it all."""

    arrays: Mapping[str, ArrayLike]
    scheme: NamingScheme | None = None  # None: our own names and layouts
    padding: PaddingRule = "same"
    epsilon: float | None = None
    convention: Convention | None = None
    _missing: list[str] = field(default_factory=list)
    _misshapen: list[str] = field(default_factory=list)
    _used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.scheme is not None:
            self.padding, self.epsilon = self.scheme.padding, self.scheme.epsilon
            self.convention = self.scheme.convention

    def weight(self, layer: str, kind: WeightKind, shape: Sequence[int], activation: ActivationName) -> ArrayLike:
        order = tuple(range(len(shape))) if self.scheme is None else _FROM_TORCH[kind]
        return self._take(f"{self._prefix(layer)}.weight", shape, order)

    def bias(self, layer: str, channels: int, *, required: bool) -> ArrayLike | None:
        name = f"{self._prefix(layer)}.bias"
        return self._take(name, (channels,)) if required or name in self.arrays else None

    def batch_norm(self, layer: str, channels: int, epsilon: float) -> BatchNorm | None:
        names = self._batch_norm_names(layer)
        if f"{self._prefix(layer)}.bias" in self.arrays and not any(name in self.arrays for name in names):
            return None  # folded into the weight and the bias
        gamma, beta, mean, variance = (self._take(name, (channels,)) for name in names)
        return BatchNorm(gamma=gamma, beta=beta, mean=mean, variance=variance, epsilon=epsilon)

    def finish(self) -> None:
        extra = [name for name in self.arrays if name not in self._used and not name.endswith(".num_batches_tracked")]
        problems = (("missing", self._missing), ("unexpected", extra), ("of another shape", self._misshapen))
        if any(names for _, names in problems):
            raise ValueError(
                f"weights (named as by {self.scheme.name if self.scheme else 'sepconv'}) do not fit this model: "
                + "; ".join(f"{len(names)} {what}: {_list(names)}" for what, names in problems if names)
            )

    def _prefix(self, layer: str) -> str:
        return layer if self.scheme is None else self.scheme.prefixes[layer][0]

    def _batch_norm_names(self, layer: str) -> list[str]:
        if self.scheme is None:
            return [f"{layer}.batch_norm.{part}" for part in BATCH_NORM_ARRAYS]
        return [f"{self.scheme.prefixes[layer][1]}.{part}" for part in _TORCH_BATCH_NORM_FIELDS]

    def _take(self, name: str, shape: Sequence[int], order: tuple[int, ...] = (0,)) -> NDArray[Any]:
        """The named array with its dimensions put in this order; zeros where it is missing or has another shape."""
        if name not in self.arrays:
            self._missing.append(name)
            return _constant(0, *shape)
        self._used.add(name)
        reject_masked(f"weights[{name!r}]", self.arrays[name])
        try:
            array: NDArray[Any] = np.asarray(self.arrays[name])
        except (RuntimeError, TypeError, ValueError) as error:  # ragged lists, and what torch refuses to give
            raise TypeError(f"weights[{name!r}] was no array that NumPy can read: {error}") from error
        if array.dtype.kind not in "fiuV":  # V: ml_dtypes' bfloat16 and its like
            raise TypeError(f"weights[{name!r}] was of dtype {array.dtype}, must be of real numbers")
        if len(shape) == 2 and array.ndim == 4 and array.shape[2:] == (1, 1):
            array = array.reshape(array.shape[:2])  # a fully connected layer that its author wrote as a convolution
        stored = tuple(shape[order.index(axis)] for axis in range(len(shape)))
        if array.shape != stored:
            self._misshapen.append(f"{name} was {list(array.shape)}, must be {list(stored)}")
            return _constant(0, *shape)
        transposed: NDArray[Any] = array.transpose(order)
        return transposed


WeightSource = SeededWeights | NamedWeights
WeightsArgument = str | os.PathLike[str] | Mapping[str, ArrayLike] | WeightSource | None


def open_weights(weights: WeightsArgument, seed: int, schemes: Iterable[NamingScheme]) -> WeightSource:
    """A source for a model builder's ``weights`` argument.

    None is a seed's random weights; a path is read; a mapping's names must be our own or of one of the schemes, behind
    prefixes "module." and "_orig_mod." that all of them share or none. Raises TypeError or ValueError for another
    argument, and what :func:`sepconv.io.read_weights` raises for a bad file.
    """
    if isinstance(weights, (SeededWeights, NamedWeights)):
        return weights
    if weights is None:
        if not is_integer(seed) or seed < 0:
            raise ValueError(f"seed was {seed!r}, must be an integer of at least 0")
        return SeededWeights(int(seed))
    path_name = ""
    if isinstance(weights, (str, os.PathLike)):
        from sepconv.io import read_weights  # here, so that a seeded model needs no reader

        path = checked_path(weights, "weights")
        path_name, weights = path.name, read_weights(path)
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights was {type(weights).__name__}, must be None, a path or a mapping of names to arrays")
    name: Any
    for name in weights:
        if not is_name(name):
            error = ValueError if isinstance(name, str) else TypeError
            raise error(f"weights held the name {name!r}, must have non-empty strings that UTF-8 can say")
    weights = without_prefixes(weights)
    if "stem.weight" in weights:
        return NamedWeights(weights)
    known = {f"{scheme.prefixes['stem'][0]}.weight": scheme for scheme in schemes}
    for stem, scheme in known.items():
        if stem in weights:
            return NamedWeights(weights, _tensorflow_port(scheme) if path_name.startswith("tf_") else scheme)
    raise ValueError(
        f"weights held {_list(list(weights)) or 'no names'}, must hold the stem as "
        f"{' or '.join(['stem.weight', *known])}"
    )


def named_weights(layers: LayersLike) -> dict[str, ArrayLike]:
    """The arrays of a list of layers, or of a :class:`sepconv.Model`, under our own names.

    It is what builders take as ``weights``, and numpy.savez writes. Raises TypeError for what is neither.
    """
    arrays: dict[str, ArrayLike] = {}
    for layer in layer_list(layers):
        if isinstance(layer, WeightedLayer):
            arrays[f"{layer.name}.weight"] = layer.weight
            if layer.bias is not None:
                arrays[f"{layer.name}.bias"] = layer.bias
        if isinstance(layer, Convolution) and layer.batch_norm is not None:
            for part in BATCH_NORM_ARRAYS:
                arrays[f"{layer.name}.batch_norm.{part}"] = getattr(layer.batch_norm, part)
    return arrays


def _tensorflow_port(scheme: NamingScheme) -> NamingScheme:
    """The scheme for weights that timm ported from TensorFlow: only the file's name tells, not those in it."""
    return dataclasses.replace(scheme, padding="same", epsilon=1e-3, convention=TIMM)


def _constant(value: float, *shape: int) -> NDArray[np.float32]:
    return np.broadcast_to(np.float32(value), shape)


def _list(names: Sequence[str]) -> str:
    return ", ".join(printable(name[:_NAME_LENGTH]) for name in names[:_LISTED]) + (
        f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    )
