"""Loop and Scan as the operators are written; the package onnx's reference implementation runs the graphs within."""

from __future__ import annotations

from typing import Any

import numpy as np

from sepconv.errors import UnsupportedError
from sepconv.onnx.fallback_base import ops
from sepconv.onnx.ir import Array


def _stacked(body: Any, index: int, parts: list[Array], axis: int = 0) -> Array:
    """What each round gave of the body's output, along a new axis; of no rounds, as far as the body says its shape."""
    import onnx

    if parts:
        return np.stack(parts, axis)
    declared = body.output_types[index].tensor_type
    sizes = [dim.dim_value for dim in declared.shape.dim]
    axis %= len(sizes) + 1
    dtype = onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type or onnx.TensorProto.FLOAT)
    return np.empty([*sizes[:axis], 0, *sizes[axis:]], dtype)


class Loop(ops.Loop):  # type: ignore[name-defined,misc]
    def _run(
        self,
        most: Array | None,
        condition: Array | None = None,
        *carried: Any,
        context: Any = None,
        body: Any = None,
        attributes: Any = None,
        **options: Any,
    ) -> tuple[Any, ...]:
        names, count = body.input_names, len(body.input_names) - 2
        values, on, trip = list(carried), condition is None or bool(condition.item()), 0
        scanned: list[list[Array]] = [[] for _ in body.output_names[1 + count :]]
        while on and (most is None or trip < most.item()):
            round_ = (np.array(trip, np.int64), np.array(on), *values)
            feeds = {**(context or {}), **dict(zip(names, round_, strict=True))}
            given = self._run_body(feeds, attributes=attributes, **options)
            on, values, trip = bool(given[0].item()), list(given[1 : 1 + count]), trip + 1
            for parts, part in zip(scanned, given[1 + count :], strict=True):
                parts.append(part)
        return (*values, *(_stacked(body, 1 + count + k, parts) for k, parts in enumerate(scanned)))


class Scan(ops.Scan):  # type: ignore[name-defined,misc]
    def __init__(self, node: Any, params: dict[str, Any]) -> None:
        if params["opsets"].get("", 1) < 9:
            raise UnsupportedError("Scan of opset 8, which has a batch")
        super(ops.Scan, self).__init__(node, params)  # its own refuses axes and directions

    def _run(
        self, *inputs: Array, context: Any = None, body: Any = None, attributes: Any = None, **_: Any
    ) -> tuple[Any, ...]:
        count = len(inputs) - self.num_scan_inputs
        values = list(inputs[:count])
        outputs = len(body.output_names) - count
        sequences = [
            np.moveaxis(x, axis, 0)[:: -1 if backwards else 1]
            for x, axis, backwards in zip(
                inputs[count:],
                self.scan_input_axes or [0] * self.num_scan_inputs,
                self.scan_input_directions or [0] * self.num_scan_inputs,
                strict=True,
            )
        ]
        if len({len(sequence) for sequence in sequences}) != 1:
            raise ValueError(f"it scans {[len(sequence) for sequence in sequences]} elements, must be as many of each")
        scanned: list[list[Array]] = [[] for _ in range(outputs)]
        for elements in zip(*sequences, strict=True):
            feeds = {**(context or {}), **dict(zip(body.input_names, (*values, *elements), strict=True))}
            given = self._run_body(feeds, attributes=attributes)
            values = list(given[:count])
            for parts, part in zip(scanned, given[count:], strict=True):
                parts.append(part)
        axes = self.scan_output_axes or [0] * outputs
        directions = self.scan_output_directions or [0] * outputs
        results = [
            _stacked(body, count + k, parts[:: -1 if backwards else 1], axis)
            for k, (parts, axis, backwards) in enumerate(zip(scanned, axes, directions, strict=True))
        ]
        return (*values, *results)
