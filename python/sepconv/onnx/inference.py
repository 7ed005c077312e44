"""Shape inference and constant folding, again and again until neither finds more."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import numpy as np

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.onnx.fallback import Reference
from sepconv.onnx.ir import OWN_DOMAIN, Array, Graph, Info, Node
from sepconv.onnx.ops import Call, NotNativeError, find
from sepconv.onnx.ops.shapes import own_shape
from sepconv.onnx.protos import SMALL, infos_of, shape_model, value_model
from sepconv.onnx.tensors import MAX_ELEMENTS, MAX_RANK

MAX_ROUNDS = 16
# What folding may take at load, where a small file could ask for any amount: bytes of results, and of one node's
# operands, besides thrice what the file's constants have.
FREE_BYTES = 24 << 20
FEW_ELEMENTS = 1 << 16  # of operands of products, and of all that the reference implementation takes and gives
VERY_FEW_ELEMENTS = 1 << 10  # of operands where the result's shape is not known
_SHAPED_BY_VALUES = ("Reshape", "Expand", "ConstantOfShape", "Tile", "Pad", "Range", "Resize", "Upsample", "Slice")
# Results of any size, by the numbers in their operands.
_GROWING = frozenset({"Expand", "Tile", "Range", "Pad", "Resize", "Upsample", "ConvTranspose"})
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# What the reference implementation computes at once for weights of any size.
_QUANTISATION = frozenset({"DequantizeLinear", "QuantizeLinear"})
_FROM_VALUES = frozenset({"NonZero", "Compress", "Unique"})  # whose shapes come from values, and are no larger
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def infer(graph: Graph, *, fold: bool = True) -> list[str]:
    """Fill ``graph.infos``, and turn nodes of constants into constants. Returns a line for each node that vanished.

    Raises UnsupportedError for a value of more than 2^31 - 1 elements.
    """
    notes: list[str] = []
    # A view that repeats elements takes no memory.
    budget = FREE_BYTES + 3 * sum(array.nbytes for array in graph.constants.values() if array.flags.forc)
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
    rounds = 0
    while True:
        _infer_beside(graph, known)
        found = _corrections(graph, known)
        if not found and rounds < MAX_ROUNDS:
            rounds += 1
            found = _shapes_from_values(graph, known)
        if not found:
            return
        known.update(found)
        graph.infos.update(found)


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
    found = _inferred(shape_model(graph, known))
    if not known:
        graph.inferred = found
    for name, info in found.items():
        graph.infos[name] = _narrower(graph.infos.get(name, Info()), info)


def _inferred(model: Any, *, follow_values: bool = False) -> dict[str, Info]:
    """What the package's inference finds; nothing where it fails."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=follow_values).graph
    except MemoryError:
        raise
    except Exception:
        return {}
    return infos_of([*graph.value_info, *graph.output])


def _shapes_from_values(graph: Graph, known: dict[str, Info]) -> dict[str, Info]:
    """Results whose shape is computed from sizes that are open.

    The package's inference can follow values, and then writes out every vector whose length it knows: one of a billion
    elements, which a file of 200 bytes can ask for, takes 64 GB. So it gets nothing but what handles short ones.
    """

    def is_short(name: str) -> bool:
        shape = graph.shape(name)
        return shape is not None and len(shape) <= 1 and math.prod(shape) <= SMALL

    chosen, wanted = [], dict[str, None]()
    for node in graph.nodes:
        reads = list(node.reads())
        if not all(graph.info(name).dtype for name in reads) or not wanted.keys().isdisjoint(reads):
            continue
        if node.is_op(*_SHAPED_BY_VALUES) and node.outputs[0] not in known and graph.shape(node.outputs[0]) is None:
            chosen.append(node)
            wanted[node.outputs[0]] = None
            continue
        sizes = node.is_op("Shape") and graph.info(node.inputs[0]).shape is not None
        if (sizes or (node.domain == "" and all(map(is_short, reads)))) and all(map(is_short, node.outputs)):
            chosen.append(node)
    if not wanted:
        return {}
    found = _inferred(value_model(graph, chosen, list(wanted)), follow_values=True)
    return {
        name: info
        for name, info in found.items()
        if name in wanted
        and info.shape not in (None, graph.info(name).shape)
        and _narrower(graph.info(name), info) == info
    }


def _narrower(known: Info, found: Info) -> Info:
    """What both say together; where they differ, what was found."""
    if found.shape is None:
        return Info(found.dtype or known.dtype, known.shape)
    if known.shape is None or len(known.shape) != len(found.shape):
        return Info(found.dtype or known.dtype, found.shape)
    dims = tuple(
        old if new is None or (isinstance(old, int) and not isinstance(new, int)) else new
        for old, new in zip(known.shape, found.shape, strict=True)
    )
    return Info(found.dtype or known.dtype, dims)


def _fold(graph: Graph, node: Node, budget: int) -> int | None:
    """Bytes of the constants that took the node's place; None where it stays."""
    import onnx

    if node.domain not in ("", OWN_DOMAIN) or node.op in _RANDOM or not any(node.outputs):
        return None  # functions take what they like
    if any(isinstance(value, onnx.AttributeProto) for value in node.attributes.values()):
        return None  # so do graphs
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
    inputs = [graph.constants[name] if name else None for name in node.inputs]
    operands = [array for array in inputs if array is not None]
    if node.op != "Constant" and not _is_affordable(graph, node, operands, budget):
        return None
    return _replace(graph, node, inputs)


def _is_affordable(graph: Graph, node: Node, operands: list[Array], budget: int) -> bool:
    elements = sum(array.size for array in operands)
    if sum(array.nbytes for array in operands) > budget or (node.op in _PRODUCTS and elements > FEW_ELEMENTS):
        return False
    infos = [graph.info(name) for name in node.outputs if name]
    if any(info.static is None for info in infos):
        return elements <= VERY_FEW_ELEMENTS and node.op not in _GROWING
    return sum(math.prod(i.static or ()) * (i.dtype.itemsize if i.dtype is not None else 16) for i in infos) <= budget


def _replace(graph: Graph, node: Node, inputs: list[Array | None]) -> int | None:
    operator = find(node)
    infos = [graph.info(name) for name in node.inputs]
    results = None
    names = node.outputs
    try:
        if operator is not None and operator.problem(node, infos) is None:
            with suppress(NotNativeError):
                results = operator.run(Call(node, inputs))
        if results is None:
            if node.flatten or node.activation != "none" or node.domain == OWN_DOMAIN:
                return None  # the reference implementation knows nothing of passes
            values = {name: array for name, array in zip(node.inputs, inputs, strict=True) if array is not None}
            if not _is_small(graph, node, values.values()):
                return None
            names = [name for name in names if name]  # it gives no others
            results = Reference(node, graph)(values)
    except Exception:  # also where there is no memory for it
        return None
    if len(results) != len(names) or not all(isinstance(result, np.ndarray) for result in results):
        return None
    graph.constants.update({name: result for name, result in zip(names, results, strict=True) if name})
    return sum(result.nbytes for result in results)


def _is_small(graph: Graph, node: Node, operands: Collection[Array]) -> bool:
    """Whether the reference implementation, much of which is loops of Python, is done with a node in no time."""
    if node.op in _QUANTISATION:
        return True
    shapes = [graph.shape(name) for name in node.outputs if name]
    if any(shape is None for shape in shapes) and node.op not in _FROM_VALUES:
        return False
    results = sum(math.prod(shape or ()) for shape in shapes)
    # Of strings some operators match patterns.
    return results + sum(array.size for array in operands) <= FEW_ELEMENTS and not any(
        array.dtype.hasobject for array in operands
    )
