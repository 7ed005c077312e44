"""Reshape, Transpose, Reshape that interleave groups of channels are one shuffle."""

from __future__ import annotations

from sepconv.onnx.ir import OWN_DOMAIN, Graph, Node
from sepconv.onnx.passes.rewrite import Uses


def run(graph: Graph) -> str:
    uses = Uses(graph)
    count = 0
    for index, node in enumerate(graph.nodes):
        groups = _groups(uses, node)
        if groups is None:
            continue
        x, number = groups
        uses.put(index, Node("ChannelShuffle", [x], [], {"groups": number}, domain=OWN_DOMAIN))
        count += 1
    return f"{count} shuffle(s) of channels" if count else ""


def _groups(uses: Uses, node: Node) -> tuple[str, int] | None:
    """(x, groups) where a Reshape ends a shuffle of x."""
    if not node.is_op("Reshape"):
        return None
    transpose = uses.producer(node.inputs[0], "Transpose")
    first = None if transpose is None else uses.producer(transpose.inputs[0], "Reshape")
    if transpose is None or first is None or transpose.attribute("perm") not in ([0, 2, 1, 3], [0, 2, 1, 3, 4]):
        return None
    shapes = [uses.graph.info(name).shape for name in (first.inputs[0], first.outputs[0], node.outputs[0])]
    if any(shape is None for shape in shapes):
        return None
    before, split, after = (shape or () for shape in shapes)
    dtype = uses.graph.info(first.inputs[0]).dtype
    if None in (*before, *after) or dtype is None or dtype.hasobject:
        return None
    if len(before) < 3 or len(after) != len(before) or before != after or len(split) not in (4, 5):
        return None
    groups, inner = split[1], split[2]
    if (
        not isinstance(groups, int)
        or not isinstance(inner, int)
        or before[1] != groups * inner
        or before[0] != split[0]
    ):
        return None
    return (first.inputs[0], groups)
