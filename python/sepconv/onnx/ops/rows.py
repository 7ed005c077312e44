"""Operators that reduce or normalise along some axes: these become the last ones of a matrix of rows."""

from __future__ import annotations

import math

import numpy as np

from sepconv import _core
from sepconv.onnx.ir import OWN_DOMAIN, Array, Info, Node
from sepconv.onnx.ops.elementwise import binary_of
from sepconv.onnx.ops.registry import (
    NUMBERS,
    Call,
    NotNativeError,
    axis_last,
    dense,
    last_back,
    native,
    normal_axis,
)

nd = _core.nd

_REDUCTIONS = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod",
    "ReduceL1": "l1", "ReduceL2": "l2", "ReduceSumSquare": "sum_square", "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "log_sum_exp",
}  # fmt: skip
_ROWS_ONLY = {"ReduceProd", "ReduceLogSumExp"}
_REAL_ONLY = {"ReduceMean", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"}


def _reduce_problem(node: Node, infos: list[Info]) -> str | None:
    dtype = infos[0].dtype
    return f"its input is {dtype}" if node.op in _REAL_ONLY and dtype is not None and dtype != np.float32 else None


@native(*_REDUCTIONS, types=NUMBERS, check=_reduce_problem)
def reduce(call: Call) -> list[Array]:
    x = call[0]
    axes = call.integers(1, "axes")
    if not axes:  # with the attribute, each element is a row of its own
        axes = [] if call.attribute("noop_with_empty_axes", 0) else list(range(x.ndim))
    reduced = sorted({normal_axis(axis, x.ndim) for axis in axes})
    count = math.prod(x.shape[axis] for axis in reduced)
    if count == 0 and call.node.op in ("ReduceMax", "ReduceMin", "ReduceMean") and x.dtype != np.float32:
        raise NotNativeError("it reduces nothing")
    result = nd.reduce(_REDUCTIONS[call.node.op], _reduced_view(call.node.op, x, reduced, call.threads), call.threads)
    keep = call.attribute("keepdims", 1)
    shape = [1 if axis in reduced else size for axis, size in enumerate(x.shape) if keep or axis not in reduced]
    return [result.reshape(shape)]


def _adjacent(axes: list[int]) -> bool:
    return bool(axes) and axes == [*range(axes[0], axes[-1] + 1)]


def _reduced_view(op: str, x: Array, reduced: list[int], threads: int) -> Array:
    """[rows, n], each row to be reduced; or [outer, n, inner], where the core reduces the middle as it lies."""
    kept = [axis for axis in range(x.ndim) if axis not in reduced]
    longer = [axis for axis in reduced if x.shape[axis] != 1]
    if x.dtype == np.float32 and op not in _ROWS_ONLY and x.size and _adjacent(longer):
        inner = math.prod(x.shape[longer[-1] + 1 :])
        if inner > 1:
            return dense(x, threads).reshape(math.prod(x.shape[: longer[0]]), -1, inner)
    rows = math.prod(x.shape[axis] for axis in kept)
    return dense(x.transpose([*kept, *reduced]), threads).reshape(rows, math.prod(x.shape[axis] for axis in reduced))


@native("Softmax", "LogSoftmax")
def softmax(call: Call) -> list[Array]:
    x = call[0]
    logarithm = call.node.op == "LogSoftmax"
    if x.size == 0:
        return [np.empty(x.shape, np.float32)]
    if call.opset < 13:
        # Everything from the axis on is one row.
        axis = call.axis(x.ndim, 1)
        rows = call.dense(0).reshape(math.prod(x.shape[:axis]), -1)
        return [nd.softmax(rows, logarithm, call.threads).reshape(x.shape)]
    axis = call.axis(x.ndim, -1)
    last = dense(axis_last(x, axis), call.threads)
    rows = nd.softmax(last.reshape(-1, x.shape[axis]), logarithm, call.threads)
    return [dense(last_back(rows.reshape(last.shape), axis), call.threads)]


@native("LayerNormalization", "RMSNormalization", typed=3)
def layer_normalization(call: Call) -> list[Array]:
    x = call.dense(0)
    axis = call.axis(x.ndim, -1)
    center = call.node.op == "LayerNormalization"
    rows = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    scale, bias = call[1], call.get(2) if center else None
    factors = (_per_element(scale, x.shape[axis:]), None if bias is None else _per_element(bias, x.shape[axis:]))
    fused = factors[0] is not None and (bias is None or factors[1] is not None)
    normal, mean, inverse = nd.normalize(
        rows, float(call.attribute("epsilon", 1e-5)), center, call.threads, *(factors if fused else (None, None))
    )
    y = normal.reshape(x.shape)
    if not fused:
        y = binary_of("mul", y, scale, call.threads)
        y = y if bias is None else binary_of("add", y, bias, call.threads)
    statistics = (*x.shape[:axis], *(1,) * (x.ndim - axis))
    results = [y, mean.reshape(statistics), inverse.reshape(statistics)]
    return results[: len(call.node.outputs)] if center else [y]


def _per_element(factors: Array, shape: tuple[int, ...]) -> Array | None:
    """One factor for each element of a row; None where they differ between rows, or do not fit."""
    if factors.shape == shape and factors.flags.c_contiguous:
        return factors.reshape(-1)
    while factors.ndim > len(shape) and factors.shape[0] == 1:
        factors = factors[0]
    if factors.ndim > len(shape) or any(
        size not in (1, wanted) for size, wanted in zip(factors.shape[::-1], shape[::-1], strict=False)
    ):
        return None
    return dense(np.broadcast_to(factors, shape), 1).reshape(-1)


@native("LayerNorm", typed=3, domain=OWN_DOMAIN)
def layer_norm(call: Call) -> list[Array]:
    """Over axis 1: what passes make where the file's own is over channels that are last."""
    last = dense(axis_last(call[0], 1), call.threads)
    rows = last.reshape(-1, last.shape[-1])
    scale, bias = dense(call[1], 1), None if call.get(2) is None else dense(call[2], 1)
    normal, _, _ = nd.normalize(rows, float(call.attribute("epsilon")), True, call.threads, scale, bias)
    return [dense(last_back(normal.reshape(last.shape), 1), call.threads)]


@native("InstanceNormalization", typed=3)
def instance_normalization(call: Call) -> list[Array]:
    x = call.dense(0)
    return [_grouped(call, x, x.shape[1], per_group=False)]


@native("GroupNormalization", typed=3)
def group_normalization(call: Call) -> list[Array]:
    return [_grouped(call, call.dense(0), int(call.attribute("num_groups")), per_group=call.opset < 21)]


def _grouped(call: Call, x: Array, groups: int, *, per_group: bool) -> Array:
    """Each group of channels normalised by itself; scale and bias for each channel, or (before opset 21) each group."""
    n, c, *space = x.shape
    if x.size == 0:
        return np.empty(x.shape, np.float32)
    rows = x.reshape(n * groups, -1)
    run = rows.shape[1] if per_group else math.prod(space)
    count = groups if per_group else c
    if any(call[index].size not in (1, count) for index in (1, 2)):
        given = f"scale and bias have the shapes {call[1].shape} and {call[2].shape}"
        raise ValueError(f"{given}, must have {count} elements")
    scale, bias = (_spread(call[index].reshape(-1), count) for index in (1, 2))
    epsilon = float(call.attribute("epsilon", 1e-5))
    normal, _, _ = nd.normalize(rows, epsilon, True, call.threads, scale, bias, run)
    return normal.reshape(x.shape)


def _spread(factors: Array, count: int) -> Array:
    return dense(factors, 1) if factors.size == count else np.full(count, factors[0])


@native("ArgMax", "ArgMin")
def arg_extreme(call: Call) -> list[Array]:
    x = call[0]
    axis = call.axis(x.ndim, 0)
    if x.ndim == 0:
        return [np.zeros((), np.int64)]
    size = x.shape[axis]
    if x.size == 0:
        raise NotNativeError("it looks among nothing")
    last = axis_last(x, axis)
    backwards = bool(call.attribute("select_last_index", 0))
    rows = dense(last[..., ::-1] if backwards else last, call.threads).reshape(1, -1, size)
    if call.node.op == "ArgMin":
        rows = nd.unary("neg", rows, 0.0, 0.0, call.threads)
    # The greatest of one window over the whole row; its place is told within the array, row after row.
    _, places = nd.pool("max", rows, [1], [size], [1], [0], [0], [1], True, call.threads)
    places = nd.binary("mod", places.reshape(-1), np.full((), size, np.int64), call.threads)
    if backwards:
        places = nd.binary("sub", np.full((), size - 1, np.int64), places, call.threads)
    shape = [1 if a == axis else n for a, n in enumerate(x.shape) if call.attribute("keepdims", 1) or a != axis]
    return [places.reshape(shape)]


@native("LRN")
def lrn(call: Call) -> list[Array]:
    """x / (bias + alpha·mean of x² over the `size` channels around)^beta; channels outside count as 0."""
    x, size = call.dense(0), int(call.attribute("size"))
    n, c, *space = x.shape
    if size < 1 or x.size == 0:
        raise NotNativeError(f"its size is {size}")
    squares = nd.binary("mul", x, x, call.threads).reshape(1, n, c, math.prod(space))
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    window = ([c, math.prod(space)], [size, 1], [1, 1], [before, 0], [after, 0], [1, 1])
    mean = nd.pool("average_padded", squares, *window, False, call.threads).reshape(x.shape)
    scale = nd.unary(
        "affine", mean, float(call.attribute("alpha", 1e-4)), float(call.attribute("bias", 1.0)), call.threads
    )
    power = nd.binary("pow", scale, np.full((), call.attribute("beta", 0.75), np.float32), call.threads)
    return [nd.binary("div", x, power, call.threads)]
