"""A model as a graph of nodes: what the passes change, and what is then compiled and run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepconv.graph.base import new_name

Array = NDArray[Any]
Dim = int | str | None  # a size, a symbol's name, or nothing known

OWN_DOMAIN = "sepconv"  # of operators that our passes make


class NotNativeError(Exception):
    """Our kernels do not do this; the message says what."""


@dataclass(frozen=True)
class Info:
    """What is known of a value before anything runs. ``shape`` None: not even the rank."""

    dtype: np.dtype[Any] | None = None
    shape: tuple[Dim, ...] | None = None

    @property
    def static(self) -> tuple[int, ...] | None:
        """The shape, where every size is known."""
        if self.shape is None or not all(isinstance(dim, int) for dim in self.shape):
            return None
        return tuple(dim for dim in self.shape if isinstance(dim, int))


@dataclass(eq=False)
class Node:
    """One operator. An input "" is an optional one that is not given, an output "" one that nobody wants.

    ``activation`` and ``flatten`` are what passes add to a standard operator: what comes after it (a name of
    :data:`sepconv.graph.ActivationName`), and that its first input is flattened from axis 1 on before.
    """

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""
    captures: tuple[str, ...] = ()  # values of this graph that its subgraphs read
    origin: tuple[str, ...] = ()  # names of the file's nodes whose work it does
    activation: str = "none"
    flatten: bool = False
    opset: int = 0
    proto: Any = None  # the file's NodeProto; None where a pass changed attributes or made the node

    def reads(self) -> Iterator[str]:
        yield from (name for name in self.inputs if name)
        yield from self.captures

    def input(self, index: int) -> str:
        """The name of an input; "" where it is not given."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def is_op(self, *names: str) -> bool:
        """Whether it is one of these standard operators, without anything that passes added."""
        return self.domain == "" and self.op in names and self.activation == "none" and not self.flatten

    def is_linear(self) -> bool:
        """Whether it is what the pass ``linear`` makes, without anything that passes added."""
        return self.domain == OWN_DOMAIN and self.op == "Linear" and self.activation == "none"


@dataclass(frozen=True)
class Input:
    name: str
    info: Info


@dataclass
class Graph:
    """Nodes in an order in which each reads only what earlier ones write (or inputs, or constants)."""

    name: str
    nodes: list[Node]
    inputs: list[Input]
    outputs: list[str]
    constants: dict[str, Array]
    opsets: dict[str, int]
    infos: dict[str, Info] = field(default_factory=dict)
    inferred: dict[str, Info] = field(default_factory=dict)  # of them, what follows from inputs and constants alone
    functions: tuple[Any, ...] = ()  # FunctionProtos, for those nodes that call them
    ir_version: int = 8
    _made: set[str] = field(default_factory=set)  # names of values, once one had to be made up

    def copy(self) -> Graph:
        """Another graph whose nodes may be changed; arrays are shared."""
        nodes = [
            replace(node, inputs=list(node.inputs), outputs=list(node.outputs), attributes=dict(node.attributes))
            for node in self.nodes
        ]
        return replace(
            self,
            nodes=nodes,
            inputs=list(self.inputs),
            outputs=list(self.outputs),
            constants=dict(self.constants),
            infos=dict(self.infos),
            inferred=dict(self.inferred),
            _made=set(),
        )

    def producers(self) -> dict[str, Node]:
        return {output: node for node in self.nodes for output in node.outputs if output}

    def use_counts(self) -> dict[str, int]:
        """How often each value is read, by nodes and as an output."""
        counts = Counter(name for node in self.nodes for name in node.reads())
        counts.update(self.outputs)
        return counts

    def info(self, name: str) -> Info:
        constant = self.constants.get(name)
        if constant is not None:
            return Info(constant.dtype, constant.shape)
        return self.infos.get(name, Info())

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self.info(name).static

    def sure_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape, where inputs and operators alone tell it: what a file says of other values may be wrong."""
        if name in self.constants:
            return self.constants[name].shape
        given = next((port.info for port in self.inputs if port.name == name), None)
        return (given or self.inferred.get(name, Info())).static

    def constant(self, name: str) -> Array | None:
        return self.constants.get(name) if name else None

    def adds_axes(self, value: str, constant: str) -> bool:
        """Whether an operation with the constant may give more axes than the value has."""
        shape, axes = self.info(value).shape, len(self.info(constant).shape or ())
        return axes > 0 and (shape is None or axes > len(shape))

    def scalar(self, name: str) -> float | None:
        """The one element of a constant."""
        array = self.constant(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 and array.dtype != object else None

    def new_name(self, base: str) -> str:
        """A name that no value has, nor gets by another call."""
        if not self._made:
            self._made = {*self.constants, *self.infos, *(port.name for port in self.inputs)}
            for node in self.nodes:
                self._made.update(node.outputs, node.reads())
        return new_name(base, self._made)

    def add_constant(self, base: str, array: Array) -> str:
        """Give a constant a name that nothing has."""
        name = self.new_name(base)
        self.constants[name] = array
        return name

    def rename(self, renamed: Mapping[str, str]) -> None:
        """Let readers of a key read its value instead; outputs of the graph keep their names."""
        for node in self.nodes:
            node.inputs = [renamed.get(name, name) for name in node.inputs]

    def remove(self, dead: set[int]) -> None:
        """Take out the nodes with these ids (:func:`id`)."""
        self.nodes = [node for node in self.nodes if id(node) not in dead]
