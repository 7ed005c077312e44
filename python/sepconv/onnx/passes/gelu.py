"""GELU, exact (x/2 · (1 + erf(x/√2))) or by tanh, in whatever order an exporter multiplies its factors."""

from __future__ import annotations

import math

import numpy as np

from sepconv.onnx.ir import Graph, Node
from sepconv.onnx.passes import dead_code
from sepconv.onnx.passes.rewrite import Uses, is_near, value_and_number

_DEPTH = 4  # products within products
_TANH, _CUBIC = math.sqrt(2 / math.pi), 0.044715
Factors = tuple[float, list[str]]  # a number and values, which are multiplied


def run(graph: Graph) -> str:
    uses = Uses(graph)
    found = 0
    for index, node in enumerate(graph.nodes):
        made = _gelu(uses, node)
        if made is not None:
            uses.put(index, made)
            found += 1
    dead_code.run(graph)  # an activation can join a convolution that nothing else reads
    return f"{found} Gelu" if found else ""


def _gelu(uses: Uses, node: Node) -> Node | None:
    """In place of the outermost product."""
    if not node.is_op("Mul") or uses.graph.info(node.outputs[0]).dtype != np.float32:
        return None
    for gate in _gates(uses, node.outputs[0], _DEPTH):
        for x, approximate in _arguments(uses, gate):
            number, values = _factors(uses, node.outputs[0], {x, gate})
            if is_near(number, 0.5) and sorted(values) == sorted((x, gate)):
                attributes = {"approximate": "tanh"} if approximate else {}
                return Node("Gelu", [x], [], attributes)
    return None


def _gates(uses: Uses, value: str, depth: int) -> list[str]:
    """Of the factors of a value: those that are a sum with 1."""
    product = uses.producer(value, "Mul")
    if product is None or depth == 0:
        return [value] if uses.without_term(value, 1.0) else []
    return [gate for factor in product.inputs for gate in _gates(uses, factor, depth - 1)]


def _arguments(uses: Uses, gate: str) -> list[tuple[str, bool]]:
    """What x may be, for 1 + erf(x/√2) or 1 + tanh(√(2/π)·(x + 0.044715·x³)), and whether it is the latter."""
    inner = uses.without_term(gate, 1.0) or ""
    erf, tanh = uses.producer(inner, "Erf"), uses.producer(inner, "Tanh")
    if erf is not None:
        number, values = _factors(uses, erf.inputs[0], set(), depth=1)
        return [(values[0], False)] if len(values) == 1 and is_near(number, math.sqrt(0.5)) else []
    if tanh is None:
        return []
    number, values = _factors(uses, tanh.inputs[0], set(), depth=1)
    total = uses.producer(values[0], "Add") if len(values) == 1 and is_near(number, _TANH) else None
    if total is None:
        return []
    found = []
    for x, other in (total.inputs, total.inputs[::-1]):
        number, values = _factors(uses, other, {x})
        if is_near(number, _CUBIC) and values == [x] * 3:
            found.append((x, True))
    return found


def _factors(uses: Uses, value: str, stop: set[str], depth: int = _DEPTH) -> Factors:
    """A value as a product of a number and of values, as far as those of ``stop``."""
    node = None if value in stop or depth == 0 else uses.producer(value, "Mul", "Div", "Pow")
    if node is None:
        return 1.0, [value]
    pair = value_and_number(uses.graph, node)
    if pair is not None and node.op == "Pow":
        number, values = _factors(uses, pair[0], stop, depth - 1)
        return (number**3, values * 3) if pair[1] == 3.0 else (1.0, [value])
    if pair is not None:
        number, values = _factors(uses, pair[0], stop, depth - 1)
        return (number * pair[1] if node.op == "Mul" else number / pair[1]), values
    if node.op != "Mul":
        return 1.0, [value]
    (a, first), (b, second) = (_factors(uses, name, stop, depth - 1) for name in node.inputs)
    return a * b, first + second
