"""Pooling, LRN and ConvTranspose of numbers that our kernels do not take: the package onnx gives them wrongly."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from sepconv.onnx.fallback_base import op_run
from sepconv.onnx.geometry import Windows, transposed_windows, windows
from sepconv.onnx.ir import Array, Node


class _Pool(op_run.OpRun):  # type: ignore[name-defined,misc]
    def _run(self, x: Array, **attributes: Any) -> tuple[Array, ...]:
        node = Node(self.onnx_node.op_type, [], [], {k: v for k, v in attributes.items() if v is not None})
        return self.pool(x, windows(node, x.shape[2:], attributes["kernel_shape"]), attributes)

    def pool(self, x: Array, w: Windows, attributes: dict[str, Any]) -> tuple[Array, ...]:
        raise NotImplementedError


def _cut(x: Array, w: Windows, fill: Any, behind: Any) -> Array:
    """[n, c, *out, elements of a window]; ``behind``: what stands where ceil_mode alone has a window."""
    none = [(0, 0), (0, 0)]
    x = np.pad(x, none + list(zip(w.begin, w.end, strict=True)), constant_values=fill)
    x = np.pad(x, none + [(0, extra) for extra in w.extra], constant_values=behind)
    extents = [(kernel - 1) * step + 1 for kernel, step in zip(w.kernel, w.dilation, strict=True)]
    cut = np.lib.stride_tricks.sliding_window_view(x, extents, tuple(range(2, x.ndim)))
    places = [slice(0, count * step, step) for count, step in zip(w.out, w.stride, strict=True)]
    index: Any = (..., *places, *(slice(None, None, step) for step in w.dilation))
    cut = cut[index]
    flat: Array = cut.reshape(*cut.shape[: x.ndim], -1)
    return flat


class MaxPool(_Pool):
    def pool(self, x: Array, w: Windows, attributes: dict[str, Any]) -> tuple[Array, ...]:
        least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        cut = _cut(x, w, least, least)
        if len(self.onnx_node.output) == 1:
            return (cut.max(-1),)
        order: Literal["C", "F"] = "F" if attributes.get("storage_order") else "C"
        within = np.arange(int(np.prod(w.sizes))).reshape(w.sizes, order=order)
        images = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1 for _ in w.sizes)) * within.size
        numbers = _cut(np.broadcast_to(within, x.shape) + images, w, 0, 0)
        best = cut.argmax(-1)[..., np.newaxis]
        return cut.max(-1), np.take_along_axis(numbers, best, -1)[..., 0].astype(np.int64)


class AveragePool(_Pool):
    def pool(self, x: Array, w: Windows, attributes: dict[str, Any]) -> tuple[Array, ...]:
        counts = _cut(np.ones((1, 1, *w.sizes), x.dtype), w, attributes.get("count_include_pad", 0), 0).sum(-1)
        return ((_cut(x, w, 0, 0).sum(-1) / counts).astype(x.dtype),)


class LpPool(_Pool):
    def pool(self, x: Array, w: Windows, attributes: dict[str, Any]) -> tuple[Array, ...]:
        p = attributes.get("p", 2)
        return (((np.abs(_cut(x, w, 0, 0)) ** p).sum(-1) ** (1 / p)).astype(x.dtype),)


class GlobalAveragePool(op_run.OpRun):  # type: ignore[name-defined,misc]
    def _run(self, x: Array) -> tuple[Array]:
        return (x.mean(tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(op_run.OpRun):  # type: ignore[name-defined,misc]
    def _run(self, x: Array, p: float) -> tuple[Array]:
        powers = np.abs(x.astype(np.float64)) ** p
        return ((powers.sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)).astype(x.dtype),)


class ConvTranspose(op_run.OpRun):  # type: ignore[name-defined,misc]
    """Of groups the package takes the wrong weights, and the first group's bias for each."""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        node = Node("ConvTranspose", [], [], {k: v for k, v in attributes.items() if v is not None})
        groups, w = int(node.attribute("group", 1)), transposed_windows(node, x.shape[2:], weight.shape[2:])
        if groups < 1 or x.shape[1] != weight.shape[0] or x.shape[1] % groups or min(w.begin) < 0:
            raise ValueError(f"x {x.shape}, weight {weight.shape}, group {groups} and pads {w.begin} do not fit")
        wide = np.result_type(x, np.float32)
        images = x.reshape(x.shape[0], groups, -1, *w.sizes).astype(wide)
        factors = weight.reshape(groups, -1, *weight.shape[1:]).astype(wide)
        # Every element of x adds its window; what lies before `begin` and behind `out` is cut.
        sizes = [
            max((size - 1) * stride + (kernel - 1) * dilation + 1, begin + out)
            for size, stride, kernel, dilation, begin, out in zip(
                w.sizes, w.stride, w.kernel, w.dilation, w.begin, w.out, strict=True
            )
        ]
        y = np.zeros((x.shape[0], groups, weight.shape[1], *sizes), wide)
        for offset in np.ndindex(w.kernel):
            places: Any = [
                slice(at * dilation, at * dilation + (size - 1) * stride + 1, stride)
                for at, dilation, size, stride in zip(offset, w.dilation, w.sizes, w.stride, strict=True)
            ]
            y[(..., *places)] += np.einsum("ngc...,gcm->ngm...", images, factors[(..., *offset)])
        cut: Any = [slice(begin, begin + out) for begin, out in zip(w.begin, w.out, strict=True)]
        y = y[(..., *cut)].reshape(x.shape[0], groups * weight.shape[1], *w.out)
        if bias is not None:
            y = y + bias.reshape(-1, *(1,) * len(w.out))
        return (y.astype(x.dtype),)


class LRN(op_run.OpRun):  # type: ignore[name-defined,misc]
    def _run(self, x: Array, alpha: float, beta: float, bias: float, size: int) -> tuple[Array]:
        half = (size - 1) // 2
        before, after = min(half, x.shape[1]), min(size - 1 - half, x.shape[1])  # the file may say any size
        squares = np.pad(x.astype(np.float64) ** 2, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
        sums = np.lib.stride_tricks.sliding_window_view(squares, before + after + 1, 1).sum(-1)
        return ((x / (bias + alpha / size * sums) ** beta).astype(x.dtype),)
