"""Shape inference and constant folding, again and again until neither finds more."""

from __future__ import annotations

import math

import numpy as np

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.onnx.fallback import Reference
from sepconv.onnx.ir import Array, Graph, Info, Node
from sepconv.onnx.ops import Call, NotNativeError, find
from sepconv.onnx.ops.shapes import own_shape
from sepconv.onnx.protos import infos_of, shape_model
from sepconv.onnx.tensors import MAX_ELEMENTS, MAX_RANK

MAX_ROUNDS = 16
FOLDED_BYTES = 1 << 30  # of all that is folded in one go: a small file could ask for any amount
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def infer(graph: Graph, *, fold: bool = True) -> list[str]:
    """Fill ``graph.infos``, and turn nodes of constants into constants. Returns a line for each node that vanished.

    Raises UnsupportedError for a value of more than 2^31 - 1 elements.
    """
    notes: list[str] = []
    budget = FOLDED_BYTES
    for _ in range(MAX_ROUNDS):
        _infer_shapes(graph)
        if not fold:
            break
        before = len(notes)
        dead: set[int] = set()
        for node in graph.nodes:
            spent = _fold(graph, node, budget)
            if spent is not None:
                budget -= spent
                dead.add(id(node))
                notes.append(node.name)
        graph.remove(dead)
        if len(notes) == before:
            break
    for name, info in graph.infos.items():
        shape = info.static
        if shape is not None:
            _check_elements(name, shape)
    return notes


def _check_elements(name: str, shape: tuple[int, ...]) -> None:
    # Each size too: beside one of 0 the others can be any number.
    if max(shape, default=0) > MAX_ELEMENTS or math.prod(shape) > MAX_ELEMENTS:
        raise UnsupportedError(
            f"{name!r} would have the shape {list(shape)}; at most {MAX_ELEMENTS} elements are possible"
        )


def _infer_shapes(graph: Graph) -> None:
    """The package's inference, and ours where that differs from what the operators give."""
    known: dict[str, Info] = {}
    while True:
        _infer_beside(graph, known)
        corrected = _corrections(graph, known)
        if not corrected:
            return
        known.update(corrected)
        graph.infos.update(corrected)


def _corrections(graph: Graph, known: dict[str, Info]) -> dict[str, Info]:
    """Results that have another shape than was inferred; what depends on them is forgotten."""
    found: dict[str, Info] = {}
    doubtful: set[str] = set()
    for node in graph.nodes:
        name = node.outputs[0] if node.outputs else ""
        if not doubtful.isdisjoint(node.reads()):
            doubtful.update(node.outputs)
            for output in node.outputs:
                graph.infos[output] = Info(graph.info(output).dtype)
        elif name and name not in known:
            shape, inferred = own_shape(node, graph), graph.shape(name)
            if shape is not None and shape != inferred and min(shape, default=0) >= 0:
                _check_elements(name, shape)
                found[name] = Info(graph.info(name).dtype or graph.info(node.inputs[0]).dtype, shape)
                doubtful.add(name)
    return found


def _infer_beside(graph: Graph, known: dict[str, Info]) -> None:
    import onnx

    model = shape_model(graph, known)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except MemoryError:
        raise
    except Exception:
        return
    found = infos_of([*inferred.graph.value_info, *inferred.graph.output])
    for name, info in found.items():
        graph.infos[name] = _narrower(graph.infos.get(name, Info()), info)


def _narrower(known: Info, found: Info) -> Info:
    """What both say together; where they differ, what was found."""
    if found.shape is None:
        return Info(found.dtype or known.dtype, known.shape)
    if known.shape is None or len(known.shape) != len(found.shape):
        return Info(found.dtype or known.dtype, found.shape)
    dims = tuple(
        new if isinstance(new, int) or new is not None else old
        for old, new in zip(known.shape, found.shape, strict=True)
    )
    dims = tuple(
        old if isinstance(old, int) and not isinstance(new, int) else new
        for old, new in zip(known.shape, dims, strict=True)
    )
    return Info(found.dtype or known.dtype, dims)


def _fold(graph: Graph, node: Node, budget: int) -> int | None:
    """Bytes of the constants that took the node's place; None where it stays."""
    if node.captures or node.op in _RANDOM or not node.outputs or not all(node.outputs):
        return None
    if node.is_op("Shape", "Size"):
        shape = graph.shape(node.inputs[0])
        if shape is None or len(shape) > MAX_RANK:
            return None
        stand_in: Array = np.broadcast_to(np.zeros((), np.bool_), shape)
        return _replace(graph, node, [stand_in])
    if not all(name in graph.constants for name in node.inputs if name):
        return None
    if node.is_op("ConstantOfShape"):  # a view of one element: weights of a skeleton model take no memory
        sizes = [int(size) for size in graph.constants[node.inputs[0]].reshape(-1)]
        if any(size < 0 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS or len(sizes) > MAX_RANK:
            most = f"{MAX_ELEMENTS} elements and {MAX_RANK} axes"
            raise UnsupportedError(f"node {node.name!r} gives the shape {sizes}; at most {most} are possible")
        value = node.attribute("value", np.zeros(1, np.float32))
        if value.size != 1:
            raise ModelFormatError(f"node {node.name!r} repeats the shape {list(value.shape)}, must repeat 1 element")
        graph.constants[node.outputs[0]] = np.broadcast_to(value.reshape(()), sizes)
        return 0
    shapes = [graph.shape(name) for name in node.outputs]
    inputs = [graph.constants[name] if name else None for name in node.inputs]
    if node.op != "Constant":
        if any(shape is None for shape in shapes):
            # Not known before it runs: only what cannot grow.
            if sum(array.size for array in inputs if array is not None) > 1024 or node.op in (
                "Expand",
                "Tile",
                "Range",
                "Pad",
                "Resize",
                "Upsample",
            ):
                return None
        elif sum(16 * math.prod(shape) for shape in shapes if shape is not None) > budget:
            return None
    return _replace(graph, node, inputs)


def _replace(graph: Graph, node: Node, inputs: list[Array | None]) -> int | None:
    operator = find(node)
    infos = [graph.info(name) for name in node.inputs]
    results = None
    try:
        if operator is not None and operator.problem(node, infos) is None:
            try:
                results = operator.run(Call(node, inputs))
            except NotNativeError:
                results = None
        if results is None:
            values = {name: array for name, array in zip(node.inputs, inputs, strict=True) if name}
            results = Reference(node, graph)(values)
    except MemoryError:
        raise
    except Exception:
        return None
    if len(results) != len(node.outputs) or not all(isinstance(result, np.ndarray) for result in results):
        return None
    graph.constants.update(zip(node.outputs, results, strict=True))
    return sum(result.nbytes for result in results)
