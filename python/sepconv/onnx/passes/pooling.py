"""A mean over all of space is a GlobalAveragePool."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import Graph, Info, Node


def run(graph: Graph) -> str:
    nodes: list[Node] = []
    count = 0
    for node in graph.nodes:
        nodes.append(node)
        if not node.is_op("ReduceMean") or not _is_spatial(graph, node):
            continue
        count += 1
        pool = Node(
            "GlobalAveragePool",
            node.inputs[:1],
            list(node.outputs),
            name=node.name,
            origin=node.origin,
            opset=node.opset,
        )
        nodes[-1] = pool
        if not node.attribute("keepdims", 1):
            pool.outputs = [graph.new_name(f"{node.outputs[0]}/pooled")]
            nodes.append(
                Node(
                    "Flatten",
                    pool.outputs[:],
                    list(node.outputs),
                    {"axis": 1},
                    name=f"{node.name}/flat",
                    opset=node.opset,
                )
            )
            pooled, known = graph.info(node.outputs[0]), graph.info(node.inputs[0]).shape or ()
            graph.infos[pool.outputs[0]] = Info(pooled.dtype, (*known[:2], *(1,) * (len(known) - 2)))
    graph.nodes = nodes
    return f"{count} mean(s) over space are poolings" if count else ""


def _is_spatial(graph: Graph, node: Node) -> bool:
    shape = graph.info(node.inputs[0]).shape
    axes = graph.constant(node.input(1)) if node.input(1) else node.attribute("axes")
    if graph.info(node.inputs[0]).dtype != np.float32 or shape is None or axes is None or len(shape) not in (3, 4):
        return False
    if np.ndim(axes) != 1 or np.asarray(axes).dtype.kind != "i":
        return False
    places = sorted(int(axis) + (len(shape) if axis < 0 else 0) for axis in axes)
    return places == list(range(2, len(shape)))
