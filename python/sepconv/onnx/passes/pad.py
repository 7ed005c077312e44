"""A Pad with zeros before a convolution becomes part of its padding."""

from __future__ import annotations

from sepconv.onnx.ir import Graph
from sepconv.onnx.lowering import spatial_padding
from sepconv.onnx.passes.rewrite import Uses


def run(graph: Graph) -> str:
    uses = Uses(graph)
    dead: set[int] = set()
    for node in graph.nodes:
        if not node.is_op("Conv") or node.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            continue
        before = uses.producer(node.inputs[0], "Pad")
        padding = None if before is None or not uses.only_for(node.inputs[0]) else spatial_padding(graph, before)
        if before is None or padding is None:
            continue
        own = node.attribute("pads") if node.attribute("auto_pad", "NOTSET") == "NOTSET" else None
        total = [*padding[0], *padding[1]]
        if own is not None and len(own) != len(total):
            continue
        node.attributes["pads"] = [a + b for a, b in zip(total, own or [0] * len(total), strict=True)]
        node.attributes.pop("auto_pad", None)
        node.proto = None
        node.inputs[0] = before.inputs[0]
        node.origin = (*before.origin, *node.origin)
        dead.add(id(before))
    graph.remove(dead)
    return f"{len(dead)} Pad(s) are part of the convolution behind" if dead else ""
