"""Convolutions and poolings over any number of axes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sepconv import _core
from sepconv.onnx.geometry import kernel_of, transposed_windows, windows
from sepconv.onnx.ir import Array, Info, Node
from sepconv.onnx.ops.elementwise import activate
from sepconv.onnx.ops.registry import Call, NotNativeError, dense, native

nd = _core.nd


@native("Conv")
def conv(call: Call) -> list[Array]:
    x, weight = call.dense(0), call[1]
    groups = int(call.attribute("group", 1))
    outputs, inner, *kernel = weight.shape
    if x.ndim != weight.ndim or x.ndim < 3:
        raise ValueError(f"x has rank {x.ndim} and the weight {weight.ndim}, must have the same, at least 3")
    if groups < 1 or outputs % groups or x.shape[1] != inner * groups:
        raise ValueError(f"group is {groups}; x has {x.shape[1]} channels, the weight {outputs} times {inner}")
    check_float32(call, 1, 2)
    space = windows(call.node, x.shape[2:], kernel)

    if 0 in (x.shape[0], outputs):
        return [np.empty((x.shape[0], outputs, *space.out), np.float32)]

    def rows() -> Array:
        """For each output channel its bias, then its weights."""
        bias = call.get(2)
        result = np.zeros((outputs, 1 + inner * math.prod(kernel)), np.float32)
        result[:, 0] = 0 if bias is None else bias_vector(bias, outputs)
        result[:, 1:] = weight.reshape(outputs, -1)
        return result

    rows_of = call.cached("rows", (1, 2), rows)
    return [activated(call, nd.conv(x, rows_of, groups, *space.numbers, call.threads))]


@native("ConvTranspose")
def conv_transpose(call: Call) -> list[Array]:
    x, weight = call[0], call[1]
    groups = int(call.attribute("group", 1))
    channels, outputs, *kernel = weight.shape
    if x.ndim != weight.ndim or x.ndim < 3 or groups < 1 or channels % groups or x.shape[1] != channels:
        raise ValueError(f"x has the shape {x.shape}, the weight {weight.shape}, group is {groups}: they do not fit")
    check_float32(call, 1, 2)
    space = transposed_windows(call.node, x.shape[2:], kernel)

    def pack() -> list[Any]:
        return [nd.PackedMatrix(m) for m in weight.reshape(groups, channels // groups, outputs * math.prod(kernel))]

    pixels = math.prod(x.shape[2:])
    split = call.dense(0).reshape(x.shape[0], groups, channels // groups, pixels).transpose(0, 1, 3, 2)
    bias = call.get(2)
    y = nd.conv_transpose(
        dense(split, call.threads),
        call.cached("groups", (1,), pack),
        None if bias is None else bias_vector(bias, outputs * groups),
        space.sizes,
        *space.numbers,
        call.threads,
    )
    return [activated(call, y)]


def check_float32(call: Call, *indices: int) -> None:
    """ValueError for another type of these inputs, which a file may mix with its first."""
    for index in indices:
        array = call.get(index)
        if array is not None and array.dtype != np.float32:
            raise ValueError(f"input {index} is {array.dtype}, must be float32 as the first")


def bias_vector(bias: Array, size: int) -> Array:
    """A bias of that many channels. Raises ValueError for another shape."""
    if bias.shape != (size,):
        raise ValueError(f"the bias has the shape {bias.shape}, must have ({size},)")
    return np.ascontiguousarray(bias)


def activated(call: Call, y: Array) -> Array:
    """What a pass put behind the node."""
    kind = call.node.activation
    return y if kind == "none" else activate(kind, y, call.threads)


_QUANTISED = frozenset({"float32", "int8", "uint8"})


def _max_problem(node: Node, infos: list[Info]) -> str | None:
    if any(node.outputs[1:]) and infos[0].dtype not in (None, np.float32):
        return f"it gives indices into {infos[0].dtype}"
    return None


@native("MaxPool", types=_QUANTISED, check=_max_problem)
def max_pool(call: Call) -> list[Array]:
    indices = len(call.node.outputs) > 1 and bool(call.node.outputs[1])
    result = _pool(call, call.dense(0), "max", indices)
    if not indices:
        return [result]
    y, places = result
    if call.attribute("storage_order", 0) and places.size:
        sizes = call[0].shape[2:]
        planes, inside = np.divmod(places, math.prod(sizes))
        columns = np.ravel_multi_index(np.unravel_index(inside, sizes), sizes, order="F")
        places = planes * math.prod(sizes) + columns
    return [y, places]


@native("AveragePool")
def average_pool(call: Call) -> list[Array]:
    padded = bool(call.attribute("count_include_pad", 0))
    return [_pool(call, call.dense(0), "average_padded" if padded else "average", False)]


@native("LpPool")
def lp_pool(call: Call) -> list[Array]:
    p, powers = _powers(call)
    return [_root(call, _pool(call, powers, "sum", False), p)]


@native("GlobalLpPool")
def global_lp_pool(call: Call) -> list[Array]:
    p, powers = _powers(call)
    rows = powers.reshape(math.prod(powers.shape[:2]), math.prod(powers.shape[2:]))
    sums = nd.reduce("sum", rows, call.threads).reshape(*powers.shape[:2], *(1,) * (powers.ndim - 2))
    return [_root(call, sums, p)]


def _powers(call: Call) -> tuple[int, Array]:
    """p and |x|^p."""
    p, size = int(call.attribute("p", 2)), nd.unary("abs", call.dense(0), 0.0, 0.0, call.threads)
    if p < 1:
        raise ValueError(f"p is {p}, must be at least 1")
    return p, size if p == 1 else nd.binary("pow", size, np.full((), p, np.float32), call.threads)


def _root(call: Call, sums: Array, p: int) -> Array:
    return sums if p == 1 else nd.binary("pow", sums, np.full((), 1 / p, np.float32), call.threads)


def _pool(call: Call, x: Array, kind: str, indices: bool) -> Any:
    if x.ndim < 3:
        raise ValueError(f"x has rank {x.ndim}, must have at least 3")
    space = windows(call.node, x.shape[2:], kernel_of(call.node))
    if 0 in (*x.shape[:2], *space.out):
        shape = (*x.shape[:2], *space.out)
        return (np.empty(shape, x.dtype), np.empty(shape, np.int64)) if indices else np.empty(shape, x.dtype)
    try:
        return nd.pool(kind, x, *space.numbers, indices, call.threads)
    except ValueError as error:
        if "wholly in the padding" in str(error):
            raise NotNativeError("a window lies wholly in the padding") from None
        raise


@native("GlobalAveragePool", "GlobalMaxPool")
def global_pool(call: Call) -> list[Array]:
    x = call.dense(0)
    rows = x.reshape(math.prod(x.shape[:2]), math.prod(x.shape[2:]))
    kind = "mean" if call.node.op == "GlobalAveragePool" else "max"
    return [nd.reduce(kind, rows, call.threads).reshape(*x.shape[:2], *(1,) * (x.ndim - 2))]
