"""Which operators our kernels run. Each is a function from a :class:`Call` to the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from sepconv import _core
from sepconv.onnx.ir import Array, Info, Node, NotNativeError

__all__ = [
    "ANY", "BASE", "FLOAT", "NUMBERS", "OPERATORS", "Call", "NotNativeError", "Operator", "axis_last", "dense", "find",
    "last_back", "native", "normal_axis", "zero",
]  # fmt: skip


@dataclass(slots=True)
class Call:
    """One execution of a node. ``constant``: which inputs are the same on every call; ``cache``: the node's own."""

    node: Node
    inputs: list[Array | None]
    threads: int = 1
    constant: frozenset[int] = frozenset()
    cache: dict[str, Any] = field(default_factory=dict)

    def get(self, index: int) -> Array | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def __getitem__(self, index: int) -> Array:
        array = self.get(index)
        if array is None:
            raise NotNativeError(f"input {index} is not given")
        return array

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    @property
    def opset(self) -> int:
        return self.node.opset

    def dense(self, index: int) -> Array:
        return dense(self[index], self.threads)

    def integers(self, index: int, name: str, default: list[int] | None = None) -> list[int] | None:
        """Whole numbers that older opsets give as an attribute, newer ones as an input."""
        array = self.get(index)
        if array is not None:
            return [int(value) for value in array.reshape(-1).tolist()]
        values = self.attribute(name, default)
        return None if values is None else [int(value) for value in ([values] if isinstance(values, int) else values)]

    def axis(self, rank: int, default: int) -> int:
        """The attribute ``axis``, from 0 on."""
        return normal_axis(int(self.attribute("axis", default)), rank)

    def cached(self, key: str, depends: tuple[int, ...], make: Callable[[], Any]) -> Any:
        """``make()``, kept for the next call where the inputs that it depends on are constant."""
        if not all(index in self.constant or self.get(index) is None for index in depends):
            return make()
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]


Run = Callable[[Call], list[Array]]
Check = Callable[[Node, list[Info]], str | None]

FLOAT = frozenset({"float32"})
BASE = frozenset({"float32", "int8", "uint8", "int32", "int64", "bool"})
NUMBERS = BASE - {"bool"}
ANY = frozenset[str]()


@dataclass(frozen=True)
class Operator:
    run: Run
    types: frozenset[str]  # of the first `typed` inputs; ANY: all with elements of fixed size
    typed: int
    check: Check | None
    kernel: str  # what explain() calls it

    def problem(self, node: Node, infos: list[Info]) -> str | None:
        """Why our kernels do not run this node, as far as that is known before it runs."""
        if any(len(info.shape or ()) > MAX_RANK for info in infos):
            return f"an input has more than {MAX_RANK} axes"
        for info in infos[: self.typed]:
            if info.dtype is None:
                continue
            if (
                (self.types and info.dtype.name not in self.types)
                or info.dtype.hasobject
                or info.dtype.itemsize not in _SIZES
            ):
                return f"its input is {info.dtype}"
        return self.check(node, infos) if self.check is not None else None


_SIZES = (1, 2, 4, 8, 16)
MAX_RANK = 10  # of the core's arrays
OPERATORS: dict[tuple[str, str], Operator] = {}
R = TypeVar("R", bound=Run)


def native(
    *names: str,
    types: frozenset[str] = FLOAT,
    typed: int = 1,
    check: Check | None = None,
    kernel: str = "",
    domain: str = "",
) -> Callable[[R], R]:
    """Register a function as what runs the operators of these names."""

    def register(run: R) -> R:
        for name in names:
            OPERATORS[domain, name] = Operator(run, types, typed, check, kernel or f"nd {run.__name__.strip('_')}")
        return run

    return register


def find(node: Node) -> Operator | None:
    return OPERATORS.get((node.domain, node.op))


def dense(x: Array, threads: int) -> Array:
    """The array itself where it is contiguous, else a copy by our kernels."""
    return x if x.flags.c_contiguous else _core.nd.dense(x, threads)


def axis_last(x: Array, axis: int) -> Array:
    """A view whose last axis is this one, the others in order: NumPy's own takes longer than a small operator."""
    return x if axis == x.ndim - 1 else x.transpose([*range(axis), *range(axis + 1, x.ndim), axis])


def last_back(x: Array, axis: int) -> Array:
    """A view whose last axis comes to where :func:`axis_last` took it from."""
    last = x.ndim - 1
    return x if axis == last else x.transpose([*range(axis), last, *range(axis, last)])


def normal_axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis is {axis}, must be within rank {rank}")
    return axis % rank if rank else 0


def zero(dtype: np.dtype[Any]) -> Array:
    return np.zeros(1, dtype)
