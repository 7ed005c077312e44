"""Poolings, and sliding windows as layers say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sepconv.graph import AveragePool2d, GlobalAveragePool, MaxPool2d, Padding
from sepconv.onnx.geometry import Windows, kernel_of, windows
from sepconv.onnx.ir import Node, NotNativeError
from sepconv.onnx.lowering.base import Lowering, NotInPlanError, layer_shape, lowers


def pads_of(space: Windows, *, extra: bool = False) -> Padding:
    end = [e + (x if extra else 0) for e, x in zip(space.end, space.extra, strict=True)]
    pairs = [(begin, after) for begin, after in zip(space.begin, end, strict=True)]
    rows = pairs[0] if len(pairs) == 2 else (0, 0)
    return rows, pairs[-1]


def pair_of(numbers: Sequence[int]) -> tuple[int, int]:
    """Vertical and horizontal; of one axis, the horizontal."""
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (1, numbers[0])


@lowers("MaxPool", "AveragePool")
def _pool(lowering: Lowering, node: Node) -> None:
    shape = lowering.shape(node.inputs[0])
    if len(shape) not in (3, 4):
        raise NotInPlanError(f"a pooling of rank {len(shape)}")
    try:
        space = windows(node, shape[2:], kernel_of(node))
    except NotNativeError as error:
        raise NotInPlanError(str(error)) from None
    if any(d != 1 for d in space.dilation):
        raise NotInPlanError("a pooling with dilation")
    kernel, padding = pair_of(space.kernel), pads_of(space, extra=True)
    if any(max(pads) >= size for pads, size in zip(padding, kernel, strict=True)):
        raise NotInPlanError("a pooling whose windows can lie in the padding alone")
    arguments: dict[str, Any] = {
        "kernel": kernel,
        "stride": pair_of(space.stride),
        "padding": padding,
        "activation": node.activation,
    }
    if node.op == "MaxPool":
        lowering.emit(node, MaxPool2d, **arguments)
        return
    include = bool(node.attribute("count_include_pad", 0))
    if include and any(space.extra):
        raise NotInPlanError("an average over padding that ceil_mode adds to")
    lowering.emit(node, AveragePool2d, include_padding=include, **arguments)


@lowers("GlobalAveragePool")
def _global_average(lowering: Lowering, node: Node) -> None:
    lowering.shape(node.inputs[0])
    lowering.emit(node, GlobalAveragePool)


@lowers("GlobalMaxPool")
def _global_max(lowering: Lowering, node: Node) -> None:
    h, w, _ = layer_shape(lowering.shape(node.inputs[0]))
    lowering.emit(node, MaxPool2d, kernel=(h, w), stride=(1, 1))
