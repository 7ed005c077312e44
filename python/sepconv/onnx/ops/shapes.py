"""Shapes of results that the package onnx's shape inference gets wrong, or not at all."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.geometry import kernel_of, transposed_windows, windows
from sepconv.onnx.ir import Graph, Node, NotNativeError


def own_shape(node: Node, graph: Graph) -> tuple[int, ...] | None:
    """The shape of a node's first result, of a few operators; None where it is not known.

    The inference counts windows of ``ceil_mode`` that begin behind the image, adds ``output_padding`` to what
    ``auto_pad`` asks for, and stretches the slope of a PRelu but not its input.
    """
    inputs = [graph.shape(name) for name in node.inputs[:2]]
    if node.domain or node.op not in _OPERATORS or not inputs or inputs[0] is None:
        return None
    shape = inputs[0]
    try:
        if node.op == "PRelu":
            return None if inputs[1] is None else tuple(np.broadcast_shapes(shape, inputs[1]))
        if node.op != "ConvTranspose":
            return (*shape[:2], *windows(node, shape[2:], kernel_of(node)).out)
        weight = inputs[1]
        if weight is None or len(weight) != len(shape) or len(shape) < 3:
            return None
        channels = weight[1] * int(node.attribute("group", 1))
        return (shape[0], channels, *transposed_windows(node, shape[2:], list(weight[2:])).out)
    except (ValueError, IndexError, NotNativeError):
        return None  # running it will say what is wrong


_OPERATORS = frozenset({"MaxPool", "AveragePool", "LpPool", "ConvTranspose", "PRelu"})
