"""An activation behind a convolution or a product becomes part of it."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import Graph, Node
from sepconv.onnx.ops.elementwise import activation_name
from sepconv.onnx.passes.rewrite import Uses, output_channels, scale_weights


def run(graph: Graph) -> str:
    uses = Uses(graph)
    dead: set[int] = set()
    for node in graph.nodes:
        if not node.inputs or not uses.only_for(node.inputs[0]):
            continue
        before = uses.producer(node.inputs[0], "Conv", "ConvTranspose", "Gemm", "MatMul", "Linear")
        if before is None or graph.info(node.inputs[0]).dtype != np.float32:
            continue
        kind = activation_name(node)
        if node.is_op("HardSigmoid") and _rescale(graph, before, node):
            kind = "hard_sigmoid"
        if kind is None:
            continue
        uses.merge(before, node)
        before.activation = kind
        dead.add(id(node))
    graph.remove(dead)
    return f"{len(dead)} activation(s) fused" if dead else ""


def _rescale(graph: Graph, before: Node, node: Node) -> bool:
    """Any slope and offset are those of clip((y + 3) / 6, 0, 1) with another y."""
    alpha, beta = float(node.attribute("alpha", 0.2)), float(node.attribute("beta", 0.5))
    channels = output_channels(graph, before)
    if channels is None:
        return False
    return scale_weights(graph, before, np.full(channels, 6 * alpha), np.full(channels, 6 * beta - 3))
