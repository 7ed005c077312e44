"""A product of two computed operands reads them where they lie before a transposition."""

from __future__ import annotations

import numpy as np

from sepconv.onnx.ir import OWN_DOMAIN, Graph
from sepconv.onnx.passes.rewrite import Uses


def run(graph: Graph) -> str:
    uses = Uses(graph)
    dead: set[int] = set()
    for node in graph.nodes:
        if not node.is_op("MatMul") or any(name in graph.constants for name in node.inputs):
            continue
        infos = [graph.info(name) for name in node.inputs]
        if any(info.dtype != np.float32 or len(info.shape or ()) < 2 for info in infos):
            continue
        orders = [list(range(len(info.shape or ()))) for info in infos]
        found = []
        for place, name in enumerate(node.inputs):
            before = uses.producer(name, "Transpose")
            if before is None or not uses.only_for(name) or before.inputs[0] in graph.constants:
                continue
            rank = len(orders[place])
            order = before.attribute("perm", list(range(rank))[::-1])
            if sorted(order) != list(range(rank)):
                continue
            orders[place] = list(order)
            node.inputs[place] = before.inputs[0]
            found.append(before)
        if found:
            node.op, node.domain, node.proto = "Product", OWN_DOMAIN, None
            node.attributes = {"left": orders[0], "right": orders[1]}
            node.origin = (*(name for before in found for name in before.origin), *node.origin)
            dead.update(map(id, found))
    graph.remove(dead)
    return f"{len(dead)} transposition(s) read in place" if dead else ""
