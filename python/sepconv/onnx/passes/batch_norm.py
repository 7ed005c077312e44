"""A BatchNormalization behind a convolution or a product becomes part of its weights, in float64."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import Graph
from sepconv.onnx.ops.elementwise import trains
from sepconv.onnx.passes.rewrite import Uses, output_channels, scale_weights


def run(graph: Graph) -> str:
    uses = Uses(graph)
    dead: set[int] = set()
    for node in graph.nodes:
        if not node.is_op("BatchNormalization") or trains(node) or any(node.outputs[1:]):
            continue
        before = uses.producer(node.inputs[0], "Conv", "ConvTranspose", "Gemm")
        arrays = [graph.constant(name) for name in node.inputs[1:5]]
        if before is None or not uses.only_for(node.inputs[0]) or any(array is None for array in arrays):
            continue
        gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
        channels = (output_channels(graph, before),)
        if any(array.shape != channels for array in (gamma, beta, mean, variance)):
            continue
        scale = gamma / np.sqrt(variance + float(node.attribute("epsilon", 1e-5)))
        if scale_weights(graph, before, scale, beta - mean * scale):
            uses.merge(before, node)
            dead.add(id(node))
    graph.remove(dead)
    return f"{len(dead)} BatchNormalization(s) folded" if dead else ""
