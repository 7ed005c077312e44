"""A BatchNormalization behind a convolution or a product becomes part of its weights, in float64."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import Graph, Node
from sepconv.onnx.ops.elementwise import batch_norm_factors, trains
from sepconv.onnx.passes.rewrite import Float64, Uses, add_term, are_plain, output_channels, scale_weights


def run(graph: Graph) -> str:
    uses = Uses(graph)
    dead: set[int] = set()
    for node in graph.nodes:
        if not node.is_op("BatchNormalization") or trains(node) or any(node.outputs[1:]):
            continue
        before = uses.producer(node.inputs[0], "Conv", "ConvTranspose", "Gemm", "Flatten", "Reshape")
        arrays = [graph.constant(name) for name in node.inputs[1:5]]
        if before is None or not uses.only_for(node.inputs[0]) or any(array is None for array in arrays):
            continue
        statistics = [np.asarray(array, np.float64) for array in arrays]
        product = _product_of_rows(graph, uses, before)
        target, scales = (before, scale_weights) if product is None else (product, _scale_columns)
        channels = (output_channels(graph, target),)
        if any(array.shape != channels for array in statistics):
            continue
        if not scales(graph, target, *batch_norm_factors(node, *statistics)):
            continue
        uses.merge(before, node)
        dead.add(id(node))
    graph.remove(dead)
    return f"{len(dead)} BatchNormalization(s) folded" if dead else ""


def _product_of_rows(graph: Graph, uses: Uses, node: Node) -> Node | None:
    """The product with constant weights of which a reshape alone reads the result, and puts its rows together."""
    product, shape = uses.producer(node.inputs[0], "MatMul"), graph.info(node.outputs[0]).shape
    if product is None or not node.is_op("Flatten", "Reshape") or not uses.only_for(node.inputs[0]):
        return None
    if graph.info(product.inputs[0]).dtype != np.float32 or shape is None or len(shape) != 2:
        return None
    return product if shape[1] == output_channels(graph, product) else None


def _scale_columns(graph: Graph, product: Node, scale: Float64, shift: Float64) -> bool:
    """Make a product give scale·y + shift. False: it cannot."""
    scaled = graph.constants[product.inputs[1]] * scale
    if not are_plain(scale, shift, scaled):
        return False
    product.inputs[1] = graph.add_constant(f"{product.outputs[0]}.weight", scaled.astype(np.float32))
    add_term(graph, product, shift.astype(np.float32))
    return True
