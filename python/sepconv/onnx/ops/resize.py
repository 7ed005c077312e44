"""Resize and Upsample: one axis after the other, by tables of places (nearest) or of weights (linear, cubic)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sepconv import _core
from sepconv.onnx.ir import Array, Info, Node
from sepconv.onnx.ops.registry import ANY, Call, NotNativeError, dense, native, normal_axis, zero
from sepconv.onnx.tensors import MAX_ELEMENTS

nd = _core.nd
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """How one axis is resized."""

    size: int
    out: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


def _resize_problem(node: Node, infos: list[Info]) -> str | None:
    mode = node.attribute("mode", "nearest")
    dtype = infos[0].dtype if infos else None
    if mode != "nearest" and dtype is not None and dtype != np.float32:
        return f"its input is {dtype} and its mode {mode}"
    return None


@native("Resize", "Upsample", types=ANY, check=_resize_problem)
def resize(call: Call) -> list[Array]:
    x = call[0]
    mode = call.attribute("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        raise ValueError(f"mode is {mode!r}, must be nearest, linear or cubic")
    transform = call.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = call.attribute("nearest_mode", "round_prefer_floor")
    if call.opset < 11:
        transform, rounding = "asymmetric", "floor"
    axes = _axes(call)
    if any(axis.out < 0 for axis in axes):
        raise ValueError(f"the result would have the shape {[axis.out for axis in axes]}, which is negative")
    if math.prod(axis.out for axis in axes) > MAX_ELEMENTS:
        raise ValueError(f"the result would have the shape {[axis.out for axis in axes]}")
    if any(axis.size == 0 < axis.out for axis in axes):
        raise ValueError(f"x has the shape {x.shape}; nothing cannot become {[axis.out for axis in axes]}")
    if any(axis.out == 0 for axis in axes) or x.size == 0:
        return [np.empty([axis.out for axis in axes], x.dtype)]
    outside = call.attribute("extrapolation_value", 0.0)
    # In float32 as everybody else where the last bit decides which neighbour is nearer, or what is outside.
    cut = transform == "tf_crop_and_resize"
    precision = np.float32 if mode == "nearest" or cut else np.float64
    coordinates = [_coordinates(axis, transform, precision) for axis in axes]
    beyond = [
        (c < 0) | (c > axis.size - 1) if cut else np.zeros(len(c), bool)
        for c, axis in zip(coordinates, axes, strict=True)
    ]
    if mode == "nearest":
        tables: list[list[int]] = [[] for _ in axes]
        for index, axis in enumerate(axes):
            if axis.out != axis.size or axis.scale != 1.0 or cut:
                places = _nearest(coordinates[index], rounding).clip(0, axis.size - 1)
                tables[index] = [int(p) for p in np.where(beyond[index], -1, places)]
        fill = zero(x.dtype) + np.asarray(outside, x.dtype)
        return [nd.gather(dense(x, call.threads), tables, fill, call.threads)]
    y = call.dense(0)
    antialias, exclude = bool(call.attribute("antialias", 0)), bool(call.attribute("exclude_outside", 0))
    for index, axis in enumerate(axes):
        if axis.out == axis.size and axis.scale == 1.0 and not cut:
            continue
        places, weights = _weights(
            coordinates[index], axis, mode, float(call.attribute("cubic_coeff_a", -0.75)), antialias, exclude
        )
        shape = y.shape
        planes = y.reshape(math.prod(shape[:index]), shape[index], -1)
        y = nd.resample(planes, places, weights, call.threads).reshape(*shape[:index], axis.out, *shape[index + 1 :])
    if any(flags.any() for flags in beyond):
        tables = [[-1 if flag else place for place, flag in enumerate(flags)] for flags in beyond]
        y = nd.gather(y, tables, np.full(1, outside, np.float32), call.threads)
    return [y]


def _axes(call: Call) -> list[Axis]:
    """What becomes of each axis."""
    x = call[0]
    rank = x.ndim
    if call.node.op == "Upsample" or call.opset < 11:
        given = call.get(1)
        scales = call.attribute("scales") if given is None else given.reshape(-1)
        return [_scaled(size, float(scale)) for size, scale in zip(x.shape, scales, strict=True)]
    named = call.attribute("axes")
    places = list(range(rank)) if named is None else [normal_axis(axis, rank) for axis in named]
    axes = [Axis(size, size, 1.0) for size in x.shape]
    roi, scales, sizes = (call.get(index) for index in (1, 2, 3))
    if sizes is not None and sizes.size:
        wanted = [int(size) for size in sizes.reshape(-1)]
        ratios = [size / max(x.shape[place], 1) for size, place in zip(wanted, places, strict=True)]
        policy = call.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(ratios)
            wanted = [math.floor(ratio * x.shape[place] + 0.5) for place in places]
        for place, size, ratio in zip(places, wanted, ratios, strict=True):
            axes[place] = Axis(x.shape[place], size, ratio)
    elif scales is not None and scales.size:
        for place, scale in zip(places, scales.reshape(-1), strict=True):
            axes[place] = _scaled(x.shape[place], float(scale))
    else:
        raise ValueError("Resize has neither scales nor sizes")
    if call.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        if roi is None or roi.size != 2 * len(places):
            raise ValueError("tf_crop_and_resize needs a roi of two numbers an axis")
        for index, place in enumerate(places):
            part = (float(roi.reshape(-1)[index]), float(roi.reshape(-1)[index + len(places)]))
            axes[place] = Axis(axes[place].size, axes[place].out, axes[place].scale, part)
    return axes


def _scaled(size: int, scale: float) -> Axis:
    if not (math.isfinite(scale) and scale > 0) or size * scale > MAX_ELEMENTS:
        raise ValueError(f"a scale is {scale}, must be above 0 and the result's size below 2^31")
    # In float32 as elsewhere: 10 times the float nearest to 0.7 is 7 there, and a bit less in float64.
    return Axis(size, math.floor(np.float32(size) * np.float32(scale)), scale)


def _coordinates(axis: Axis, transform: str, precision: type[np.floating[Any]]) -> Float64:
    """Where in the input the centre of each output lies, in arithmetic of that precision."""
    x = np.arange(axis.out, dtype=precision)
    scale = precision(axis.scale)
    wide = scale * precision(axis.size)
    last = precision(axis.size - 1)
    half = precision(0.5)
    match transform:
        case "align_corners":
            # The suite of the package onnx takes the size before it is rounded here, other than the cases below.
            return np.asarray(x * last / (wide - 1) if wide != 1 else np.zeros(axis.out), np.float64)
        case "asymmetric":
            return np.asarray(x / scale, np.float64)
        case "half_pixel":
            return np.asarray((x + half) / scale - half, np.float64)
        case "pytorch_half_pixel":
            return np.asarray((x + half) / scale - half if axis.out > 1 else np.zeros(axis.out), np.float64)
        case "half_pixel_symmetric":
            shift = precision(axis.size) * half * (1 - precision(axis.out) / wide)
            # Only the sum is rounded: step by step, exact ties fall otherwise than elsewhere.
            places = np.float64(shift) + ((np.arange(axis.out) + 0.5) / np.float64(scale) - 0.5)
            return np.asarray(places.astype(precision), np.float64)
        case "tf_half_pixel_for_nn":
            return np.asarray((x + half) / scale, np.float64)
        case "tf_crop_and_resize":
            first, end = (precision(place) for place in axis.roi)
            if axis.out == 1:
                return np.full(1, half * (first + end) * last, np.float64)
            return np.asarray(first * last + x * (end - first) * last / precision(axis.out - 1), np.float64)
    raise NotNativeError(f"its coordinate_transformation_mode is {transform}")


def _nearest(x: Float64, rounding: str) -> Any:
    match rounding:
        case "round_prefer_floor":
            return np.ceil(x - 0.5).astype(np.int64)
        case "round_prefer_ceil":
            return np.floor(x + 0.5).astype(np.int64)
        case "floor":
            return np.floor(x).astype(np.int64)
        case "ceil":
            return np.ceil(x).astype(np.int64)
    raise NotNativeError(f"its nearest_mode is {rounding}")


def _weights(
    x: Float64, axis: Axis, mode: str, a: float, antialias: bool, exclude: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each output, the inputs that take part and their weights: [out, taps] each. The borders repeat."""
    reach = 1 if mode == "linear" else 2
    # To antialias is to widen the filter where the image gets smaller.
    squeeze = min(axis.scale, 1.0) if antialias else 1.0
    half = math.ceil(reach / squeeze)
    offsets = np.arange(-half + 1, half + 1)
    places = np.floor(x).astype(np.int64)[:, np.newaxis] + offsets
    distance = np.abs(places - x[:, np.newaxis]) * squeeze
    if mode == "linear":
        weights = (1 - distance).clip(0)
    else:
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    if exclude:
        weights = np.where((places < 0) | (places >= axis.size), 0.0, weights)
    if antialias or exclude:
        weights /= weights.sum(axis=1, keepdims=True)
    return places.clip(0, axis.size - 1), weights.astype(np.float32)
