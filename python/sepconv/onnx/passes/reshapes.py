"""A reshape goes that gives a value a shape which it has already, before other reshapes or from another one."""

from __future__ import annotations

from sepconv.onnx.ir import Graph
from sepconv.onnx.passes.dead_code import remove_dead_code

_RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def run(graph: Graph) -> str:
    kept = {name for node in graph.nodes for name in node.captures} | set(graph.outputs)
    origins: dict[str, str] = {}  # of results of reshapes: what the first of them read
    known: dict[str, dict[tuple[int, ...], str]] = {}  # of an origin: who has which shape
    renamed: dict[str, str] = {}
    dead: set[int] = set()
    for node in graph.nodes:
        shape = graph.sure_shape(node.outputs[0]) if node.is_op(*_RESHAPES) else None
        if shape is None:
            continue
        origin = origins.get(node.inputs[0], node.inputs[0])
        origins[node.outputs[0]] = origin
        own = graph.sure_shape(origin)
        result = known.setdefault(origin, {} if own is None else {own: origin}).setdefault(shape, node.outputs[0])
        if result != node.outputs[0] and node.outputs[0] not in kept:
            renamed[node.outputs[0]] = result
            dead.add(id(node))
    graph.rename(renamed)
    graph.remove(dead)
    if dead:
        remove_dead_code(graph)  # else what nobody needs any more would count as a reader
    return f"{len(dead)} reshape(s) of what has the shape removed" if dead else ""
