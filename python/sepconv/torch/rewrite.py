"""What takes several nodes of a graph to say, as one: flattening by sizes, a part of a split, a shuffle of channels,
an assertion.

Each of the functions below does what the nodes did that it replaces, for tensors of any rank.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node, Proxy

from sepconv.torch.operators import Operator, Unsupported

Tensor = Any  # torch.Tensor, which has no types here
Parsed = Callable[[Node], Operator]
MAX_CONSTANT = 16  # nodes that a constant is made of


def chunk_part(x: Tensor, chunks: int, dim: int, index: int) -> Tensor:
    return x.chunk(chunks, dim)[index]


def split_part(x: Tensor, sizes: int | Sequence[int], dim: int, index: int) -> Tensor:
    return x.split(sizes, dim)[index]


def shuffled(x: Tensor, groups: int) -> Tensor:
    """[n, c, h, w] with its channels as a matrix of ``groups`` rows, transposed."""
    n, height, width = x.size(0), x.size(2), x.size(3)
    return x.reshape(n, groups, -1, height, width).transpose(1, 2).reshape(n, -1, height, width)


def as_pixel(x: Tensor) -> Tensor:
    """[n, c] as [n, c, 1, 1]."""
    return x.reshape(x.size(0), -1, 1, 1)


def scaled(x: Tensor, weight: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """x * weight, which is [c, 1, 1] or [1, c, 1, 1], or viewed so."""
    if isinstance(x, Proxy):  # unpickling traces graphs again
        return x.tracer.create_proxy("call_function", scaled, (x, weight, shape), {})
    return x * (weight if shape is None else weight.reshape(shape))


def shifted(x: Tensor, weight: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """x + weight, as in scaled."""
    if isinstance(x, Proxy):
        return x.tracer.create_proxy("call_function", shifted, (x, weight, shape), {})
    return x + (weight if shape is None else weight.reshape(shape))


def check_rank(x: Tensor, rank: int, message: str) -> None:
    torch._assert(x.dim() == rank, message)


def rewrite(module: GraphModule, parsed: Parsed) -> None:
    """Rewrites what it finds of these. ``parsed`` gives a node's operator, or raises Unsupported."""
    for node in list(module.graph.nodes):
        if node.users or node.op == "output":  # not one that was erased
            for attempt in (_rewrite_parts, _rewrite_expand, _rewrite_channels, _rewrite_shuffle):
                if attempt(node, module):
                    break
            else:
                _rewrite_view(node, module, parsed)
    for node in module.graph.find_nodes(op="call_function", target=torch._assert):
        _rewrite_assertion(node, module)
    for node in reversed(list(module.graph.nodes)):
        if not node.users and is_size(node):  # of sizes unpacked, those not read
            module.graph.erase_node(node)
    module.recompile()


def _replace(node: Node, module: GraphModule, function: Callable[..., Any], *arguments: Any) -> bool:
    with module.graph.inserting_before(node):
        new = module.graph.call_function(function, arguments)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    _erase(node, module)
    return True


def _erase(node: Node, module: GraphModule) -> None:
    """Erases a node without readers, and what only it read of sizes and views; fx's own sweep takes methods in place
    for pure."""
    waiting, erased = [node], set()
    while waiting:
        node = waiting.pop()
        if node.users or node in erased:
            continue
        waiting += [read for read in node.all_input_nodes if is_size(read) or _called(read) in _VIEWS]
        module.graph.erase_node(node)
        erased.add(node)


_VIEWS = ("view", "reshape", "transpose", "permute", "contiguous")


def _called(node: Any) -> str:
    """The method or function that a node calls."""
    if not isinstance(node, Node) or node.op not in ("call_method", "call_function"):
        return ""
    return node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", ""))


# --- Parts


def _rewrite_parts(node: Node, module: GraphModule) -> bool:
    """``x.chunk(n, 1)`` and ``x.split(sizes, 1)`` that are read part by part: each part becomes one node."""
    name = _called(node)
    if name not in ("chunk", "split") or (node.op == "call_function" and node.target not in (torch.chunk, torch.split)):
        return False
    given: dict[Any, Any] = dict(zip(_PARTS.values(), node.args, strict=False))
    given.update({_PARTS.get(key): value for key, value in node.kwargs.items()})
    indices = [user.args[1] for user in node.users if user.target is operator.getitem]
    if len(indices) != len(node.users) or not all(isinstance(index, int) for index in indices):
        return False
    if not {"tensor", "sizes"} <= set(given) <= {"tensor", "sizes", "dim"}:
        return False
    function = chunk_part if name == "chunk" else split_part
    for user in list(node.users):
        _replace(user, module, function, given["tensor"], given["sizes"], given.get("dim", 0), user.args[1])
    module.graph.erase_node(node)
    return True


_PARTS = {
    "input": "tensor",
    "chunks": "sizes",
    "dim": "dim",
    "tensor": "tensor",
    "split_size": "sizes",
    "split_size_or_sections": "sizes",
}  # names of arguments, the first three in order


# --- Factors


def _rewrite_expand(node: Node, module: GraphModule) -> bool:
    """``x * y.expand_as(x)`` is ``x * y``."""
    if _called(node) != "mul" or node.kwargs or len(node.args) != 2:
        return False
    for expanded, other in (node.args, node.args[::-1]):
        if _called(expanded) == "expand_as" and isinstance(expanded, Node) and expanded.args[1:] == (other,):
            node.replace_input_with(expanded, expanded.args[0])
            if not expanded.users:
                module.graph.erase_node(expanded)
            return True
    return False


def _rewrite_channels(node: Node, module: GraphModule) -> bool:
    """``x * gamma`` and ``x + beta`` of a parameter, or a view of one, that has a number for each channel."""
    function = _CHANNELS.get(node.target) if _called(node) else None
    if function is None or node.kwargs or len(node.args) != 2:
        return False
    for x, other in (node.args, node.args[::-1]):
        viewed = _viewed(other)
        sizes = tuple(_view_sizes(other)) if isinstance(viewed, Node) else _constant_shape(other, module)
        fits = len(sizes) in (3, 4) and sizes[:-3] in ((), (1,)) and sizes[-2:] == (1, 1)
        if viewed is not None:
            fits = fits and sizes[-3] == -1 and bool(_constant_shape(viewed, module))
        if fits and isinstance(x, Node) and not same_for_all(x):
            return _replace(node, module, function, x, other if viewed is None else viewed, viewed and sizes)
    return False


_CHANNELS = {
    **dict.fromkeys(("mul", operator.mul, torch.mul), scaled),
    **dict.fromkeys(("add", operator.add, torch.add), shifted),
}


def same_for_all(node: Node) -> bool:
    """Whether a node gives parameters or buffers, or what a few operators make of them alone, whatever the batch."""
    waiting, constants, seen = [node], 0, 0
    while waiting and seen < MAX_CONSTANT:
        node, seen = waiting.pop(), seen + 1
        if node.op == "placeholder" and not isinstance(node.meta.get("example_value"), torch.nn.Parameter):
            return False  # but dynamo makes arguments of parameters
        if _called(node) in ("expand", "expand_as", "repeat"):
            return False
        constants += node.op in ("get_attr", "placeholder")
        waiting += [read for read in node.all_input_nodes if not is_size(read)]
    return constants > 0 and not waiting


def _constant_shape(node: Any, module: GraphModule) -> tuple[int, ...]:
    if not isinstance(node, Node) or node.op not in ("get_attr", "placeholder") or not same_for_all(node):
        return ()
    value = operator.attrgetter(node.target)(module) if node.op == "get_attr" else node.meta["example_value"]
    return tuple(getattr(value, "shape", ()))


# --- Shuffles


def _rewrite_shuffle(node: Node, module: GraphModule) -> bool:
    """``x.view(n, groups, -1, h, w).transpose(1, 2).contiguous().view(n, c, h, w)``, of x's sizes."""
    last, sizes = node, _view_sizes(node)
    inner = _viewed(node)
    if _called(inner) == "contiguous":
        inner = inner.args[0]
    swapped = _called(inner) == "transpose" and sorted(inner.args[1:], key=str) == [1, 2]
    swapped = swapped or (_called(inner) == "permute" and _flat(inner.args[1:]) == [0, 2, 1, 3, 4])
    if not swapped or not isinstance(inner, Node) or inner.kwargs:
        return False
    first = inner.args[0]
    x, grouped = _viewed(first), _view_sizes(first)
    if x is None or len(sizes) != 4 or len(grouped) != 5 or not isinstance(grouped[1], int) or grouped[1] < 1:
        return False
    for size, dim in zip((*sizes[:1], *sizes[2:], *grouped[:1], *grouped[3:]), (0, 2, 3, 0, 2, 3), strict=True):
        if not _is_size_of(size, x, dim):
            return False
    return _replace(last, module, shuffled, x, grouped[1])


def _viewed(node: Any) -> Any:
    """What a view is of; None where this is no view."""
    return node.args[0] if _called(node) in ("view", "reshape") and not node.kwargs else None


def _view_sizes(node: Any) -> list[Any]:
    return [] if _viewed(node) is None else _flat(node.args[1:])


def _flat(sizes: Any) -> list[Any]:
    """Sizes given one by one, or as one list."""
    return list(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else list(sizes)


def _is_size_of(size: Any, x: Node, dim: int) -> bool:
    """Whether a number is a tensor's size, by its node, or by what dynamo, which guards sizes, says."""
    if _sized(size) == (x, dim):
        return True
    example = x.meta.get("example_value")
    if example is None or example.dim() != 4:
        return False
    given = size.meta.get("example_value") if isinstance(size, Node) else size
    return str(example.shape[dim]) == str(given)


# --- Assertions


def _rewrite_assertion(node: Node, module: GraphModule) -> None:
    """``torch._assert(x.ndim == 4, message)``, which plans know by themselves."""
    condition, *message = node.args
    if _called(condition) != "eq" or len(message) != 1 or node.kwargs:
        return
    rank, number = condition.args
    if _is_rank(rank) and isinstance(number, int):
        _replace(node, module, check_rank, rank.args[0], number, *message)


def for_assertions(graph: Graph) -> set[Node]:
    """The assertions, and the nodes that are there for them alone."""
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        asserts = node.op == "call_function" and node.target in (torch._assert, check_rank)
        if asserts or (node.users and is_size(node) and found.issuperset(node.users)):
            found.add(node)
    return found


# --- Flattening


def _rewrite_view(node: Node, module: GraphModule, parsed: Parsed) -> bool:
    """``x.view(n, -1)`` and ``x.view(n, c, 1, 1)`` where n is known to be x's batch: flatten(x, 1) and as_pixel(x)."""
    if node.op != "call_method":
        return False
    x, sizes = _viewed(node), _view_sizes(node)
    pixel = len(sizes) == 4 and sizes[2:] == [1, 1]
    if x is None or not (len(sizes) == 2 or pixel):
        return False
    sized = _sized(sizes[0])
    if not (sized and sized[1] == 0 and _same_batch(sized[0], x, parsed)) and not _keeps_batch(x, node):
        return False
    return _replace(node, module, as_pixel, x) if pixel else _replace(node, module, torch.flatten, x, 1)


def _sized(size: Any) -> tuple[Node, int] | None:
    """The tensor and the dimension that this is the size of."""
    if not isinstance(size, Node) or size.kwargs:
        return None
    if size.op == "call_method" and size.target == "size" and len(size.args) == 2 and isinstance(size.args[1], int):
        return size.args[0], size.args[1]
    if size.op == "call_function" and size.target is operator.getitem and isinstance(size.args[1], int):
        shape = size.args[0]
        if _is_shape(shape):
            return shape.args[0], size.args[1]
    return None


def _is_shape(node: Any) -> bool:
    """Whether this is x.shape or x.size()."""
    if not isinstance(node, Node):
        return False
    if node.op == "call_function":
        return node.target is getattr and node.args[1] == "shape"
    return node.op == "call_method" and node.target == "size" and len(node.args) == 1 and not node.kwargs


def _is_rank(node: Any) -> bool:
    """Whether this is x.ndim or x.dim()."""
    if _called(node) == "getattr":
        return bool(node.args[1] == "ndim")
    return _called(node) == "dim"


def is_size(value: Any) -> bool:
    """Whether a node gives sizes of tensors, or what is computed of them alone."""
    waiting = [value]
    while waiting:  # not by recursion: sums of residuals may be hundreds
        value = waiting.pop()
        if not isinstance(value, Node):
            return False
        if _sized(value) is None and not _is_shape(value) and not _is_rank(value):
            if value.op != "call_function" or _called(value) not in _ARITHMETIC:
                return False
            waiting += [argument for argument in value.args if not isinstance(argument, int)]
    return True


_ARITHMETIC = ("add", "sub", "mul", "floordiv", "mod", "eq", "ne", "lt", "le", "gt", "ge")


def _same_batch(sized: Node, x: Node, parsed: Parsed) -> bool:
    """Whether x was made of ``sized`` by operators that keep the batch.

    A convolution may be one of a single image, [c, h, w], and what has several inputs may broadcast.
    """
    try:
        while x is not sized:
            made = parsed(x)
            if not made.keeps_first:
                return False
            x = made.inputs[0]
    except Unsupported:
        return False
    return True


def _keeps_batch(x: Node, node: Node) -> bool:
    """Whether dynamo, which guards shapes, says that a view has the first dimension of what it views."""
    before, after = x.meta.get("example_value"), node.meta.get("example_value")
    if before is None or after is None or before.dim() < 2 or after.dim() not in (2, 4):
        return False
    return str(before.shape[0]) == str(after.shape[0])
