"""Changes of the statistics that batch norms gather: torch writes them without raising the versions of the tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from sepconv.torch.convolutions import Normalize
from sepconv.torch.operators import Operator

Tensor = Any  # torch.Tensor, which has no types here
MAX_KNOWN = 64

_NAMES = ("running_mean", "running_var")


def gathered(operators: dict[Node, Operator]) -> tuple[set[Node], set[tuple[str, str]]]:
    """Where operators read statistics: the arguments that give them, and the modules and their tensors, by name."""
    norms = {node: made for node, made in operators.items() if isinstance(made, Normalize)}
    nodes = {w for made in norms.values() for w in (made.mean, made.variance) if isinstance(w, Node)}
    names = {(node.target, name) for node in norms if node.op == "call_module" for name in _NAMES}
    for path, _, name in (node.target.rpartition(".") for node in nodes if node.op == "get_attr"):
        names.add((path, name))
    return {node for node in nodes if node.op == "placeholder"}, names


def remember(seen: OrderedDict[Any, Any], key: Hashable, value: Any, most: int) -> None:
    """Keep a value, and of all no more than so many, the last."""
    seen[key] = value
    while len(seen) > most:
        with suppress(KeyError):  # another thread has just done so
            seen.popitem(last=False)


class Statistics:
    """Tells by their values whether tensors have changed."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, tuple[_Values, bytes, int]] = OrderedDict()
        self._changes = count(1)

    def changes(self, key: Hashable, tensors: list[Tensor]) -> int:
        """A number that is another one after each change of the tensors; ``key`` holds the identity of each."""
        if not tensors:
            return 0
        known = self._known.get(key)
        values = _Values(tensors) if known is None else known[0]
        now = values.read()
        if known is None or known[1] != now:
            known = values, now, next(self._changes)
            remember(self._known, key, known, MAX_KNOWN)
        return known[2]


class _Values:
    """The memory of tensors."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = list(tensors)  # kept, so that no other tensor gets their identity
        readable = [t for t in self._tensors if t.device.type == "cpu" and t.layout == torch.strided]
        readable = [t for t in readable if t.dtype == torch.float32 and not t.is_neg()]  # others have no plan
        arrays: list[NDArray[np.float32]] = [t.detach().numpy() for t in readable]
        self._plain = [array for array in arrays if array.flags.c_contiguous]
        self._strided = [array for array in arrays if not array.flags.c_contiguous]

    def read(self) -> bytes:
        plain: list[Any] = self._plain
        return b"".join([*plain, *(array.tobytes() for array in self._strided)] if self._strided else plain)
