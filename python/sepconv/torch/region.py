"""A part of a network that runs as plans of sepconv, one for each size of its inputs, and with torch where it must."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter, is_
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.fx import GraphModule, Node
from torch.nn.modules import module as torch_module

from sepconv import _core
from sepconv.compile import compile_graph
from sepconv.torch.convolutions import Separable
from sepconv.torch.operators import PLAIN, Builder, Operator, Unsupported, Value
from sepconv.torch.parse import parse
from sepconv.torch.rewrite import rewrite
from sepconv.torch.statistics import Statistics, gathered, remember
from sepconv.torch.steps import fused_steps

Tensor = Any  # torch.Tensor, which has no types here
MAX_PLANS = 4
MAX_SIGHTINGS = 64

_version = attrgetter("_version")


@dataclass(frozen=True)
class _Output:
    """Where a result comes from: result ``index`` of the plan, or the region's argument ``argument``."""

    index: int
    argument: int
    flat: bool


@dataclass(frozen=True)
class _Compiled:
    plans: tuple[_core.ChannelsFirst, _core.ChannelsFirst]  # with results that are contiguous, and channels_last
    outputs: tuple[_Output, ...]
    weights: tuple[Tensor, ...]  # kept, so that no other tensor gets their identity


class _Found(NamedTuple):
    """The tensors of a region's modules: all, the statistics among them, and what tells them from others."""

    all: list[Tensor]
    statistics: list[Tensor]
    identities: tuple[int, ...]


class _Slots:
    """Where the modules and attributes that operators read keep their tensors, which may be others at each call."""

    def __init__(self, eager: GraphModule, operators: dict[Node, Operator], statistics: set[tuple[str, str]]) -> None:
        modules = dict(eager.named_modules())
        called = [modules[node.target] for node in operators if node.op == "call_module"]
        weights = [weight for made in operators.values() for weight in made.weights if isinstance(weight, Node)]
        owners = [modules[weight.target.rpartition(".")[0]] for weight in weights if weight.op == "get_attr"]
        kept = {
            (id(store), name): (part, store, name)
            for part in (*called, *owners)
            for store in (part._parameters, part._buffers)
            for name in store
            if name != "num_batches_tracked"
        }.values()
        self._parts, self._stores, self._names = ([each[i] for each in kept] for i in range(3))
        self._statistics = {(id(modules[path]), name) for path, name in statistics}
        self._known: tuple[list[Tensor | None], _Found] = [], _Found([], [], ())
        self._hooks = [hooks for part in called for hooks in (part._forward_hooks, part._forward_pre_hooks)]
        if called:  # those of all modules
            self._hooks += [torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks]

    def tensors(self) -> _Found:
        """What is there now; the same object as long as nothing is replaced."""
        now = list(map(dict.get, self._stores, self._names))
        before, found = self._known
        if len(before) != len(now) or not all(map(is_, before, now)):
            slots = zip(self._parts, self._names, now, strict=True)
            filled = [(part, name, tensor) for part, name, tensor in slots if tensor is not None]
            for part, name, _ in filled:
                vars(part).pop(name, None)  # left by a hook that has computed it, as those of pruning do
            tensors = [tensor for _, _, tensor in filled]
            statistics = [tensor for part, name, tensor in filled if (id(part), name) in self._statistics]
            found = _Found(tensors, statistics, tuple(map(id, tensors)))
            self._known = now, found
        return found

    def hooked(self) -> bool:
        """Whether hooks watch a module: they may change its weights as they like."""
        if not any(self._hooks):
            return False
        self._known = [], _Found([], [], ())
        return True


class Region(torch.nn.Module):
    """Runs ``eager``, a graph module of operators that sepconv has, as compiled plans.

    A plan is made for each size of the inputs (the batch is free), with the weights packed in it; the four that were
    used last are kept, and once there are so many, a size gets a plan when it comes for the second time. Weights that
    are changed in place or replaced are packed anew. ``eager`` itself runs where a plan cannot: on inputs that are not
    float32 on the CPU, while gradients are recorded through it or it is traced, under autocast, while a mode watches
    operators, where a module has got hooks, and where weights are of a class of their own or were made in inference
    mode; ``eager_runs`` counts how often, and why.

    Args:
        eager: the graph module; its arguments are activations, weights and scalars, its results a tensor or a tuple.
        frozen: whether gradients with respect to the weights are never asked for.
        threads: None for as many as torch uses.
    """

    def __init__(self, eager: GraphModule, *, frozen: bool, threads: int | None) -> None:
        super().__init__()
        self.eager = eager
        self.training = False
        self.frozen = frozen
        self.threads = threads
        self.eager_runs: Counter[str] = Counter()
        self._nodes = [node for node in eager.graph.nodes if node.op == "placeholder"]
        operators = self._parse(example)
        read = {node for made in operators.values() for node in made.inputs}
        weights = [weight for made in operators.values() for weight in made.weights]
        indices = range(len(self._nodes))
        self._activations = [i for i in indices if self._nodes[i] in read]
        self._weights = [i for i in indices if self._nodes[i] in weights]
        self._scalars = [i for i in indices if i not in self._activations and i not in self._weights]
        arguments, names = gathered(operators)
        self._gathered = [i for i in indices if self._nodes[i] in arguments]
        self._own = _Slots(eager, operators, names)
        (result,) = next(node for node in eager.graph.nodes if node.op == "output").args
        self._single = isinstance(result, Node)
        self._results: tuple[Node, ...] = (result,) if self._single else tuple(result)
        self._forget()

    def forward(self, *arguments: Any) -> Any:
        try:
            compiled = self._compiled(arguments)
        except Unsupported as reason:
            known = len(self.eager_runs) < MAX_SIGHTINGS or str(reason) in self.eager_runs
            self.eager_runs[str(reason) if known else "other reasons"] += 1
            return self.eager(*arguments)
        inputs = self._given(arguments)
        first = next((x for x in inputs if x.dim() == 4), None)
        channels_last = (
            first is not None and first.is_contiguous(memory_format=torch.channels_last) and not first.is_contiguous()
        )
        threads = torch.get_num_threads() if self.threads is None else self.threads
        arrays = [(x.detach() if x.requires_grad else x).resolve_neg().numpy() for x in inputs]
        results = compiled.plans[channels_last].run(arrays, min(threads, _core.MAX_THREADS))
        tensors = [_result(output, results, arguments) for output in compiled.outputs]
        return tensors[0] if self._single else tuple(tensors)

    def plans(self) -> list[str]:
        """The sizes that plans are there for, as text."""
        return [" + ".join("x".join(map(str, shape)) for shape in key[0] if shape) for key in list(self._plans)]

    def _given(self, arguments: tuple[Any, ...]) -> list[Tensor]:
        """The activations; a residual may be None."""
        return [arguments[i] for i in self._activations if arguments[i] is not None]

    # --- Which plan

    def _compiled(self, arguments: tuple[Any, ...]) -> _Compiled:
        """The plan for these arguments. Unsupported where torch must run them.

        Threads may make the same plan at once: a lock would stay locked in the child of a fork.
        """
        key = self._key(arguments)
        compiled = self._plans.get(key)
        if compiled is None:
            if (rejected := self._rejected.get(key)) is not None:
                raise Unsupported(rejected)
            if len(self._plans) >= MAX_PLANS and key not in self._sighted:
                remember(self._sighted, key, True, MAX_SIGHTINGS)
                raise Unsupported(f"sizes that came once, after {MAX_PLANS} others")
            try:
                compiled = self._compile(arguments)
            except Unsupported as reason:
                remember(self._rejected, key, str(reason), MAX_SIGHTINGS)
                raise
            remember(self._plans, key, compiled, MAX_PLANS)
        elif len(self._plans) > 1:
            with suppress(KeyError):  # another thread has just forgotten it
                self._plans.move_to_end(key)
        return compiled

    def _key(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a plan depends on. Unsupported where there can be none."""
        inputs = self._given(arguments)
        weights = [arguments[i] for i in self._weights]
        other = next((x for x in inputs if not isinstance(x, torch.Tensor)), None)
        if other is not None:
            raise Unsupported(f"an input is a {type(other).__name__}")
        if self._own.hooked():
            self._forget()
            raise Unsupported("a module has hooks")
        if torch.is_autocast_enabled("cpu"):
            raise Unsupported("autocast")
        if forward_ad._current_level >= 0:
            raise Unsupported("derivatives in forward mode")
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise Unsupported("a transform of torch.func")
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            raise Unsupported("the call is traced")
        if torch._C._len_torch_dispatch_stack():  # such as make_fx, which would take the results for constants
            raise Unsupported("a mode watches the operators of torch")
        own, own_statistics, own_identities = self._own.tensors()
        if torch.is_grad_enabled():
            watched = inputs if self.frozen else [*inputs, *weights, *own]
            if any(tensor.requires_grad for tensor in watched):
                raise Unsupported("gradients are recorded: use torch.no_grad() or torch.inference_mode()")
        for x in inputs:
            if x.dtype != torch.float32 or not x.is_cpu or x.layout != torch.strided:
                raise Unsupported(f"an input is {x.layout} of {x.dtype} on {x.device}")
            if type(x) not in PLAIN:
                raise Unsupported(f"an input is a {type(x).__name__}")
        names = [self._nodes[i].name for i in self._activations if arguments[i] is not None]
        for name, x in zip(names, inputs, strict=True):
            if x.dim() not in (2, 4):
                raise Unsupported(f"input {name} has {x.dim()} dimensions")
            if x.numel() == 0:
                raise Unsupported(f"input {name} is empty")
            if len(x) != len(inputs[0]):
                raise Unsupported(f"input {name} is {tuple(x.shape)}, {names[0]} of batch {len(inputs[0])}")
        try:
            versions = tuple((id(w), w.data_ptr(), w._version) for w in weights)
            changes = sum(map(_version, own))
        except RuntimeError as error:
            if not any(tensor.is_inference() for tensor in (*weights, *own)):
                raise
            raise Unsupported("weights made in inference mode do not count changes") from error
        shapes = tuple(None if arguments[i] is None else tuple(arguments[i].shape[1:]) for i in self._activations)
        scalars = tuple(arguments[i] for i in self._scalars)
        identities = versions, own_identities, changes  # set_ gives a tensor other memory, and counts as a change
        statistics = [*own_statistics, *(arguments[i] for i in self._gathered)]
        return shapes, identities, fused_steps(), self._statistics.changes(identities, statistics), scalars

    def _compile(self, arguments: tuple[Any, ...]) -> _Compiled:
        given = dict(zip(self._nodes, arguments, strict=True))
        modules = dict(self.eager.named_modules())

        def tensor(weight: Any) -> Tensor:
            if not isinstance(weight, Node):
                return weight
            return given[weight] if weight in given else _attribute(modules, weight.target)

        builder = Builder(tensor)
        for i in self._activations:
            if arguments[i] is None:
                continue
            shape = tuple(arguments[i].shape[1:])
            c, h, w = shape if len(shape) == 3 else (shape[0], 1, 1)
            builder.input(self._nodes[i], (h, w, c), flat=len(shape) == 1)
        for node, made in self._parse(given.__getitem__).items():
            missing = [x for x in made.inputs if x not in builder.values]
            if missing and (not isinstance(made, Separable) or made.inputs[0] in missing):
                raise Unsupported(f"{missing[0].name} is None")
            values = [builder.values[x] for x in made.inputs if x in builder.values]
            builder.values[node] = made.lower(node, builder, *values)
        names: list[str] = []
        images: list[tuple[int, tuple[int, ...]]] = []
        outputs = tuple(self._output(builder.values[node], names, images) for node in self._results)
        try:
            plan = _core.Plan(compile_graph(builder.layers, names))
        except ValueError as error:
            raise Unsupported(str(error)) from error
        contiguous, last = (_core.ChannelsFirst(plan, [(*image, lent) for image in images]) for lent in (False, True))
        return _Compiled(
            (contiguous, last), outputs, (*(arguments[i] for i in self._weights), *self._own.tensors().all)
        )

    def _output(self, value: Value, names: list[str], images: list[tuple[int, tuple[int, ...]]]) -> _Output:
        """``value`` as a result, noted in ``names`` and ``images``, the plan's outputs and the results they become."""
        for i in self._activations:
            if self._nodes[i].name == value.layer:
                return _Output(-1, i, value.flat)
        if value.layer not in names:
            names.append(value.layer)
        h, w, c = value.shape
        images.append((names.index(value.layer), (c,) if value.flat and h * w == 1 else (c, h, w)))
        return _Output(len(images) - 1, -1, value.flat)

    def _parse(self, scalar: Callable[[Node], Any]) -> dict[Node, Operator]:
        modules = dict(self.eager.named_modules())
        inner = [node for node in self.eager.graph.nodes if node.op in ("call_module", "call_function", "call_method")]
        return {node: parse(node, modules, scalar, region=True) for node in inner}

    def _forget(self) -> None:
        self._statistics = Statistics()
        self._plans: OrderedDict[tuple[Any, ...], _Compiled] = OrderedDict()
        self._rejected: OrderedDict[tuple[Any, ...], str] = OrderedDict()
        self._sighted: OrderedDict[tuple[Any, ...], bool] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy makes its own plans."""
        return _region, (self.eager, self.frozen, self.threads)


def _region(eager: GraphModule, frozen: bool, threads: int | None) -> Region:
    modules = dict(eager.named_modules())
    # Unpickling traced the functions that are there for idioms.
    rewrite(eager, lambda node: parse(node, modules, example, region=True))
    return Region(eager, frozen=frozen, threads=threads)


def example(node: Node) -> Any:
    """What dynamo noted that a node with a scalar gives; Unsupported where that is not known."""
    value = node.meta.get("example_value")
    known = getattr(getattr(value, "node", None), "hint", None) if value is not None else None
    if isinstance(value, bool | int | float):
        return value
    if known is None:
        raise Unsupported("its arguments are computed")
    return known


def _attribute(modules: dict[str, Any], target: str) -> Tensor:
    path, _, name = target.rpartition(".")
    return getattr(modules[path], name)


def _result(output: _Output, results: list[Any], arguments: tuple[Any, ...]) -> Tensor:
    if output.index < 0:
        given = arguments[output.argument]
        return given.flatten(1) if output.flat else given.reshape(*given.shape, *(1,) * (4 - given.dim()))
    result = torch.from_numpy(results[output.index])
    return result.flatten(1) if output.flat and result.dim() > 2 else result
