"""Operators that move elements or only see them in another shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sepconv import _core
from sepconv.onnx.ir import OWN_DOMAIN, Array, Info, Node
from sepconv.onnx.ops.elementwise import trains
from sepconv.onnx.ops.registry import ANY, BASE, MAX_RANK, Call, NotNativeError, dense, native, normal_axis, zero
from sepconv.onnx.tensors import MAX_ELEMENTS

nd = _core.nd


@native("Identity", types=ANY, kernel="view")
def identity(call: Call) -> list[Array]:
    return [call[0]]


@native(
    "Dropout",
    check=lambda node, _: "it may train" if node.input(2) or trains(node) else None,
    kernel="view",
)
def dropout(call: Call) -> list[Array]:
    x = call[0]
    mask = np.bool_ if call.opset >= 10 else x.dtype
    return [x] if len(call.node.outputs) == 1 else [x, np.ones(x.shape, mask)]


@native("Reshape", types=ANY, kernel="view")
def reshape(call: Call) -> list[Array]:
    x = call[0]
    target = call.cached("target", (1,), lambda: call.integers(1, "shape") or [])
    if 0 in target and not call.attribute("allowzero", 0):
        target = [x.shape[axis] if size == 0 and axis < x.ndim else size for axis, size in enumerate(target)]
    return [call.dense(0).reshape(target)]


@native("Flatten", types=ANY, kernel="view")
def flatten(call: Call) -> list[Array]:
    axis = int(call.attribute("axis", 1))
    shape = call[0].shape
    if not -len(shape) <= axis <= len(shape):
        raise ValueError(f"axis is {axis}, must be between {-len(shape)} and {len(shape)}")
    axis += len(shape) if axis < 0 else 0
    return [call.dense(0).reshape(math.prod(shape[:axis]), math.prod(shape[axis:]))]


@native("Squeeze", types=ANY, kernel="view")
def squeeze(call: Call) -> list[Array]:
    axes = call.integers(1, "axes")
    shape = call[0].shape
    dropped = [axis for axis, size in enumerate(shape) if size == 1]
    if axes is not None:
        dropped = [normal_axis(axis, len(shape)) for axis in axes]
        if any(shape[axis] != 1 for axis in dropped):
            raise ValueError(f"axes are {axes}, must have size 1 in {shape}")
    return [call.dense(0).reshape([size for axis, size in enumerate(shape) if axis not in dropped])]


@native("Unsqueeze", types=ANY, kernel="view")
def unsqueeze(call: Call) -> list[Array]:
    axes = call.integers(1, "axes") or []
    rank = call[0].ndim + len(axes)
    added = {normal_axis(axis, rank) for axis in axes}
    if len(added) != len(axes):
        raise ValueError(f"axes are {axes}, must differ")
    sizes = iter(call[0].shape)
    return [call.dense(0).reshape([1 if axis in added else next(sizes) for axis in range(rank)])]


@native("Shape", types=frozenset(), typed=0, kernel="view")
def shape_(call: Call) -> list[Array]:
    sizes = call[0].shape
    return [np.array(sizes[call.attribute("start", 0) : call.attribute("end", len(sizes))], np.int64)]


@native("Size", types=frozenset(), typed=0, kernel="view")
def size_(call: Call) -> list[Array]:
    return [np.array(call[0].size, np.int64)]


def _constant_problem(node: Node, _: list[Info]) -> str | None:
    known = {"value", "value_float", "value_floats", "value_int", "value_ints"}
    return None if len(node.attributes) == 1 and set(node.attributes) <= known else "it holds no plain tensor"


@native("Constant", typed=0, kernel="view", check=_constant_problem)
def constant(call: Call) -> list[Array]:
    ((name, value),) = call.node.attributes.items()
    match name:
        case "value":
            return [value]
        case "value_float" | "value_floats":
            return [np.array(value, np.float32)]
        case "value_int" | "value_ints":
            return [np.array(value, np.int64)]
    raise NotNativeError(f"its attribute is {name}")


@native("ConstantOfShape", typed=0)
def constant_of_shape(call: Call) -> list[Array]:
    sizes = [int(size) for size in call[0].reshape(-1)]
    value = call.attribute("value", np.zeros(1, np.float32))
    _check_sizes(sizes)
    if value.dtype.hasobject:
        raise NotNativeError("its value is text")
    return [filled(sizes, value.reshape(()), call.threads)]


def filled(sizes: list[int], value: Array, threads: int) -> Array:
    """A new array of one value."""
    result = np.empty(sizes, value.dtype)
    nd.copy(result, np.broadcast_to(value, sizes), threads)
    return result


def _check_sizes(sizes: list[int]) -> None:
    if any(size < 0 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS:
        raise ValueError(f"the result would have the shape {sizes}; at most {MAX_ELEMENTS} elements are possible")
    if len(sizes) > MAX_RANK:
        raise NotNativeError(f"the result has more than {MAX_RANK} axes")


# --- Copies


@native("Transpose", types=ANY, kernel="nd copy")
def transpose(call: Call) -> list[Array]:
    x, order = call[0], call.attribute("perm")
    if order is not None and sorted(order) != list(range(x.ndim)):
        raise ValueError(f"perm is {order}, must be the axes of x, which has rank {x.ndim}, in some order")
    return [dense(x.transpose(order), call.threads)]


@native("Concat", types=ANY, typed=64, kernel="nd copy")
def concat(call: Call) -> list[Array]:
    arrays = [call[index] for index in range(len(call.inputs))]
    return [joined(arrays, call.axis(arrays[0].ndim, 1), call.threads)]


def joined(arrays: list[Array], axis: int, threads: int) -> Array:
    """Arrays one after the other along an axis."""
    first = arrays[0]
    for array in arrays:
        fits = array.shape[:axis] == first.shape[:axis] and array.shape[axis + 1 :] == first.shape[axis + 1 :]
        if not fits or array.ndim != first.ndim or array.dtype != first.dtype:
            raise ValueError(f"inputs have shapes {[x.shape for x in arrays]}, must differ along axis {axis} alone")
    shape = [*first.shape]
    shape[axis] = sum(array.shape[axis] for array in arrays)
    result = np.empty(shape, first.dtype)
    begin = 0
    for array in arrays:
        end = begin + array.shape[axis]
        nd.copy(result[(slice(None),) * axis + (slice(begin, end),)], array, threads)
        begin = end
    return result


@native("Split", types=ANY, kernel="nd copy")
def split(call: Call) -> list[Array]:
    x = call[0]
    axis = call.axis(x.ndim, 0)
    size = x.shape[axis]
    parts = call.integers(1, "split")
    if parts is None:
        count = int(call.attribute("num_outputs", len(call.node.outputs)))
        if count < 1:
            raise ValueError(f"num_outputs is {count}, must be at least 1")
        each = -(-size // count)
        parts = [max(min(each, size - each * index), 0) for index in range(count)]
    if sum(parts) != size or any(part < 0 for part in parts):
        raise ValueError(f"split is {parts}, must sum to {size}")
    begins = [sum(parts[:index]) for index in range(len(parts))]
    axes = (slice(None),) * axis
    return [dense(x[(*axes, slice(b, b + part))], call.threads) for b, part in zip(begins, parts, strict=True)]


@native("Slice", types=ANY, kernel="nd copy")
def slice_(call: Call) -> list[Array]:
    return [dense(call[0][sliced(call)], call.threads)]


def sliced(call: Call) -> tuple[slice, ...]:
    """What Slice takes of each axis; kept for the next call where no more than x changes, and not x's shape."""
    shape = call[0].shape
    if not all(index in call.constant or call.get(index) is None for index in range(1, 5)):
        return _sliced(call)
    kept = call.cache.get("sliced")
    if kept is None or kept[0] != shape:
        kept = call.cache["sliced"] = (shape, _sliced(call))
    taken: tuple[slice, ...] = kept[1]
    return taken


def _sliced(call: Call) -> tuple[slice, ...]:
    x = call[0]
    starts, ends = call.integers(1, "starts") or [], call.integers(2, "ends") or []
    axes = call.integers(3, "axes") or list(range(len(starts)))
    steps = call.integers(4, "steps") or [1] * len(starts)
    taken = [slice(None)] * x.ndim
    places = [normal_axis(axis, x.ndim) for axis in axes]
    if len(set(places)) < len(places):
        raise ValueError(f"axes are {axes}, must be different ones")
    for start, end, place, step in zip(starts, ends, places, steps, strict=True):
        size = x.shape[place]
        if step == 0:
            raise ValueError("a step of Slice is 0")
        if step > 0:
            begin = min(max(start + size if start < 0 else start, 0), size)
            stop = min(max(end + size if end < 0 else end, 0), size)
            taken[place] = slice(begin, stop, step)
        else:
            begin = min(max(start + size if start < 0 else start, 0), size - 1)
            stop = min(max(end + size if end < 0 else end, -1), size - 1)
            taken[place] = slice(begin, None if stop < 0 else stop, step)
    return tuple(taken)


@native("Expand", types=ANY, kernel="nd copy")
def expand(call: Call) -> list[Array]:
    x = call[0]
    wanted = [int(size) for size in call[1].reshape(-1)]
    _check_sizes(wanted)  # NumPy broadcasts no more than 32 axes
    sizes = list(np.broadcast_shapes(x.shape, wanted))
    _check_sizes(sizes)
    return [dense(np.broadcast_to(x, sizes), call.threads)]


@native("Tile", types=ANY, kernel="nd copy")
def tile(call: Call) -> list[Array]:
    x = call[0]
    repeats = [int(count) for count in call[1].reshape(-1)]
    sizes = [size * count for size, count in zip(x.shape, repeats, strict=True)]
    _check_sizes(sizes)
    spread: list[int] = []
    ones: list[int] = []
    for size, count in zip(x.shape, repeats, strict=True):
        spread += [size] if count == 1 else [count, size]
        ones += [size] if count == 1 else [1, size]
    if len(spread) > MAX_RANK:
        raise NotNativeError(f"it repeats along {len(spread) - x.ndim} of {x.ndim} axes")
    return [dense(np.broadcast_to(x.reshape(ones), spread), call.threads).reshape(sizes)]


@native("DepthToSpace", types=ANY, kernel="nd copy")
def depth_to_space(call: Call) -> list[Array]:
    x, block = call.dense(0), int(call.attribute("blocksize"))
    n, c, h, w = x.shape
    if block < 1 or c % (block * block):
        raise ValueError(f"blocksize is {block}, and its square must divide the {c} channels")
    out = c // (block * block)
    if call.attribute("mode", "DCR") == "CRD":
        moved = x.reshape(n, out, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    else:
        moved = x.reshape(n, block, block, out, h, w).transpose(0, 3, 4, 1, 5, 2)
    return [dense(moved, call.threads).reshape(n, out, h * block, w * block)]


@native("SpaceToDepth", types=ANY, kernel="nd copy")
def space_to_depth(call: Call) -> list[Array]:
    x, block = call.dense(0), int(call.attribute("blocksize"))
    n, c, h, w = x.shape
    if block < 1 or h % block or w % block:
        raise ValueError(f"blocksize is {block}, must divide the sizes {h} and {w}")
    split_up = x.reshape(n, c, h // block, block, w // block, block)
    order = (0, 1, 3, 5, 2, 4) if call.attribute("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    return [dense(split_up.transpose(order), call.threads).reshape(n, c * block * block, h // block, w // block)]


@native("ChannelShuffle", types=ANY, domain=OWN_DOMAIN, kernel="nd copy")
def channel_shuffle(call: Call) -> list[Array]:
    x, groups = call.dense(0), int(call.attribute("groups"))
    n, c, *space = x.shape
    moved = x.reshape(n, groups, c // groups, math.prod(space)).transpose(0, 2, 1, 3)
    return [dense(moved, call.threads).reshape(x.shape)]


# --- By tables of places


def _pad_problem(node: Node, infos: list[Info]) -> str | None:
    mode = node.attribute("mode", "constant")
    return None if mode in ("constant", "edge", "reflect", "wrap") else f"its mode is {mode}"


@native("Pad", types=ANY, check=_pad_problem, kernel="nd gather")
def pad(call: Call) -> list[Array]:
    x = call[0]
    if x.ndim == 0:
        return [x]
    pads = call.integers(1, "pads") or []
    axes = [normal_axis(a, x.ndim) for a in call.integers(3, "", list(range(x.ndim))) or []]
    if len(pads) != 2 * len(axes):
        raise ValueError(f"pads has {len(pads)} numbers, must have {2 * len(axes)}")
    mode = call.attribute("mode", "constant")
    value = call.get(2)
    fill = zero(x.dtype)
    if value is not None and value.size:
        fill = value.astype(x.dtype).reshape(1)
    elif call.opset < 11:
        fill = np.full(1, call.attribute("value", 0.0), x.dtype)
    tables: list[list[int]] = [[] for _ in x.shape]
    sizes = [*x.shape]
    for position, axis in enumerate(axes):
        before, after = pads[position], pads[position + len(axes)]
        sizes[axis] += before + after
        _check_sizes(sizes)
        if before or after:
            tables[axis] = _places(x.shape[axis], before, after, mode)
    if 0 in sizes or (x.size == 0 and mode != "constant"):
        return [np.empty(sizes, x.dtype)]
    if x.size == 0:
        return [filled(sizes, fill.reshape(()), call.threads)]
    return [nd.gather(dense(x, call.threads), tables, fill, call.threads)]


def _places(size: int, before: int, after: int, mode: str) -> list[int]:
    """Where each element of a padded axis comes from; -1 for the constant."""
    places = np.arange(-before, size + after)
    if mode == "constant":
        places[(places < 0) | (places >= size)] = -1
    elif mode == "edge":
        places = places.clip(0, size - 1)
    elif mode == "wrap":
        places %= size
    else:
        period = max(2 * (size - 1), 1)
        places = np.abs((places + size - 1) % period - (size - 1)) if size > 1 else places * 0
    return [int(place) for place in places]


@native("Gather", types=ANY, kernel="nd gather")
def gather(call: Call) -> list[Array]:
    x, indices = call[0], call[1]
    if indices.dtype.kind not in "iu":
        raise ValueError(f"indices are {indices.dtype}, must be whole numbers")
    axis = call.axis(x.ndim, 0)
    size = x.shape[axis]
    places = np.where(indices < 0, indices + size, indices).astype(np.int64)
    if places.size and (places.min() < 0 or places.max() >= size):
        raise ValueError(f"an index lies outside axis {axis} of size {size}")
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if places.size == 0 or x.size == 0:
        return [np.empty(shape, x.dtype)]
    tables: list[Any] = [[] for _ in x.shape]
    tables[axis] = places.reshape(-1)
    return [nd.gather(dense(x, call.threads), tables, zero(x.dtype), call.threads).reshape(shape)]


@native("Range", types=BASE, typed=3)
def range_(call: Call) -> list[Array]:
    start, limit, delta = (call[index].reshape(())[()] for index in range(3))
    if delta == 0:
        raise ValueError("delta of Range is 0")
    if call[0].dtype.kind in "iu":  # exactly, also beyond 2^53
        count = max(-((int(start) - int(limit)) // int(delta)), 0)
    else:
        steps = (float(limit) - float(start)) / float(delta)
        if not math.isfinite(steps):
            raise ValueError(f"Range goes from {start} to {limit} by {delta}, must end")
        count = max(math.ceil(steps), 0)
    _check_sizes([count])
    scaled = nd.binary("mul", np.arange(count).astype(call[0].dtype), call[2].reshape(()), call.threads)
    return [nd.binary("add", scaled, call[0].reshape(()), call.threads)]
