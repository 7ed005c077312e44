"""``optimize``: the parts of a module that sepconv can run, replaced by plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.nn import Module

from sepconv.threads import thread_count
from sepconv.torch.parse import MODULES
from sepconv.torch.partition import Cut, Left, partition
from sepconv.torch.region import Region, example
from sepconv.torch.tracing import trace
from sepconv.torch.watched import hooked


@dataclass(frozen=True)
class Replaced:
    """A part that sepconv runs: where it is, how many of which operators it holds, and what runs it."""

    name: str
    operators: dict[str, int]
    region: Region


@dataclass(frozen=True)
class Report:
    """What :func:`optimize` replaced and what it left with torch; ``print`` shows it, after the calls so far.

    Regions that had calls, and torch ran them all, do not count as run by sepconv.

    replaced: the regions; ``region.eager_runs`` of each counts calls that torch had to run, by the reason.
    left: the operators that torch runs.
    untraced: parts of the module that could not be traced, by name, with the reason; their children were treated alone.
    """

    replaced: tuple[Replaced, ...]
    left: tuple[Left, ...]
    untraced: dict[str, str]

    def __str__(self) -> str:
        total = sum(sum(part.operators.values()) for part in self.replaced) + len(self.left)
        planned = [part for part in self.replaced if part.region.plans() or not part.region.eager_runs]
        count = sum(sum(part.operators.values()) for part in planned)
        regions = f"{len(self.replaced)} region{'' if len(self.replaced) == 1 else 's'}"
        lines = [f"sepconv runs {count} of {total} operators, in {regions}"]
        for part in self.replaced:
            operators = ", ".join(f"{n} {name}" for name, n in sorted(part.operators.items(), key=lambda x: -x[1]))
            lines.append(f"  {part.name}: {operators}")
            lines += [f"    plan for {size}" for size in part.region.plans()]
            lines += [f"    run by torch {n} times: {reason}" for reason, n in part.region.eager_runs.items()]
        lines += [f"  left: {left.name} ({left.operator}): {left.reason}" for left in self.left]
        lines += [f"  not traced: {name or 'the module'}: {reason}" for name, reason in self.untraced.items()]
        return "\n".join(lines)

    __repr__ = __str__


class Optimized(Module):
    """What :func:`optimize` returns: call it as the module it was made of. ``report`` says what was replaced."""

    def __init__(self, module: Module, report: Report) -> None:
        super().__init__()
        self.module = module
        self.report = report
        self.training = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As of the module that was optimized."""
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> Optimized:
        """Changes nothing: it stays in eval mode."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _optimized, (self.module, self.report.left, self.report.untraced, self._operators())

    def _operators(self) -> dict[str, dict[str, int]]:
        return {part.name: part.operators for part in self.report.replaced}


def _optimized(
    module: Module, left: tuple[Left, ...], untraced: dict[str, str], operators: dict[str, dict[str, int]]
) -> Optimized:
    for part in module.modules():
        if isinstance(cut := vars(part).get("forward"), GraphModule):
            _share(cut, part, cut.graph)
    replaced = [Replaced(name, counts, _region(module, name)) for name, counts in operators.items()]
    return Optimized(module, Report(tuple(replaced), left, untraced))


def _region(module: Module, name: str) -> Region:
    path, _, part = name.rpartition(".")
    region: Region = getattr(module.get_submodule(path).forward, part)
    return region


def optimize(module: Module, *, threads: int | None = None) -> Optimized:
    """A module that gives what ``module`` gives in eval mode, its convolutions and what lies between them as plans.

    BatchNorm is folded into the convolutions, activations and residual additions become part of them. Inputs may have
    any batch and size, be channels_last or not; results have the memory format of the first input. Weights are shared
    with ``module``: changed in place (``load_state_dict``, an optimizer's step), they are packed anew at the next call.
    Torch runs those made in ``torch.inference_mode()``, which do not count changes. Gradients flow to inputs that ask
    for them (torch runs the call then), never to weights.

    Args:
        module: in eval mode; not changed. Where ``torch.fx`` cannot trace it, its children are treated one by one.
        threads: for the plans; None for ``torch.get_num_threads()`` at each call.

    Returns:
        The module, whose ``report`` says what was replaced, what was left, and why.

    Raises:
        TypeError: it is not an ``nn.Module``.
        ValueError: it, or a part of it, is in training mode; ``threads`` is below 1 or above 1024.
    """
    if not isinstance(module, Module):
        raise TypeError(f"module was a {type(module).__name__}, must be a torch.nn.Module")
    if threads is not None:
        threads = thread_count(threads)
    for name, part in module.named_modules():
        if part.training:
            raise ValueError(f"{name or 'module'} was in training mode, must be in eval mode: call module.eval()")
    replaced: list[Replaced] = []
    left: list[Left] = []
    untraced: dict[str, str] = {}
    result = _optimize(_twin(module, {}), "", threads, replaced, left, untraced)
    return Optimized(result, Report(tuple(replaced), tuple(left), untraced))


def optimize_graph(
    graph_module: GraphModule, constant: Callable[[Node], bool], *, frozen: bool, threads: int | None
) -> Cut:
    """Cuts a traced module and replaces the regions in it. See :func:`~sepconv.torch.partition.partition`."""
    cut = partition(graph_module, example, constant)
    for name in cut.regions:
        setattr(cut.module, name, Region(getattr(cut.module, name), frozen=frozen, threads=threads))
    return cut


def _twin(module: Module, twins: dict[Module, Module]) -> Module:
    """The module in eval mode for good: its parts have their own flags and children, and share all else with it."""
    if isinstance(module, Optimized | torch.jit.ScriptModule):
        return module
    if module not in twins:
        twins[module] = _shallow(module)
        vars(twins[module])["training"] = False
        children = twins[module]._modules
        children.update({name: _twin(child, twins) for name, child in children.items() if child is not None})
    return twins[module]


def _shallow(module: Module) -> Module:
    """A copy with its own attributes and children's names; tensors, and the names of them, are the module's own."""
    clone: Module = object.__new__(type(module))
    vars(clone).update(vars(module), _modules=dict(module._modules))
    return clone


def _share(module: Module, root: Module, graph: Graph) -> None:
    """Tensors that a graph names become those of ``root``, parameters and buffers also once they are replaced there."""
    for node in graph.find_nodes(op="get_attr"):
        path, _, name = node.target.rpartition(".")
        source, owner = root.get_submodule(path), module.get_submodule(path)
        for kind in ("_parameters", "_buffers"):
            if name in vars(source)[kind]:
                vars(owner)[kind] = vars(source)[kind]
        if name in vars(source):
            vars(owner)[name] = vars(source)[name]


def _optimize(
    module: Module,
    path: str,
    threads: int | None,
    replaced: list[Replaced],
    left: list[Left],
    untraced: dict[str, str],
) -> Module:
    if isinstance(module, Optimized):
        left.append(Left(path or "module", "Optimized", "it was optimized before"))
        return module
    try:
        root = torch.nn.Sequential(module).eval() if type(module) in MODULES and not hooked(module) else module
        graph = trace(root, Optimized)
        traced = GraphModule(root, graph, type(module).__name__)
    except Exception as error:  # whatever a forward raises when it is called with proxies
        untraced[path] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        clone = _shallow(module)
        for name, child in module._modules.items():
            if child is not None and not hooked(child):
                inner = f"{path}.{name}" if path else name
                clone._modules[name] = _optimize(child, inner, threads, replaced, left, untraced)
        return clone
    for node in traced.graph.nodes:
        node.type = None  # annotations that are text could not be pickled
    prefix = f"{path}." if path else ""
    cut = optimize_graph(traced, lambda node: node.op == "get_attr", frozen=True, threads=threads)
    left += [Left(prefix + entry.name, entry.operator, entry.reason) for entry in cut.left]
    replaced += [
        Replaced(prefix + name, dict(counts), getattr(cut.module, name)) for name, counts in cut.regions.items()
    ]
    if not cut.regions:
        return module
    _share(cut.module, root, cut.module.graph)
    result = _shallow(module)  # whose weights and children others may read
    vars(result)["forward"] = cut.module.eval()
    return result
