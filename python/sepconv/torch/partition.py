"""Cuts an fx graph into regions that sepconv runs and the rest, which stays with torch."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.passes.split_module import split_module

from sepconv.torch.operators import Operator, Unsupported
from sepconv.torch.parse import parse

MODE_SWITCHES = ("_enter_autocast", "_exit_autocast", "_set_grad_enabled", "set_grad_enabled")


@dataclass(frozen=True)
class Left:
    """A node that stays with torch, and why."""

    name: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Cut:
    """A graph module whose submodules ``regions`` sepconv can run; ``counts`` says of which operators each consists."""

    module: GraphModule
    regions: dict[str, Counter[str]]
    left: tuple[Left, ...]


def partition(module: GraphModule, scalar: Callable[[Node], Any], constant: Callable[[Node], bool]) -> Cut:
    """Cuts ``module`` into as few regions as the order of its nodes allows.

    Args:
        module: rewritten where that makes its nodes clearer.
        scalar: an example of what a node that computes a scalar gives; Unsupported where there is none.
        constant: whether a node that is read as weights gives the same at every call.
    """
    modules = dict(module.named_modules())
    _rewrite_flatten(module, lambda node: parse(node, modules, scalar))
    found: dict[Node, Operator] = {}
    reasons: dict[Node, str] = {}
    switches = any(getattr(node.target, "__name__", "") in MODE_SWITCHES for node in module.graph.nodes)
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output", "get_attr"):
            continue
        try:
            if switches:
                raise Unsupported("autocast or the recording of gradients is switched among these operators")
            made = parse(node, modules, scalar)
            for weight in made.weights:
                if isinstance(weight, Node) and not constant(weight):
                    raise Unsupported("its weights are computed anew at each call")
            found[node] = made
        except Unsupported as reason:
            reasons[node] = str(reason)
    phases = _phases(module, found)
    heavy = {phases[node] for node, made in found.items() if made.heavy}
    for node in [node for node in found if phases[node] not in heavy]:
        del found[node]
        reasons[node] = "the operators around it that sepconv could run hold no convolution"
    left = tuple(Left(node.name, describe(node, modules), reason) for node, reason in reasons.items())
    if not found:
        return Cut(module, {}, left)
    # Regions that lost their nodes join what surrounds them.
    phases = _phases(module, found)
    counts: dict[str, Counter[str]] = {}
    for node in found:
        counts.setdefault(f"submod_{phases[node]}", Counter())[describe(node, modules)] += 1
    return Cut(split_module(module, module, lambda node: phases[node]), counts, left)


def _phases(module: GraphModule, found: dict[Node, Operator]) -> dict[Node, int]:
    """Which part of the module each node belongs to, in order of execution: odd numbers are regions.

    A node comes as early as what it reads allows. No node passes one that may change memory, or the state of torch.
    """
    phases: dict[Node, int] = {}
    floor = latest = 0
    for node in module.graph.nodes:
        if node.op in ("placeholder", "output", "get_attr"):
            continue
        supported = node in found
        phase = max([floor, *(phases.get(read, 0) for read in node.all_input_nodes)])
        phase += (phase % 2 == 1) != supported
        if not supported and _has_effects(node, module):
            phase = max(phase, latest + latest % 2)
            floor = phase
        phases[node] = phase
        latest = max(latest, phase)
    return phases


def _has_effects(node: Node, module: GraphModule) -> bool:
    """Whether a node may do more than return its result."""
    if node.op == "call_module":
        return getattr(module.get_submodule(node.target), "inplace", True) is not False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        return True
    if node.op == "call_function" and (node.target is operator.setitem or hasattr(operator, f"__{name}__")):
        return name == "setitem" or (name.startswith("i") and hasattr(operator, name[1:]))
    return not node.all_input_nodes or any(value is True for value in (*node.args, *node.kwargs.values()))


def _rewrite_flatten(module: GraphModule, parsed: Callable[[Node], Operator]) -> None:
    """``x.view(x.size(0), -1)`` and ``x.reshape(n, -1)``, where n is known to be x's batch, become flatten(x, 1)."""
    for node in list(module.graph.nodes):
        if node.op != "call_method" or node.target not in ("view", "reshape") or node.kwargs:
            continue
        x, *sizes = node.args
        if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
            sizes = list(sizes[0])
        if len(sizes) != 2 or sizes[1] != -1:
            continue
        if _same_batch(_sized(sizes[0]), x, parsed) or _keeps_batch(x, node):
            with module.graph.inserting_before(node):
                flat = module.graph.call_function(torch.flatten, (x, 1))
            flat.meta = dict(node.meta)
            node.replace_all_uses_with(flat)
            _erase(node, module)
    module.recompile()


def _erase(node: Node, module: GraphModule) -> None:
    """Erases a node without readers, and what only it read of sizes; fx's own sweep takes methods in place for pure."""
    reads = [read for read in node.all_input_nodes if _sized(read) is not None or _is_shape(read)]
    module.graph.erase_node(node)
    for read in reads:
        if not read.users:
            _erase(read, module)


def _sized(size: Any) -> Node | None:
    """The tensor whose size(0) this is."""
    if not isinstance(size, Node):
        return None
    if size.op == "call_method" and size.target == "size" and not size.kwargs and size.args[1:] == (0,):
        return size.args[0]
    if size.op == "call_function" and size.target is operator.getitem and size.args[1] == 0:
        shape = size.args[0]
        if _is_shape(shape):
            return shape.args[0]
    return None


def _is_shape(node: Node) -> bool:
    """Whether this is x.shape or x.size()."""
    if node.op == "call_function":
        return node.target is getattr and node.args[1] == "shape"
    return node.op == "call_method" and node.target == "size" and len(node.args) == 1 and not node.kwargs


def _same_batch(sized: Node | None, x: Node, parsed: Callable[[Node], Operator]) -> bool:
    """Whether x was made of ``sized`` by operators of ours, which all keep the batch."""
    try:
        while sized is not None and x is not sized:
            x = parsed(x).inputs[0]
    except Unsupported:
        return False
    return sized is not None


def _keeps_batch(x: Node, node: Node) -> bool:
    """Whether dynamo, which guards shapes, says that a view has the first dimension of what it views."""
    before, after = x.meta.get("example_value"), node.meta.get("example_value")
    if before is None or after is None or before.dim() < 2 or after.dim() != 2:
        return False
    return str(before.shape[0]) == str(after.shape[0])


def describe(node: Node, modules: dict[str, Any]) -> str:
    """What a node is, for people: Conv2d, conv2d, mean."""
    if node.op == "call_module":
        return type(modules[node.target]).__name__
    if isinstance(node.target, str):
        return node.target
    name = getattr(node.target, "__name__", str(node.target))
    return name if name != "fn" else node.name.rstrip("_0123456789")
