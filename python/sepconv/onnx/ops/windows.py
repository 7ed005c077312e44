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
    space = windows(call.node, x.shape[2:], kernel)

    def pack() -> list[Any]:
        matrices = weight.reshape(groups, outputs // groups, inner * math.prod(kernel))
        bias = call.get(2)
        biases = [None] * groups if bias is None else list(_vector(bias, outputs).reshape(groups, -1))
        return [nd.PackedMatrix(matrix.T, b) for matrix, b in zip(matrices, biases, strict=True)]

    if x.shape[0] == 0:
        return [np.empty((0, outputs, *space.out), np.float32)]
    packed = call.cached("groups", (1, 2), pack)
    y = nd.conv(x, packed, space.out, space.kernel, space.stride, space.begin, space.end, space.dilation, call.threads)
    return [activated(call, y)]


@native("ConvTranspose")
def conv_transpose(call: Call) -> list[Array]:
    x, weight = call[0], call[1]
    groups = int(call.attribute("group", 1))
    channels, outputs, *kernel = weight.shape
    if x.ndim != weight.ndim or x.ndim < 3 or groups < 1 or channels % groups or x.shape[1] != channels:
        raise ValueError(f"x has the shape {x.shape}, the weight {weight.shape}, group is {groups}: they do not fit")
    space = transposed_windows(call.node, x.shape[2:], kernel)

    def pack() -> list[Any]:
        return [nd.PackedMatrix(m) for m in weight.reshape(groups, channels // groups, outputs * math.prod(kernel))]

    pixels = math.prod(x.shape[2:])
    split = call.dense(0).reshape(x.shape[0], groups, channels // groups, pixels).transpose(0, 1, 3, 2)
    bias = call.get(2)
    y = nd.conv_transpose(
        dense(split, call.threads),
        call.cached("groups", (1,), pack),
        None if bias is None else _vector(bias, outputs * groups),
        space.sizes,
        space.out,
        space.kernel,
        space.stride,
        space.begin,
        space.end,
        space.dilation,
        call.threads,
    )
    return [activated(call, y)]


def _vector(bias: Array, size: int) -> Array:
    if bias.shape != (size,):
        raise ValueError(f"the bias has the shape {bias.shape}, must have ({size},)")
    return np.ascontiguousarray(bias)


def activated(call: Call, y: Array) -> Array:
    """What a pass put behind the node."""
    kind = call.node.activation
    return y if kind == "none" else activate(kind, y, call.threads)


_QUANTISED = frozenset({"float32", "int8", "uint8"})


def _max_problem(node: Node, infos: list[Info]) -> str | None:
    if len(node.outputs) > 1 and node.outputs[1]:
        if node.attribute("storage_order", 0):
            return "it gives indices in column order"
        if infos[0].dtype is not None and infos[0].dtype != np.float32:
            return f"it gives indices into {infos[0].dtype}"
    return None


@native("MaxPool", types=_QUANTISED, check=_max_problem)
def max_pool(call: Call) -> list[Array]:
    indices = len(call.node.outputs) > 1 and bool(call.node.outputs[1])
    result = _pool(call, "max", indices)
    return list(result) if indices else [result]


@native("AveragePool")
def average_pool(call: Call) -> list[Array]:
    padded = bool(call.attribute("count_include_pad", 0))
    return [_pool(call, "average_padded" if padded else "average", False)]


def _pool(call: Call, kind: str, indices: bool) -> Any:
    x = call.dense(0)
    if x.ndim < 3:
        raise ValueError(f"x has rank {x.ndim}, must have at least 3")
    space = windows(call.node, x.shape[2:], kernel_of(call.node))
    try:
        return nd.pool(
            kind,
            x,
            space.out,
            space.kernel,
            space.stride,
            space.begin,
            space.end,
            space.dilation,
            indices,
            call.threads,
        )
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
