"""The graph of a module, where a trace can be trusted to be what its forward does at every call."""

from __future__ import annotations

import inspect
import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node, Proxy
from torch.fx.proxy import TraceError
from torch.nn import Module
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from sepconv.torch.parse import MODULES
from sepconv.torch.partition import has_effects
from sepconv.torch.watched import hooked, patched

MAX_TRACES = 64
_GIVEN = object()  # of an argument: a tensor, of which nothing is known
_FRESH = ("add", "sub", "mul", "truediv", "matmul", "neg", "conv2d", "linear")  # whose results share no memory


def trace(root: Module, kept: type[Module]) -> Graph:
    """The graph of a module; modules of type ``kept``, and those that hooks watch, are nodes of it.

    Where forward may do other than the graph, TraceError, or whatever forward raises when it is called with proxies.
    A trace does not see tests for None. So with every choice of arguments being None forward must compute the same, or
    fail for the lack of them; and so whether gradients are recorded or not. ``root`` stays as it was.
    """
    if hooked(root):
        raise TraceError("it has hooks")
    if "forward" in vars(root):
        raise TraceError("it has a forward of its own")
    before = _state(root)
    try:
        graph = _Tracer(root, kept).graph({})
        _check_arguments(graph)
        _check_writes(root, graph)
        with torch.set_grad_enabled(not torch.is_grad_enabled()):
            if _computed(_Tracer(root, kept).graph({}), {}) != _computed(graph, {}):
                raise TraceError("it asks whether gradients are recorded")
        for choice in _choices(root.forward):
            try:
                other = _Tracer(root, kept).graph(choice)
            except (AttributeError, TypeError) as error:
                if "NoneType" in str(error) and "Proxy" not in str(error):
                    continue  # it wants them given, as the graph does
                raise
            if _computed(other, choice) != _computed(graph, choice):
                raise TraceError(f"it asks whether {', '.join(choice)} is given, which a trace does not know")
        if any(not _same(old, new) for old, new in zip(before, _state(root), strict=True)):
            raise TraceError("it changes its attributes")
        return graph
    finally:
        for old, new in zip(before, _stores(root), strict=False):
            if not _same(old, new):
                new.clear()
                new.update(old)


class _Value(Proxy):
    """What nobody but torch may ask for its class: a trace would decide once and for all what depends on it."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        if not sys._getframe(1).f_globals.get("__name__", "").startswith("torch."):
            raise TraceError("it asks whether something is a tensor")
        return type(self)


class _NoConstants(TorchFunctionMode):
    """Refuses what is computed of no argument: a trace would compute it once, be it random or changed later."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = pytree.tree_leaves((args, kwargs))
        if any(issubclass(type(value), Proxy) for value in given) or (args and args[0] is None):
            return func(*args, **(kwargs or {}))
        raise TraceError(f"it calls {getattr(func, '__name__', func)}, which reads no argument")


class _Tracer(torch.fx.Tracer):
    """Goes into containers, but into none that hooks watch, nor into what was optimized before."""

    proxy_buffer_attributes = True

    def __init__(self, module: Module, kept: type[Module]) -> None:
        super().__init__()
        self._module = module
        self._kept = kept
        self._modes = _modes()

    def graph(self, choice: dict[str, Any]) -> Graph:
        with _NoConstants():
            return self.trace(self._module, concrete_args=choice or None)

    def is_leaf_module(self, m: Module, module_qualified_name: str) -> bool:
        watched = hooked(m) or patched(m) is not None or isinstance(m, self._kept)
        return watched or bool(super().is_leaf_module(m, module_qualified_name))

    def call_module(self, m: Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and args[0] is None and type(m) in MODULES and type(m) is not torch.nn.Identity and not hooked(m):
            raise TypeError(f"{type(m).__name__} got a NoneType")  # as a call would
        return super().call_module(m, forward, args, kwargs)

    def proxy(self, node: Node) -> Proxy:
        return _Value(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> Node:
        if _modes() != self._modes:
            raise TraceError("it switches autocast or the recording of gradients")
        return super().create_node(*args, **kwargs)


def _modes() -> tuple[Any, ...]:
    autocast = tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda"))
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast


def _choices(forward: Callable[..., Any]) -> list[dict[str, Any]]:
    """Which arguments may have which values that a trace does not tell from tensors."""
    values: dict[str, list[Any]] = {}
    for name, parameter in inspect.signature(forward).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        values[name] = [_GIVEN, None]
        if isinstance(default, bool | str):
            values[name] += [True, False] if isinstance(default, bool) else [default]
    if math.prod(map(len, values.values())) > MAX_TRACES:
        raise TraceError("it has more arguments than are tried one by one")
    given = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    chosen = [{name: value for name, value in each.items() if value is not _GIVEN} for each in given]
    return [choice for choice in chosen if choice]


def _check_arguments(graph: Graph) -> None:
    """TraceError where an argument is more than a tensor: what it holds may be None."""
    for node in graph.find_nodes(op="placeholder"):
        if node.target.startswith("*") and node.users:
            raise TraceError(f"it reads {node.target}")
        for user in node.users:
            held = user.args[1] if len(user.args) > 1 else None
            name = user.target if user.op == "call_method" else held if user.target is getattr else None
            taken = getattr(user.target, "__name__", "") == "getitem" and isinstance(held, int | str)
            if taken or (isinstance(name, str) and not hasattr(torch.Tensor, name)):
                raise TraceError(f"{node.target} is more than a tensor")


def _check_writes(root: Module, graph: Graph) -> None:
    """TraceError where a tensor of the module's own may be changed."""
    for node in graph.nodes:
        if node.op == "call_module":
            writes = bool(getattr(root.get_submodule(node.target), "inplace", False))
        else:
            writes = node.op in ("call_function", "call_method") and has_effects(node, root)
        for read in node.all_input_nodes if writes else ():
            while read.op in ("call_function", "call_method") and read.all_input_nodes:
                if getattr(read.target, "__name__", read.target) in _FRESH:
                    break
                read = read.all_input_nodes[0]
            if read.op == "get_attr":
                raise TraceError(f"it changes {read.target}")


def _computed(graph: Graph, choice: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """What the nodes do and with what, arguments as chosen; but for what a trace itself says of them."""
    names: dict[Node, Any] = {}
    computed: list[tuple[str, Any, str]] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            names[node] = choice.get(node.target, f"argument {node.target}")
        elif getattr(node.target, "__name__", "") in ("_assert", "_assert_is_none", "eq"):
            names[node] = None
        else:
            names[node] = f"value {len(computed)}"
            arguments = torch.fx.map_arg((node.args, node.kwargs), names.__getitem__)
            computed.append((node.op, node.target, repr(arguments)))
    return computed


# --- What a module holds


def _stores(root: Module) -> list[dict[str, Any]]:
    return [store for part in root.modules() for store in (vars(part), part._parameters, part._buffers, part._modules)]


def _state(root: Module) -> list[dict[str, Any]]:
    return [dict(store) for store in _stores(root)]


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return old.keys() == new.keys() and all(value is new[name] for name, value in old.items())
