"""A layer normalisation written as means, a difference, a root and a quotient: over the last axis or channels."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import OWN_DOMAIN, Array, Graph, Node
from sepconv.onnx.passes import dead_code
from sepconv.onnx.passes.rewrite import Uses


def run(graph: Graph) -> str:
    uses = Uses(graph)
    readers = {name: node for node in graph.nodes for name in node.reads() if uses.only_for(name)}
    made: dict[int, Node] = {}
    for node in graph.nodes:
        found = _normalised(uses, node)
        if found is None:
            continue
        x, channels, last, epsilon = found
        final, scale = _next(graph, readers, node, "Mul", channels, last)
        final, bias = _next(graph, readers, final, "Add", channels, last)
        ones = np.broadcast_to(np.float32(1), (channels,))  # takes no memory
        constants = [ones if scale is None else scale, *([] if bias is None else [bias])]
        names = [graph.add_constant(f"{node.outputs[0]}/{key}", a) for key, a in zip("sb", constants, strict=False)]
        made[id(final)] = Node(
            "LayerNormalization" if last else "LayerNorm",
            [x, *names],
            [final.outputs[0]],
            {"epsilon": epsilon, **({"axis": -1} if last else {})},
            name=node.name,
            domain="" if last else OWN_DOMAIN,
            origin=node.origin,
            opset=node.opset,
        )
    graph.nodes = [made.get(id(node), node) for node in graph.nodes]
    if made:
        dead_code.run(graph)
    return f"{len(made)} layer normalisation(s) found" if made else ""


def _normalised(uses: Uses, node: Node) -> tuple[str, int, bool, float] | None:
    """x, its channels, whether they are the last axis, and epsilon, of d / √(mean of d² + epsilon), d = x - mean."""
    if not node.is_op("Div"):
        return None
    x = _centered(uses, node.inputs[0])
    root = uses.producer(node.inputs[1], "Sqrt")
    total = None if root is None else uses.producer(root.inputs[0], "Add")
    if x is None or total is None:
        return None
    for value, number in (total.inputs, total.inputs[::-1]):
        epsilon = uses.graph.scalar(number)
        variance = uses.producer(value, "ReduceMean")
        square = None if variance is None else uses.producer(variance.inputs[0], "Pow", "Mul")
        if epsilon is None or epsilon < 0 or variance is None or square is None or uses.graph.adds_axes(value, number):
            continue
        two = uses.graph.scalar(square.inputs[1]) if square.op == "Pow" else None
        grown = square.op == "Pow" and uses.graph.adds_axes(*square.inputs[:2])
        squared = square.inputs[0] == square.inputs[1] if square.op == "Mul" else two == 2.0 and not grown
        info = uses.graph.info(x[0])
        axis, channels = _axis(uses.graph, variance), (info.shape or ())[x[1]]
        if (
            squared
            and _centered(uses, square.inputs[0]) == x
            and axis == x[1]
            and isinstance(channels, int)
            and channels > 0
        ):
            return x[0], channels, axis == len(info.shape or ()) - 1, epsilon
    return None


def _centered(uses: Uses, value: str) -> tuple[str, int] | None:
    """x and the axis of x - mean(x)."""
    node = uses.producer(value, "Sub")
    mean = None if node is None else uses.producer(node.inputs[1], "ReduceMean")
    if node is None or mean is None or mean.inputs[0] != node.inputs[0]:
        return None
    axis = _axis(uses.graph, mean)
    return None if axis is None else (node.inputs[0], axis)


def _axis(graph: Graph, node: Node) -> int | None:
    """The one axis of a mean that keeps it: the last, or that of an image's channels; float32 alone."""
    info = graph.info(node.inputs[0])
    axes = graph.constant(node.input(1)) if node.input(1) else node.attribute("axes")
    if info.dtype != np.float32 or info.shape is None or not node.attribute("keepdims", 1):
        return None
    if axes is None or np.shape(axes) != (1,) or not -len(info.shape) <= int(axes[0]) < len(info.shape):
        return None
    axis = int(axes[0]) % len(info.shape)
    return axis if axis == len(info.shape) - 1 or (axis == 1 and len(info.shape) == 4) else None


def _next(
    graph: Graph, readers: dict[str, Node], node: Node, op: str, channels: int, last: bool
) -> tuple[Node, Array | None]:
    """The node behind, if it alone reads this one and has a constant for each channel; and that constant."""
    reader = readers.get(node.outputs[0])
    if reader is None or not reader.is_op(op):
        return node, None
    array = graph.constant(reader.inputs[1 if reader.inputs[0] == node.outputs[0] else 0])
    rank = len(graph.info(node.outputs[0]).shape or ())
    shape = (1,) * (rank - 1) + (channels,) if last else (1, channels, 1, 1)
    if array is None or array.dtype != np.float32 or array.size != channels or array.ndim > rank:
        return node, None
    if (1,) * (rank - array.ndim) + array.shape != shape:
        return node, None
    return reader, array.reshape(-1)
