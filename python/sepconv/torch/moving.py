"""Operators that move elements and compute nothing: parts and concatenations of channels, shuffles, enlargements."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Node
from torch.nn import functional

from sepconv import graph
from sepconv.lowering import float32_repeats
from sepconv.torch import rewrite
from sepconv.torch.arguments import Arguments, Maker, only, pair
from sepconv.torch.operators import Builder, Operator, Unsupported, Value, as_image, check

Bounds = Callable[[int], tuple[int, int]]  # the first channel and the one past the last, of so many


@dataclass(frozen=True)
class Concatenate(Operator):
    dim: int

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        check(self.dim in ((1, -1) if x[0].flat else (1, -3)), f"it runs over dimension {self.dim}")
        check(all(value.flat == x[0].flat for value in x), "its inputs have different numbers of dimensions")
        layer = graph.Concat(name=node.name, inputs=tuple(value.layer for value in x))
        return to.add(layer, *x, flat=x[0].flat)


@dataclass(frozen=True)
class Part(Operator):
    """Some channels that follow on each other."""

    dim: int
    bounds: Bounds
    alias = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        check(self.dim in ((1, -1) if x[0].flat else (1, -3)), f"it runs over dimension {self.dim}")
        check(not x[0].flat or x[0].shape[:2] == (1, 1), "its input is a flattened image")
        channels = x[0].shape[2]
        begin, end = self.bounds(channels)
        if (begin, end) == (0, channels):
            return x[0]
        return to.add(
            graph.ChannelSlice(name=node.name, inputs=(x[0].layer,), begin=begin, end=end), x[0], flat=x[0].flat
        )


@dataclass(frozen=True)
class Shuffle(Operator):
    groups: int
    alias = True  # for one group
    keeps_first = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        layer = graph.ChannelShuffle(name=node.name, inputs=(as_image(x[0]).layer,), groups=self.groups)
        return to.add(layer, x[0])


@dataclass(frozen=True)
class AsPixel(Operator):
    """[n, c] as [n, c, 1, 1]."""

    alias = True
    keeps_first = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        check(x[0].shape[:2] == (1, 1), "its input is a flattened image")
        return dataclasses.replace(x[0], flat=False)


@dataclass(frozen=True)
class CheckRank(Operator):
    """An assertion, whose result nobody reads."""

    rank: int

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        check(self.rank == (2 if x[0].flat else 4), f"an assertion wants {self.rank} dimensions")
        return x[0]


@dataclass(frozen=True)
class Enlarge(Operator):
    """Pixels repeated, to a size or by factors; ``exact`` where the factors are forgotten once the size is known."""

    size: tuple[int, int] | None
    factors: tuple[float, float] | None
    exact: bool
    keeps_first = True

    def lower(self, node: Node, to: Builder, *x: Value) -> Value:
        shape = as_image(x[0]).shape
        size = self.size or tuple(int(n * f) for n, f in zip(shape[:2], self.factors or (1, 1), strict=True))
        factors = (None, None) if self.factors is None or self.exact else self.factors
        for before, after, factor in zip(shape[:2], size, factors, strict=True):
            check(after >= before, f"it makes {after} rows or columns of {before}")
            agrees = float32_repeats(before, after, 1 / factor if factor else None)
            check(agrees, f"it makes {after} of {before} pixels")
        layer = graph.Upsample(name=node.name, inputs=(x[0].layer,), size=(size[0], size[1]))
        return to.add(layer, x[0])


# --- From arguments


def _concatenate(a: Arguments) -> Operator:
    only(a, out=None)
    tensors = a["tensors"]
    if not isinstance(tensors, list | tuple) or not tensors or not all(isinstance(t, Node) for t in tensors):
        raise Unsupported("its tensors are no list that the graph shows")
    return Concatenate(tuple(tensors), _integer(a.get("dim", 0), "dim"))


def _chunk(a: Arguments) -> Operator:
    chunks, index = _integer(a["chunks"], "chunks"), a["index"]
    check(chunks >= 1, f"chunks is {chunks}")
    return Part((a["input"],), a["dim"], lambda channels: _step(channels, -(-channels // chunks), index))


def _split(a: Arguments) -> Operator:
    sizes, index = a["sizes"], a["index"]
    if isinstance(sizes, int):
        check(sizes >= 1, f"its parts have {sizes} channels")
        return Part((a["input"],), a["dim"], lambda channels: _step(channels, sizes, index))
    if not isinstance(sizes, list | tuple) or not all(isinstance(size, int) for size in sizes):
        raise Unsupported(f"its parts have {sizes} channels")
    check(-len(sizes) <= index < len(sizes), f"it has no part {index}")
    begin = sum(sizes[: index % len(sizes)])
    return Part((a["input"],), a["dim"], lambda channels: (begin, begin + sizes[index]))


def _step(channels: int, size: int, index: int) -> tuple[int, int]:
    """Part ``index`` of all of ``size`` channels; the last may have fewer."""
    begins = range(0, channels, size)
    check(-len(begins) <= index < len(begins), f"it has no part {index}")
    begin = begins[index]
    return begin, min(begin + size, channels)


def _slice(a: Arguments) -> Operator:
    index = a["index"]
    if not isinstance(index, tuple) or len(index) < 2 or not isinstance(index[1], slice):
        raise Unsupported("it takes other than a slice of channels")
    rest = (index[0], *(part for part in index[2:] if part is not Ellipsis))
    if len(index) > 4 or index[0] is Ellipsis or any(part != slice(None) for part in rest):
        raise Unsupported("it takes a part of other dimensions than the channels")
    bounds = index[1]
    if bounds.step not in (None, 1) or not all(isinstance(n, int | None) for n in (bounds.start, bounds.stop)):
        raise Unsupported("it takes other than channels that follow on each other")
    return Part((a["input"],), 1, lambda channels: bounds.indices(channels)[:2])


def _shuffle(a: Arguments) -> Operator:
    return Shuffle((a["input"],), _integer(a["groups"], "groups"))


def _enlarge(a: Arguments) -> Operator:
    only(a, mode="nearest", align_corners=None, antialias=False)
    size, factors = a.get("size"), a.get("scale_factor")
    if (size is None) == (factors is None):
        raise Unsupported(f"size is {size!r} and scale_factor {factors!r}")
    if size is not None:
        return Enlarge((a["input"],), pair(size, "size"), None, exact=True)
    both = tuple(factors) if isinstance(factors, list | tuple) else (factors, factors)
    if len(both) != 2 or not all(isinstance(f, int | float) and 1 <= f < 2**20 for f in both):
        raise Unsupported(f"scale_factor is {factors!r}")
    return Enlarge((a["input"],), None, (float(both[0]), float(both[1])), bool(a.get("recompute_scale_factor")))


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unsupported(f"{name} is {value!r}")
    return value


_ENLARGE = "size scale_factor mode align_corners recompute_scale_factor"
# As in parse.py.
FUNCTIONS: dict[Any, tuple[str, Maker]] = {
    torch.cat: ("tensors dim out", _concatenate),
    torch.concat: ("tensors dim out", _concatenate),
    operator.getitem: ("input index", _slice),
    torch.channel_shuffle: ("input groups", _shuffle),
    functional.interpolate: (f"input {_ENLARGE} antialias", _enlarge),
    rewrite.chunk_part: ("input chunks dim index", _chunk),
    rewrite.split_part: ("input sizes dim index", _split),
    rewrite.shuffled: ("input groups", _shuffle),
    rewrite.check_rank: ("input rank message", lambda a: CheckRank((a["input"],), a["rank"])),
    rewrite.as_pixel: ("input", lambda a: AsPixel((a["input"],))),
}
MODULES: dict[Any, tuple[str, Maker]] = {
    nn.ChannelShuffle: ("groups", _shuffle),
    nn.Upsample: (_ENLARGE, _enlarge),
    nn.UpsamplingNearest2d: (_ENLARGE, _enlarge),
}
