"""A graph compiled for inputs of one shape each: steps in order, each a plan, a native operator or a fallback."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sepconv import _core
from sepconv.compile import compile_graph
from sepconv.errors import UnsupportedError
from sepconv.model import FLOAT32
from sepconv.onnx.fallback import Reference
from sepconv.onnx.ir import OWN_DOMAIN, Array, Graph, Node
from sepconv.onnx.lowering import NotInPlanError
from sepconv.onnx.ops import Call, NotNativeError, find
from sepconv.onnx.ops.registry import MAX_RANK
from sepconv.onnx.partition import Region, lower, partition


class FallbackWarning(UserWarning):
    """Some nodes of a model run on the package onnx's reference implementation, which is slow."""


Values = dict[str, Any]


class PlanStep:
    """A region of images: to NHWC on the way in, through the engine, and back."""

    def __init__(self, graph: Graph, region: Region, alone: Callable[[Node], NodeStep]) -> None:
        lowering = lower(graph, region)
        self._expected = {name: lowering.shape(name) for name in region.inputs}
        self._alone = alone
        self._nodes: list[NodeStep] | None = None
        self.region = region
        self.inputs, self.outputs = list(region.inputs), list(region.outputs)
        layers = [lowering.layer(name) for name in self.outputs]
        distinct = list(dict.fromkeys(layers))
        places = [distinct.index(layer) for layer in layers]
        self._results = [(place, lowering.shape(name)[1:]) for place, name in zip(places, self.outputs, strict=True)]
        self.shares = len(distinct) < len(places)  # whether outputs are one in memory
        self.plan = _core.Plan(compile_graph(lowering.layers, distinct))
        self.layers = lowering.layers
        self.lend(frozenset())

    def lend(self, names: Container[str]) -> None:
        """Leave these outputs as views of what lies channels last: only other plans read them."""
        results = [(*result, name in names) for result, name in zip(self._results, self.outputs, strict=True)]
        self._images = _core.ChannelsFirst(self.plan, results)

    def run(self, values: Values, threads: int) -> None:
        given = [values[name] for name in self.inputs]
        if any(np.shape(x) != shape for x, shape in zip(given, self._expected.values(), strict=True)):
            self._run_nodes(values, threads)
            return
        values.update(zip(self.outputs, self._images.run(given, threads), strict=True))

    def results(self, feeds: Mapping[str, Any], threads: int) -> list[Array] | None:
        """The outputs, of feeds that have not been checked; None where one is not what the plan takes."""
        given = []
        for name, shape in self._expected.items():
            x = feeds.get(name)
            if type(x) is not np.ndarray or x.shape != shape or x.dtype != FLOAT32:
                return None
            given.append(x)
        results: list[Array] = self._images.run(given, threads)
        return results

    def _run_nodes(self, values: Values, threads: int) -> None:
        """Where a value has another shape than the file and shape inference say: node after node."""
        if self._nodes is None:
            self._nodes = [self._alone(node) for node in self.region.nodes]
        inside: Values = dict(values)
        for step in self._nodes:
            step.run(inside, threads)
        values.update({name: inside[name] for name in self.outputs})


class NodeStep:
    """One node, on our kernels where they do it."""

    def __init__(
        self, node: Node, graph: Graph, cache: dict[str, Any], on_fallback: Callable[[Node, str], None]
    ) -> None:
        self.node = node
        self.inputs, self.outputs = list(node.reads()), node.outputs
        self._graph = graph
        self._cache = cache
        self._on_fallback = on_fallback
        self._constant = frozenset(i for i, name in enumerate(node.inputs) if name in graph.constants)
        self._reference: Reference | None = None
        self.operator = find(node)
        reason = native_problem(node, graph)
        if reason is not None:
            self._reference = self._fall_back(reason)

    @property
    def kernel(self) -> str:
        return "onnx.reference" if self._reference is not None or self.operator is None else self.operator.kernel

    def run(self, values: Values, threads: int) -> None:
        results = self._run(values, threads)
        if len(results) < len(self.outputs) and any(self.outputs[len(results) :]):
            given = f"gives {len(results)} results, must give {len(self.outputs)}"
            raise ValueError(f"node {self.node.name!r} ({self.node.op}): {given}")
        for name, result in zip(self.outputs, results, strict=False):
            if name:
                values[name] = result

    def _run(self, values: Values, threads: int) -> list[Any]:
        if self._reference is None and self.operator is not None:
            inputs = [values[name] if name else None for name in self.node.inputs]
            call = Call(self.node, inputs, threads, self._constant, self._cache)
            try:
                for x in inputs:
                    if x is None:
                        continue
                    if not isinstance(x, np.ndarray):
                        raise NotNativeError("an input is no array")
                    if x.ndim > MAX_RANK:
                        raise NotNativeError(f"an input has more than {MAX_RANK} axes")
                return self.operator.run(call)
            except NotNativeError as error:
                self._reference = self._fall_back(str(error))
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                raise ValueError(f"node {self.node.name!r} ({self.node.op}): {error}") from error
        assert self._reference is not None
        named = [name for name in self.node.outputs if name]
        try:
            given = self._reference(values)
        except MemoryError:
            raise
        except Exception as error:  # the package has no one class for this
            what = f"node {self.node.name!r} ({self.node.op})"
            raise ValueError(f"{what}: the package onnx's reference implementation failed: {error}") from error
        results = dict(zip(named, given, strict=False))
        return [results.get(name) for name in self.node.outputs]

    def _fall_back(self, reason: str) -> Reference:
        if self.node.activation != "none" or self.node.flatten or self.node.domain == OWN_DOMAIN:
            raise UnsupportedError(f"node {self.node.name!r} ({self.node.op}) was changed by a pass; {reason}")
        self._on_fallback(self.node, reason)
        return Reference(self.node, self._graph)


def native_problem(node: Node, graph: Graph) -> str | None:
    """Why our kernels do not run a node; None where they do, as far as is known."""
    operator = find(node)
    if operator is None:
        return "sepconv has no kernel for it"
    return operator.problem(node, [graph.info(name) for name in node.inputs])


def _node_step(
    graph: Graph, caches: Mapping[str, dict[str, Any]], on_fallback: Callable[[Node, str], None], node: Node
) -> NodeStep:
    return NodeStep(node, graph, caches.get(node.outputs[0] if node.outputs else "", {}), on_fallback)


class Program:
    """Steps and what they need. Safe to run from many threads at once."""

    def __init__(
        self,
        graph: Graph,
        caches: Mapping[str, dict[str, Any]],
        on_fallback: Callable[[Node, str], None],
        *,
        plans: bool = True,
    ) -> None:
        self.graph = graph
        self.last_use = 0  # a number that grows with time
        self.steps: list[PlanStep | NodeStep] = []
        # Not a method: steps that know their program would keep it until the cycle collector comes.
        alone = partial(_node_step, graph, caches, on_fallback)
        with np.errstate(all="ignore"):  # weights that are not finite are nothing to warn of
            items, self.reasons = partition(graph) if plans else (list(graph.nodes), {})
            for item in items:
                self.steps += self._region_steps(item, alone) if isinstance(item, Region) else [alone(item)]
        self._lend()
        self._releases = self._last_uses()
        self.whole = self._whole(graph)
        read = {name for node in graph.nodes for name in node.reads()} | set(graph.outputs)
        self._constants = {name: array for name, array in graph.constants.items() if name in read}
        self._constant_ids = frozenset(map(id, self._constants.values()))

    def _region_steps(self, region: Region, alone: Callable[[Node], NodeStep]) -> Sequence[PlanStep | NodeStep]:
        """One plan; node after node where the core refuses it, as strides beyond its sizes."""
        try:
            return [PlanStep(self.graph, region, alone)]
        except (NotInPlanError, ValueError) as error:
            self.reasons.update({node.name: str(error) for node in region.nodes})
            return [alone(node) for node in region.nodes]

    def _lend(self) -> None:
        """Between plans values keep the order that they have there."""
        others = {name for step in self.steps if isinstance(step, NodeStep) for name in step.inputs}
        others.update(self.graph.outputs)
        for step in self.steps:
            if isinstance(step, PlanStep):
                step.lend({name for name in step.outputs if name not in others})

    def _whole(self, graph: Graph) -> PlanStep | None:
        """The step where one plan computes all outputs from all inputs, each in memory of its own."""
        step = self.steps[0] if len(self.steps) == 1 else None
        if not isinstance(step, PlanStep) or step.shares or step.outputs != list(graph.outputs):
            return None
        fits = all(port.info.dtype == FLOAT32 for port in graph.inputs)
        return step if fits and sorted(step.inputs) == sorted(port.name for port in graph.inputs) else None

    def _last_uses(self) -> list[list[str]]:
        """For each step, the values that nobody reads after it."""
        keep = {*self.graph.outputs, *self.graph.constants}
        last: dict[str, int] = {}
        for index, step in enumerate(self.steps):
            for name in [*step.inputs, *step.outputs]:
                last[name] = index
        releases: list[list[str]] = [[] for _ in self.steps]
        for name, index in last.items():
            if name and name not in keep:
                releases[index].append(name)
        return releases

    def run(self, feeds: Mapping[str, Any], threads: int) -> list[Any]:
        """The outputs, for inputs that have been checked. They share memory with nothing: a caller may write."""
        values: Values = {**self._constants, **feeds}
        for step, released in zip(self.steps, self._releases, strict=True):
            step.run(values, threads)
            for name in released:
                values.pop(name, None)
        seen = {id(item) for x in feeds.values() for item in (x if isinstance(x, list) else [x])}
        return [_owned(values[name], seen, self._constant_ids) for name in self.graph.outputs]


def warn_of(fallbacks: Mapping[str, str], name: str) -> None:
    """Say once that nodes run on the reference implementation."""
    kinds = ", ".join(sorted({text.split(":")[0] for text in fallbacks.values()}))
    warnings.warn(
        f"{name}: {len(fallbacks)} node(s) run on the slow reference implementation of the package onnx: {kinds}; "
        "model.explain() names them",
        FallbackWarning,
        stacklevel=3,
    )


def _owned(value: Any, seen: set[int], constants: Container[int]) -> Any:
    """An output as it is where it alone has its memory, else a copy; ``seen``: ids of inputs and of what was given."""
    if isinstance(value, list):  # a sequence
        return [_owned(item, seen, constants) for item in value]
    if not isinstance(value, np.ndarray):
        return value
    if value.base is None and value.flags.writeable and id(value) not in seen and id(value) not in constants:
        seen.add(id(value))
        return value
    if value.ndim > MAX_RANK or value.dtype.hasobject:
        return value.copy()
    copy = np.empty(value.shape, value.dtype)
    _core.nd.copy(copy, value, 1)
    return copy
