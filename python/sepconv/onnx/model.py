"""An ONNX model ready to run."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sepconv.errors import UnsupportedError
from sepconv.graph import output_names
from sepconv.graph.base import is_integer, reject_masked
from sepconv.model import Port
from sepconv.onnx.fallback import Reference
from sepconv.onnx.ir import Array, Graph, Info, Input, Node
from sepconv.onnx.passes import PASSES, run_passes
from sepconv.onnx.program import NodeStep, PlanStep, Program, native_problem, warn_of
from sepconv.table import format_table
from sepconv.threads import thread_count

if TYPE_CHECKING:
    from sepconv.conventions import Convention

MAX_PROGRAMS = 8  # kept, one for each combination of input shapes

# A graph that passes have run on, what they did, the convention, strict, plans.
_State = tuple[Graph, list[tuple[str, str]], "Convention | None", bool, bool]


class OnnxModel:
    """A network from an ONNX file: call it with arrays as the file has them (images are NCHW).

    Safe to call from many threads at once. Every output is the same to the bit at any number of threads.

    Args:
        graph: as :func:`sepconv.onnx.reader.read_onnx` gives it.
        outputs: names of the values that are returned; None: the file's outputs.
        strict: refuse a model of which our kernels do not run every node.
        passes: names of :data:`sepconv.onnx.PASSES` to run; None: all.
        plans: whether regions of images run in the engine; False leaves all to single operators.

    Raises:
        ModelFormatError, UnsupportedError: the model is wrong, asks for too much, or (strict) needs a fallback.
        TypeError: ``outputs`` is no sequence of names.
        ValueError: ``outputs`` or ``passes`` names what does not exist.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        outputs: Sequence[str] | None = None,
        convention: Convention | None = None,
        strict: bool = False,
        passes: Iterable[str] | None = None,
        plans: bool = True,
    ) -> None:
        chosen = output_names(outputs)
        if chosen is not None:
            _check_outputs(graph, chosen)
            graph.outputs = list(chosen)
        passed, notes = run_passes(graph, PASSES if passes is None else passes)
        self.__setstate__((passed, notes, convention, strict, plans))

    def __getstate__(self) -> _State:
        """A copy compiles its own programs."""
        return self._graph, self.notes, self.convention, self.strict, self._plans

    def __setstate__(self, state: _State) -> None:
        self._graph, self.notes, self.convention, self.strict, self._plans = state
        self.name = self._graph.name
        self.fallbacks: dict[str, str] = {}  # node → "operator: reason"
        # Not a method: programs that know their model would keep it until the cycle collector comes.
        self._on_fallback = partial(_note_fallback, self.fallbacks, self.name if self.strict else None)
        self._caches: dict[str, dict[str, Any]] = {}
        for node in self._graph.nodes:
            if node.outputs and all(name in self._graph.constants for name in node.inputs[1:] if name):
                self._caches[node.outputs[0]] = {}
        is_static = all(port.info.static is not None for port in self._graph.inputs)
        for node in self._graph.nodes:
            reason = native_problem(node, self._graph)
            if reason is not None:
                self._on_fallback(node, reason)
                if not is_static:  # else the program has it below
                    Reference(node, self._graph)
        self.inputs = tuple(_port(port.name, port.info) for port in self._graph.inputs)
        self.outputs = tuple(_port(name, self._graph.info(name)) for name in self._graph.outputs)
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._whole: PlanStep | None = None  # of the program that was looked up last
        self._uses = itertools.count()
        if is_static:
            shapes = {port.name: port.info.static or () for port in self._graph.inputs}
            self._program(shapes)
        if self.fallbacks:
            warn_of(self.fallbacks, self.name)

    def __call__(self, *inputs: Array, threads: int | None = None) -> Any:
        """Run the network.

        Args:
            inputs: one array an input, of the type and shape that ``model.inputs`` names.
            threads: how many to run on; None for :func:`sepconv.num_threads`.

        Returns:
            The output; a tuple of them where the model has several.

        Raises:
            TypeError: an input is missing, or of another type. ValueError: a shape does not fit.
        """
        if len(inputs) != len(self.inputs):
            raise TypeError(f"{self.name} takes {len(self.inputs)} input(s), got {len(inputs)}")
        feeds = {port.name: x for port, x in zip(self.inputs, inputs, strict=True)}
        results = self.run(feeds, threads=threads)
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, feeds: Mapping[str, Any], *, threads: int | None = None) -> list[Any]:
        """The outputs for inputs by name; as calling the model."""
        count = thread_count(threads)
        results = self.run_whole(feeds, count)
        if results is not None:
            return results
        _check_feeds(feeds)
        names = [port.name for port in self._graph.inputs]
        unknown = set(feeds) - set(names)
        if unknown:
            what = f"{self.name} has no input {', '.join(map(repr, sorted(unknown)))}"
            raise ValueError(f"{what}; feeds must hold {', '.join(map(repr, names)) or 'nothing'}")
        checked = {port.name: _checked(port, feeds) for port in self._graph.inputs}
        shapes = {name: np.shape(x) if isinstance(x, np.ndarray) else () for name, x in checked.items()}
        program = self._program(shapes)
        before = len(self.fallbacks)
        results = program.run(checked, count)
        if len(self.fallbacks) > before:
            warn_of(self.fallbacks, self.name)
        return results

    def run_whole(self, feeds: Any, threads: int) -> list[Any] | None:
        """The outputs where one plan makes them, as the last shapes did; None where it does not, or for run() to check.

        A call's own Python is no longer in the caches after a run: few lines are 20 microseconds less.
        """
        step = self._whole
        if step is None or type(feeds) is not dict or len(feeds) != len(self.inputs):
            return None
        return step.results(feeds, threads)

    def _program(self, shapes: Mapping[str, tuple[int, ...]]) -> Program:
        """Threads may compile the same program at once: a lock would stay locked in the child of a fork."""
        key = tuple(shapes.values())
        program = self._programs.get(key)
        if program is None:
            program = self._compiled(shapes)
        program.last_use = next(self._uses)
        self._whole = program.whole
        self._programs[key] = program
        if len(self._programs) > MAX_PROGRAMS:
            for old in sorted(self._programs.copy().items(), key=lambda item: item[1].last_use)[:-MAX_PROGRAMS]:
                self._programs.pop(old[0], None)
        return program

    def _compiled(self, shapes: Mapping[str, tuple[int, ...]]) -> Program:
        from sepconv.onnx.inference import infer
        from sepconv.onnx.passes.dead_code import remove_dead_code

        graph = self._graph.copy()
        dynamic = any(port.info.static is None for port in graph.inputs)
        if dynamic:
            graph.inputs = [
                Input(
                    port.name,
                    Info(port.info.dtype, tuple(shapes[port.name])) if port.info.dtype is not None else port.info,
                )
                for port in graph.inputs
            ]
            for port in graph.inputs:
                graph.infos[port.name] = port.info
            # What was inferred for open sizes stays only where nothing better is found.
            graph.infos = {
                name: Info(i.dtype, None) if name not in shapes and i.static is None else i
                for name, i in graph.infos.items()
            }
            infer(graph)
            remove_dead_code(graph)
        return Program(graph, self._caches, self._on_fallback, plans=self._plans)

    def explain(self, *shapes: Sequence[int]) -> str:
        """What each pass did, and what runs each node: a plan's step with its kernel, a native operator, or a fallback.

        Args:
            shapes: of each input, for a model whose sizes are open; without them, and before the first call, only the
                passes and fallbacks are told.
        """
        lines = [f"{name}: {note}" for name, note in self.notes]
        program = None
        if shapes:
            if len(shapes) != len(self.inputs):
                raise ValueError(f"got {len(shapes)} shapes, must be {len(self.inputs)}")
            ports = zip(self._graph.inputs, shapes, strict=True)
            program = self._program({port.name: _checked_shape(port, shape) for port, shape in ports})
        elif self._programs:
            program = max(self._programs.copy().values(), key=lambda program: program.last_use)
        if program is not None:
            lines += ["", *_partition_lines(program), "", format_table(_HEADER, _rows(program), align="><<<<")]
        if self.fallbacks:
            lines += ["", "on the reference implementation of the package onnx:"]
            lines += [f"  {name}: {reason}" for name, reason in self.fallbacks.items()]
        return "\n".join(lines)

    def info(self, name: str) -> Info:
        """Type and shape of a value, as far as they are known before it runs; symbols of open sizes by their names."""
        return self._graph.info(name)

    @property
    def native(self) -> bool:
        """Whether our own kernels run all of it, as far as has been seen."""
        return not self.fallbacks

    def __repr__(self) -> str:
        ports = ", ".join(f"{port.name} {list(port.shape)}" for port in self.inputs)
        return f"{self.name}: ONNX, {len(self._graph.nodes)} nodes after passes, inputs {ports}"


_HEADER = ("step", "runs on", "node", "kernel", "output")


def _rows(program: Program) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for index, step in enumerate(program.steps):
        if isinstance(step, PlanStep):
            for op in step.plan.describe():
                layers = ", ".join([op.layer, *op.fused])
                rows.append((index, "plan", layers, op.kernel, "×".join(map(str, op.output_shape))))
            continue
        shape = program.graph.info(step.node.outputs[0]).shape if step.node.outputs else None
        size = "?" if shape is None else "×".join(str(dim) for dim in shape)
        rows.append((index, _home(step), f"{step.node.op} {step.node.name}", step.kernel, size))
    return rows


def _home(step: NodeStep) -> str:
    return "onnx" if step.kernel == "onnx.reference" else "view" if step.kernel == "view" else "native"


def _partition_lines(program: Program) -> list[str]:
    plans = [step for step in program.steps if isinstance(step, PlanStep)]
    inside = sum(len(step.region.nodes) for step in plans)
    alone = len(program.steps) - len(plans)
    copies = sum(len(step.inputs) + len(step.outputs) for step in plans)
    lines = [
        f"partition: {inside} node(s) in {len(plans)} plan(s), {alone} alone",
        f"layout: NHWC inside plans, {copies} value(s) at their borders",
    ]
    reasons = Counter(program.reasons.values())
    return [*lines, *(f"  outside a plan: {count} × {reason}" for reason, count in sorted(reasons.items()))]


def _check_outputs(graph: Graph, outputs: Sequence[str]) -> None:
    known = {output for node in graph.nodes for output in node.outputs if output}
    if not outputs:
        raise ValueError("outputs is empty, must name at least one value")
    for name in outputs:
        if name not in known:
            raise ValueError(f"outputs has {name!r}, must name values that nodes of {graph.name} write")


def _port(name: str, info: Info) -> Port:
    shape = tuple(dim if isinstance(dim, int) else None for dim in info.shape or ())
    return Port(name, shape, "object" if info.dtype is None else info.dtype.name)


def _note_fallback(fallbacks: dict[str, str], strict_model: str | None, node: Node, reason: str) -> None:
    what = f"{node.domain}.{node.op}" if node.domain else node.op
    fallbacks[node.name] = f"{what}: {reason}"
    if strict_model is not None:
        raise UnsupportedError(f"{strict_model}: node {node.name!r} ({what}) would run on the package onnx: {reason}")


def _check_feeds(feeds: Any) -> None:
    if not isinstance(feeds, Mapping) or not all(isinstance(name, str) for name in feeds):
        raise TypeError(f"feeds was a {type(feeds).__name__}, must be a mapping from names of inputs to arrays")


def _checked(port: Input, feeds: Mapping[str, Any]) -> Any:
    """An input as the graph takes it."""
    if port.name not in feeds:
        raise ValueError(f"input {port.name!r} is missing")
    x = feeds[port.name]
    if isinstance(x, np.generic | float | int):
        x = np.asarray(x)
    if port.info.dtype is None:
        return x  # a sequence or an optional
    if not isinstance(x, np.ndarray):
        raise TypeError(f"input {port.name!r} was a {type(x).__name__}, must be a numpy array")
    reject_masked(f"input {port.name!r}", x)
    if x.dtype != port.info.dtype and not (x.dtype.kind in "OU" and port.info.dtype.kind in "OU"):
        raise TypeError(f"input {port.name!r} had dtype {x.dtype}, must have {port.info.dtype}")
    _check_fit(port, x.shape)
    return x


def _checked_shape(port: Input, shape: Sequence[int]) -> tuple[int, ...]:
    """One that an array could have which the input takes."""
    sizes = tuple(shape)
    if not all(is_integer(size) and size >= 0 for size in sizes):
        raise ValueError(f"the shape of input {port.name!r} was {sizes}, must be whole numbers from 0 on")
    _check_fit(port, sizes)
    return sizes


def _check_fit(port: Input, sizes: tuple[int, ...]) -> None:
    """ValueError for another shape than the file declares."""
    declared = port.info.shape
    fits = declared is None or (
        len(declared) == len(sizes)
        and all(not isinstance(dim, int) or dim == size for dim, size in zip(declared, sizes, strict=True))
    )
    if not fits:
        raise ValueError(f"input {port.name!r} had shape {sizes}, must have {declared}")
