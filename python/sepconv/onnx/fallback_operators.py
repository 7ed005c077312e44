"""Operators that the package onnx's reference implementation gets wrong: rightly, or refused where it has no way.

Graphs within nodes and functions run on them too.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import numpy as np

from sepconv.errors import UnsupportedError
from sepconv.onnx.fallback_base import op_run, ops, reference
from sepconv.onnx.fallback_control import Loop, Scan
from sepconv.onnx.fallback_native import on_our_kernels
from sepconv.onnx.fallback_recurrent import GRU, LSTM, RNN
from sepconv.onnx.fallback_windows import (
    LRN,
    AveragePool,
    ConvTranspose,
    GlobalAveragePool,
    GlobalLpPool,
    LpPool,
    MaxPool,
)
from sepconv.onnx.ir import Array


class _Operator(op_run.OpRun):  # type: ignore[name-defined,misc]
    """Knows its opset: the package takes the newest one's defaults."""

    def __init__(self, node: Any, params: dict[str, Any]) -> None:
        super().__init__(node, params)
        self.opset: int = params["opsets"].get("", 1)
        self.given = {attribute.name for attribute in node.attribute}
        self.count = len(node.output)


class _Rows(_Operator):
    """Along an axis; before opset 13 everything from the axis on, by default 1, is one row."""

    def _run(self, x: Array, axis: int) -> tuple[Array]:
        if x.size == 0:
            return (x,)
        if self.opset >= 13:
            return (self.rows(x, axis).astype(x.dtype),)
        axis = axis if "axis" in self.given else 1
        rows = x.reshape(int(np.prod(x.shape[:axis] if axis else ())), -1)
        return (self.rows(rows, 1).reshape(x.shape).astype(x.dtype),)

    def rows(self, x: Array, axis: int) -> Array:
        raise NotImplementedError


class Hardmax(_Rows):
    def rows(self, x: Array, axis: int) -> Array:
        y = np.zeros_like(x)
        np.put_along_axis(y, np.expand_dims(np.argmax(x, axis), axis), 1, axis)
        return y


class Softmax(_Rows):
    def rows(self, x: Array, axis: int) -> Array:
        powers = np.exp(x - x.max(axis, keepdims=True))
        y: Array = powers / powers.sum(axis, keepdims=True)
        return y


class LogSoftmax(_Rows):
    def rows(self, x: Array, axis: int) -> Array:
        shifted = x - x.max(axis, keepdims=True)
        y: Array = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
        return y


class LpNormalization(_Operator):
    def _run(self, x: Array, axis: int, p: int) -> tuple[Array]:
        wide = x.astype(np.result_type(x, np.float32))  # squares of float16 overflow
        norm = (np.abs(wide) ** p).sum(axis, keepdims=True) ** (1 / p)
        return (np.divide(wide, norm, out=np.zeros_like(wide), where=norm != 0).astype(x.dtype),)


class BatchNormalization(ops.BatchNormalization_14):  # type: ignore[name-defined,misc]
    def __init__(self, node: Any, params: dict[str, Any]) -> None:
        super().__init__(node, params)
        opset, values = params["opsets"].get("", 1), {attribute.name: attribute.i for attribute in node.attribute}
        if opset < 9 and not values.get("spatial", 1):
            raise UnsupportedError("BatchNormalization with the attribute spatial=0, must be 1")
        if opset < 14 and (len(node.output) > 1 or (opset < 7 and not values.get("is_test", 0))):
            raise UnsupportedError("BatchNormalization that trains, before opset 14")

    def _run(
        self, *inputs: Array, epsilon: float, momentum: float, training_mode: int = 0, **_: Any
    ) -> tuple[Array, ...]:
        # Before opset 14 it does not train here, which the package takes any momentum for.
        results: tuple[Array, ...] = super()._run(
            *inputs, epsilon=epsilon, momentum=momentum, training_mode=training_mode
        )
        return results


class RoiAlign(ops.RoiAlign):  # type: ignore[name-defined,misc]
    def __init__(self, node: Any, params: dict[str, Any]) -> None:
        super().__init__(node, params)
        if params["opsets"].get("", 1) < 16:  # which has no choice
            self.coordinate_transformation_mode = "output_half_pixel"


class GridSample(ops.GridSample):  # type: ignore[name-defined,misc]
    def __init__(self, node: Any, params: dict[str, Any]) -> None:
        super().__init__(node, params)
        mode: Any = self.mode
        self.mode: Any = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)  # their names at opset 16

    def _clamp(self, value: Any, low: int, high: int) -> Any:
        """Places of elements, which are whole; not the point between them that a cubic is taken at."""
        if self.mode == "cubic" and isinstance(value, np.floating):
            return value
        return min(max(value, low), high)

    def _gs_reflect(self, x: Any, x_min: float, x_max: float) -> Any:
        return super()._gs_reflect(x, x_min, x_max) if x_max > x_min else x_min  # an axis of one element


class Mean(op_run.OpRun):  # type: ignore[name-defined,misc]
    def _run(self, *arrays: Array) -> tuple[Array]:
        total = reduce(np.add, arrays[1:], arrays[0].astype(np.result_type(arrays[0], np.float32)))
        return ((total / len(arrays)).astype(arrays[0].dtype),)


class Softsign(op_run.OpRun):  # type: ignore[name-defined,misc]
    def _run(self, x: Array) -> tuple[Array]:
        return (np.asarray(x / (1 + np.abs(x)), x.dtype),)


class Resize(ops.Resize):  # type: ignore[name-defined,misc]
    """At opset 10 the second input is the scales."""

    def __init__(self, node: Any, params: dict[str, Any]) -> None:
        super().__init__(node, params)
        self.old: bool = params["opsets"].get("", 1) < 11

    def _run(self, x: Array, roi: Array | None, scales: Array | None = None, *rest: Any, **attributes: Any) -> Any:
        if self.old:
            roi, scales = None, roi
            attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return super()._run(x, roi, scales, *rest, **attributes)


class GatherElements(_Operator):
    def _run(self, data: Array, indices: Array, axis: int) -> tuple[Array]:
        places = list(np.ogrid[tuple(slice(size) for size in indices.shape)])  # indices may be smaller than data
        size = data.shape[axis]
        if indices.size and not -size <= indices.min() <= indices.max() < size:
            raise ValueError(f"an index is not within the axis of {size} elements")
        places[axis] = indices
        return (data[tuple(places)],)


class Scatter(ops.ScatterElements):  # type: ignore[name-defined,misc]
    """What ScatterElements was called before opset 11."""

    def _run(self, data: Array, indices: Array, updates: Array, axis: int) -> Any:
        return super()._run(data, indices, updates, axis=axis)


class DequantizeLinear(_Operator):
    """That before opset 19, which the package lacks."""

    def __new__(cls, node: Any, params: dict[str, Any]) -> Any:
        opset = params["opsets"].get("", 1)
        return super().__new__(cls) if opset < 19 else ops.load_op("", node.op_type, opset)(node, params)

    def _run(self, x: Array, scale: Array, zero: Array | None = None, axis: int = 1, **_: Any) -> tuple[Array]:
        shape = [1] * x.ndim
        if scale.size > 1:
            shape[axis] = scale.size
        shifted = x.astype(np.float32) - (0 if zero is None else zero.astype(np.float32).reshape(shape))
        return ((shifted * scale.reshape(shape)).astype(np.float32),)


class Optional(op_run.OpRun):  # type: ignore[name-defined,misc]
    def _run(self, x: Any = None, **_: Any) -> tuple[Any]:
        return (x,)  # of the package a list of it, which its other operators take for a sequence


class CumSum(ops.CumSum):  # type: ignore[name-defined,misc]
    def _run(self, x: Array, axis: Array, **attributes: Any) -> Any:
        return super()._run(x, axis.reshape(()), **attributes)  # exporters also write [axis]


class OneHot(ops.OneHot):  # type: ignore[name-defined,misc]
    def _run(self, indices: Array, depth: Array, values: Array, **attributes: Any) -> Any:
        return super()._run(indices, depth.reshape(()), values, **attributes)  # exporters also write [depth]


class NonMaxSuppression(ops.NonMaxSuppression):  # type: ignore[name-defined,misc]
    """Limits may be left out, and be of no axes."""

    def _run(
        self,
        boxes: Array,
        scores: Array,
        most: Array | None = None,
        overlap: Array | None = None,
        least: Array | None = None,
        **attributes: Any,
    ) -> Any:
        if most is None or most.reshape(-1)[0] <= 0:
            return (np.empty((0, 3), np.int64),)
        overlap = np.zeros(1, np.float32) if overlap is None else overlap.reshape(1)
        least = None if least is None else least.reshape(1)
        return super()._run(boxes, scores, most.reshape(1), overlap, least, **attributes)


class NegativeLogLikelihoodLoss(ops.NegativeLogLikelihoodLoss):  # type: ignore[name-defined,misc]
    def _run(self, x: Array, target: Array, weight: Array | None = None, **attributes: Any) -> Any:
        if attributes.get("ignore_index") == -1:  # which the package takes for none; no class is below 0
            attributes["ignore_index"], target = -2, np.where(target == -1, -2, target)
        return super()._run(x, target, weight, **attributes)


class Unique(_Operator):
    def _run(self, x: Array, axis: int | None, sorted: int) -> tuple[Array, ...]:  # the package's names
        y, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
        inverse = inverse.reshape(-1)
        if not sorted:  # as they first appear
            order = np.argsort(first)
            y, first, counts = np.take(y, order, axis or 0), first[order], counts[order]
            inverse = np.argsort(order)[inverse]
        return (y, first, inverse, counts)[: self.count]


OPERATORS = [
    AveragePool, BatchNormalization, ConvTranspose, CumSum, DequantizeLinear, GRU, GatherElements, GlobalAveragePool,
    GlobalLpPool, GridSample, Hardmax, LRN, LSTM, LogSoftmax, Loop, LpNormalization, LpPool, MaxPool, Mean,
    NegativeLogLikelihoodLoss, NonMaxSuppression, OneHot, Optional, RNN, Resize, RoiAlign, Scan, Scatter, Softmax,
    Softsign, Unique,
]  # fmt: skip


class Evaluator(reference.ReferenceEvaluator):  # type: ignore[name-defined,misc]
    """The package's, with these operators; it makes others of its class for functions and for graphs within.

    Our kernels run what they can of those: the package's operators are slow, and wrong in more than these.
    """

    def __init__(self, proto: Any, **options: Any) -> None:
        super().__init__(proto, **{**options, "new_ops": OPERATORS})

    def _load_impl(self, node: Any, input_types: Any = None) -> Any:
        try:
            make = super()._load_impl(node, input_types)
        except op_run.RuntimeContextError:
            if input_types is not None or self.all_types_:
                raise
            # In a function types are known when it runs.
            make = partial(op_run.OpFunctionContextDependant, parent=self)

        def made(proto: Any, params: Any) -> Any:
            function = self.functions_.get((proto.domain, proto.op_type))
            if function is not None:  # its last inputs may be left out
                proto.input.extend([""] * (len(function.input_names) - len(proto.input)))
            return on_our_kernels(make(proto, params), proto, self.opsets.get("", 1))

        return made
