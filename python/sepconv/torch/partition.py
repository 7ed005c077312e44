"""Cuts an fx graph into regions that sepconv runs and the rest, which stays with torch."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule, Node
from torch.fx.passes.split_module import split_module

from sepconv.torch.operators import Operator, Unsupported
from sepconv.torch.parse import parse
from sepconv.torch.rewrite import for_assertions, rewrite

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
    rewrite(module, lambda node: parse(node, modules, scalar))
    assertions = for_assertions(module.graph)
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
            if node in assertions and made.inputs[0] not in found:
                raise Unsupported("it is for torch to check")
            found[node] = made
        except Unsupported as reason:
            reasons[node] = str(reason)
    for node in _changed_aliases(module, found):
        del found[node]
        reasons[node] = "it may share memory with what is changed in place"
    phases = _phases(module, found)
    heavy = {phases[node] for node, made in found.items() if made.heavy}
    for node in [node for node in found if phases[node] not in heavy]:
        del found[node]
        reasons[node] = "the operators around it that sepconv could run hold no convolution"
    left = tuple(
        Left(node.name, describe(node, modules), reason) for node, reason in reasons.items() if node not in assertions
    )
    if not found:
        return Cut(module, {}, left)
    # Regions that lost their nodes join what surrounds them.
    phases = _phases(module, found)
    counts: dict[str, Counter[str]] = {}
    for node in found:
        if node not in assertions:
            counts.setdefault(f"submod_{phases[node]}", Counter())[describe(node, modules)] += 1
    split = split_module(module, module, lambda node: phases[node])
    _put_in_order(split)
    return Cut(split, counts, left)


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
        if not supported and has_effects(node, module):
            phase = max(phase, latest + latest % 2)
            floor = phase
        phases[node] = phase
        latest = max(latest, phase)
    return phases


def _changed_aliases(module: GraphModule, found: dict[Node, Operator]) -> set[Node]:
    """The operators of ``found`` whose result may be the memory of something that a node of torch's changes."""
    aliases: set[Node] = set()
    seen: set[Node] = set()
    writers = (node for node in module.graph.nodes if node not in found and has_effects(node, module))
    waiting = [read for writer in writers for read in writer.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in found and found[node].alias:
            aliases.add(node)
            waiting += found[node].inputs
        elif node not in found and node.op in ("call_function", "call_method"):
            waiting += node.all_input_nodes  # a view of torch's own, perhaps
        waiting += [user for user in node.users if user in found and found[user].alias]
    return aliases


def has_effects(node: Node, module: GraphModule) -> bool:
    """Whether a node may do more than return its result."""
    if node.kwargs.get("out") is not None:
        return True
    if node.op == "call_module":
        return getattr(module.get_submodule(node.target), "inplace", True) is not False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        return True
    plain = name.removeprefix("__").removesuffix("__")
    if (node.op == "call_function" or plain != name) and hasattr(operator, f"__{plain}__"):
        return plain in ("setitem", "delitem") or (plain.startswith("i") and hasattr(operator, plain[1:]))
    return not node.all_input_nodes or any(value is True for value in (*node.args, *node.kwargs.values()))


def _put_in_order(split: GraphModule) -> None:
    """Calls the parts in the order of their phases. split_module only sees to it that values are there when they are
    read: a part that changes what it reads, and gives nothing that is read, it may put anywhere."""
    (output,) = (node for node in split.graph.nodes if node.op == "output")
    parts = [node for node in split.graph.nodes if node.op == "call_module"]
    for part in sorted(parts, key=lambda node: int(node.target.removeprefix("submod_"))):
        output.prepend(part)
        for result in [user for user in part.users if user.target is operator.getitem]:
            output.prepend(result)
    split.recompile()


def describe(node: Node, modules: dict[str, Any]) -> str:
    """What a node is, for people: Conv2d, conv2d, mean."""
    if node.op == "call_module":
        return type(modules[node.target]).__name__
    if isinstance(node.target, str):
        return node.target
    name = getattr(node.target, "__name__", str(node.target))
    return name if name != "fn" else node.name.rstrip("_0123456789")
