"""An ONNX file as a :class:`~sepconv.onnx.ir.Graph`. The package ``onnx`` parses the protobuf, the rest is ours.

Files need not be trusted: SECURITY.md says what that means.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from sepconv import extras
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.onnx.ir import OWN_DOMAIN, Dim, Graph, Info, Input, Node
from sepconv.onnx.schema import check_node
from sepconv.onnx.tensors import Tensors, check_shape

FIRST_OPSET, LAST_OPSET = 7, 23  # what is promised; others are taken with a warning
MAX_NODES = 100_000
MAX_DEPTH = 16  # of graphs in attributes of nodes
MAX_CALLS = 64  # of functions by functions
MAX_CALLED = 20_000  # nodes that functions stand for: each is inferred and made anew at every call
MAX_NAME = 4096

_STANDARD = ("", "ai.onnx")


def read_onnx(data: bytes | memoryview, *, name: str, folder: Path | None = None) -> tuple[Graph, Any]:
    """The graph of a model given as bytes, and its ModelProto.

    Args:
        folder: where external data may lie; None: it is refused.

    Raises:
        ModelFormatError: the bytes are no valid model.
        UnsupportedError: they are, and use what sepconv does not take: external data, another opset.
        MissingExtraError: the package onnx is not installed.
    """
    onnx = extras.require("onnx", package="onnx", extra="onnx", purpose="reading an ONNX file")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(bytes(data))
    except MemoryError:
        raise
    except Exception as error:  # google.protobuf's own, which has moved between versions
        raise ModelFormatError(f"{name} is not an ONNX file: {error}") from None
    graph = read_model(model, name=name, folder=folder)
    opset = graph.opsets.get("")
    if opset is not None and not FIRST_OPSET <= opset <= LAST_OPSET:
        what = (
            f"opset {opset}; {FIRST_OPSET} to {LAST_OPSET} are known to work, others as far as operators are the same"
        )
        warnings.warn(f"{name}: {what}", UserWarning, stacklevel=3)
    return graph, model


def read_model(model: Any, *, name: str = "model", folder: Path | None = None) -> Graph:
    """The graph of a ModelProto; see :func:`read_onnx`."""
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelFormatError(f"{name} holds no graph")
    try:
        return _Reader(model, folder).graph(name)
    except (ModelFormatError, UnsupportedError) as error:
        raise type(error)(f"{name}: {error}") from None


class _Reader:
    def __init__(self, model: Any, folder: Path | None) -> None:
        import onnx

        self.onnx = onnx
        self.model = model
        self.tensors = Tensors(folder)
        self.node_count = self.called_count = 0
        self.opsets = {_domain(entry.domain): int(entry.version) for entry in model.opset_import} or {"": 1}
        opset = self.opsets.get("")
        newest = self.onnx.defs.onnx_opset_version()
        if opset is not None and not 1 <= opset <= newest:
            raise UnsupportedError(
                f"opset {opset}; {FIRST_OPSET} to {LAST_OPSET} are known to work; this package onnx ends at {newest}"
            )
        for domain, version in self.opsets.items():
            _check_text(domain, "a domain")
            if not 1 <= version < 1 << 31:
                raise UnsupportedError(f"version {version} of the domain {domain!r}, must be between 1 and 2147483647")
        self.functions = {(_domain(f.domain), f.name): f for f in model.functions}
        for function in model.functions:
            _check_text(function.domain, "the domain of a function")
            _check_name(function.name, "a function")
            if _domain(function.domain) in ("", OWN_DOMAIN):
                raise UnsupportedError(
                    f"function {function.name!r} takes the place of an operator that is not the file's own"
                )
            self._check_nested(function, 1)
        self._extents: dict[tuple[str, str], tuple[int, int]] = {}
        for key in self.functions:
            self._extent_of(key, 0)

    def graph(self, name: str) -> Graph:
        proto = self.model.graph
        constants = {}
        for tensor in proto.initializer:
            _check_name(tensor.name, "an initializer")
            if tensor.name in constants:
                raise ModelFormatError(f"two initializers are called {tensor.name!r}")
            constants[tensor.name] = self.tensors.array(tensor, f"initializer {tensor.name!r}")
        if proto.sparse_initializer:
            raise UnsupportedError("sparse initializers are not possible")
        inputs, infos = [], {}
        for value in proto.input:
            _check_name(value.name, "an input")
            if value.name in infos:
                raise ModelFormatError(f"two inputs are called {value.name!r}")
            infos[value.name] = self._info(value, f"input {value.name!r}")
            if value.name not in constants:  # before IR version 4, every initializer is an input too
                inputs.append(Input(value.name, infos[value.name]))
        known = {*constants, *infos}
        given = frozenset(known)
        nodes = [self._node(node, index, known) for index, node in enumerate(proto.node)]
        for value in proto.value_info:
            _check_text(value.name, "the name of a value")
            infos.setdefault(value.name, self._info(value, f"value {value.name!r}"))
        outputs = []
        for value in proto.output:
            if value.name not in known:
                raise ModelFormatError(f"output {value.name!r} is written by no node")
            outputs.append(value.name)
            info = self._info(value, f"output {value.name!r}")
            if value.name not in given:  # what comes in is of the shape that it says there
                infos[value.name] = info
        if not outputs:
            raise ModelFormatError("the graph has no output")
        return Graph(
            name=name,
            nodes=nodes,
            inputs=inputs,
            outputs=outputs,
            constants=constants,
            opsets=self.opsets,
            infos=infos,
            functions=tuple(self.model.functions),
            ir_version=int(self.model.ir_version) or 8,
        )

    def _info(self, value: Any, what: str) -> Info:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            return Info()  # a sequence or an optional: the reference implementation's business
        tensor = value.type.tensor_type
        dtype = None
        if tensor.elem_type:
            try:
                dtype = np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            except (KeyError, ValueError, TypeError):
                raise ModelFormatError(f"{what} is of type {tensor.elem_type}, which ONNX does not have") from None
        if not tensor.HasField("shape"):
            return Info(dtype, None)
        dims: list[Dim] = []
        for dim in tensor.shape.dim:
            if dim.HasField("dim_value"):
                # Some exporters write -1 (or 0, of an input) for an open size.
                dims.append(
                    int(dim.dim_value) if dim.dim_value > 0 or (dim.dim_value == 0 and tensor.elem_type) else None
                )
            else:
                _check_text(dim.dim_param, f"a size of {what}")
                dims.append(dim.dim_param or None)
        check_shape(tuple(dim for dim in dims if isinstance(dim, int)), what)
        return Info(dtype, tuple(dims))

    def _node(self, proto: Any, index: int, known: set[str]) -> Node:
        self._count_node()
        self.called_count += self._extent([proto], 0)[0]
        if self.called_count > MAX_CALLED:
            raise UnsupportedError(f"calls of functions stand for more than {MAX_CALLED} nodes")
        _check_node_text(proto, f"node {index}")
        what = f"node {index} ({proto.op_type[:80]}{f' {proto.name!r}' if proto.name else ''})"
        for name in proto.input:
            if name and name not in known:
                raise ModelFormatError(
                    f"{what} reads {name!r}, which no input, initializer or earlier node gives: it is missing, or the "
                    "graph has a cycle"
                )
        domain = _domain(proto.domain)
        if (domain, proto.op_type) not in self.functions:
            if domain not in self.opsets:
                raise ModelFormatError(f"{what} is of the domain {domain!r}, of which the file names no version")
            check_node(proto, domain, self.opsets[domain], what)
        captures: dict[str, None] = {}
        attributes = {}
        for attribute in proto.attribute:
            attributes[attribute.name] = self._attribute(attribute, what, captures)
        for name in captures:
            if name not in known:
                raise ModelFormatError(f"a graph in {what} reads {name!r}, which nothing gives")
        for name in proto.output:
            if not name:
                continue
            _check_name(name, what)
            if name in known:
                raise ModelFormatError(f"{what} writes {name!r}, which exists already")
            known.add(name)
        return Node(
            op=proto.op_type,
            inputs=list(proto.input),
            outputs=list(proto.output),
            attributes=attributes,
            name=proto.name or f"{proto.op_type}_{index}",
            domain=domain,
            captures=tuple(captures),
            origin=(proto.name or f"{proto.op_type}_{index}",),
            opset=self.opsets.get(domain, 1),
            proto=proto,
        )

    def _attribute(self, attribute: Any, what: str, captures: dict[str, None]) -> Any:
        where = f"{what}: attribute {attribute.name!r}"
        value = self.tensors.value(attribute, where)
        if value is not None:
            return value
        if attribute.type in (self.onnx.AttributeProto.GRAPH, self.onnx.AttributeProto.GRAPHS):
            for graph in _graphs(attribute):
                self._check_nested(graph, 1)
                captures.update(dict.fromkeys(_free_names(graph)))
        else:
            self._refuse_external(attribute, where)
        return attribute

    def _check_nested(self, graph: Any, depth: int) -> None:
        """A subgraph or function, which the reference implementation will run: no other file, no bottomless nesting."""
        if depth > MAX_DEPTH:
            raise ModelFormatError(f"graphs are nested more than {MAX_DEPTH} deep")
        for tensor in getattr(graph, "initializer", ()):
            self._refuse_external_tensor(tensor, f"initializer {tensor.name!r}")
            self.tensors.array(tensor, f"initializer {tensor.name!r}")
        for node in graph.node:
            self._count_node()
            _check_node_text(node, "a node of a graph within")
            for attribute in node.attribute:
                self._refuse_external(attribute, f"attribute {attribute.name!r} of {node.op_type[:80]}")
                for inner in _graphs(attribute):
                    self._check_nested(inner, depth + 1)

    def _refuse_external(self, attribute: Any, where: str) -> None:
        sparse = [
            *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
            *attribute.sparse_tensors,
        ]
        tensors = [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
        for tensor in [*tensors, *(part for one in sparse for part in (one.values, one.indices))]:
            self._refuse_external_tensor(tensor, where)

    def _refuse_external_tensor(self, tensor: Any, where: str) -> None:
        if self.tensors.is_external(tensor):
            raise UnsupportedError(f"{where} lies in another file; only initializers of the main graph may")

    def _count_node(self) -> None:
        self.node_count += 1
        if self.node_count > MAX_NODES:
            raise UnsupportedError(f"the model has more than {MAX_NODES} nodes")

    def _extent_of(self, key: tuple[str, str], above: int) -> tuple[int, int]:
        """How many nodes a function stands for, with those of the functions that it calls, and how deep they call."""
        if above <= MAX_CALLS and key not in self._extents:
            body = self.functions[key].node
            size, depth = self._extent(body, above)
            self._extents[key] = min(len(body) + size, MAX_CALLED + 1), depth + 1
        size, depth = self._extents.get(key, (0, 1))
        if above + depth > MAX_CALLS:
            raise ModelFormatError(f"functions call each other more than {MAX_CALLS} deep, or in a circle")
        return size, depth

    def _extent(self, nodes: Any, above: int) -> tuple[int, int]:
        """The same of all functions that some nodes call, also from graphs within; ``above``: functions around them."""
        size = depth = 0
        for node in nodes:
            parts = []
            key = (_domain(node.domain), node.op_type)
            if key in self.functions:
                parts.append(self._extent_of(key, above + 1))
            for attribute in node.attribute:
                parts += [self._extent(graph.node, above) for graph in _graphs(attribute)]
            for more, deeper in parts:
                size, depth = size + more, max(depth, deeper)
        return size, depth


def _domain(name: str) -> str:
    return "" if name in _STANDARD else name


def _check_text(text: str | bytes, what: str) -> None:
    """The package protobuf gives bytes for a string that is not UTF-8, and takes none back."""
    if not isinstance(text, str):
        raise ModelFormatError(f"{what} is {text[:80]!r}, must be UTF-8")


def _check_node_text(proto: Any, what: str) -> None:
    for text in (proto.op_type, proto.domain, proto.name, *proto.input, *proto.output):
        _check_text(text, f"a name in {what}")
    for attribute in proto.attribute:
        _check_text(attribute.name, f"the name of an attribute of {what}")


def _check_name(name: str, what: str) -> None:
    _check_text(name, f"the name of {what}")
    if not name:
        raise ModelFormatError(f"{what} has no name")
    if len(name) > MAX_NAME:
        raise ModelFormatError(f"{what} has a name of {len(name)} characters; at most {MAX_NAME} are possible")


def _graphs(attribute: Any) -> list[Any]:
    """Those within it."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _free_names(graph: Any) -> list[str]:
    """What a subgraph reads and does not define itself."""
    defined = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    free: dict[str, None] = {}
    for node in graph.node:
        names = [name for name in node.input if name]
        for attribute in node.attribute:
            names += [name for graph_within in _graphs(attribute) for name in _free_names(graph_within)]
        free.update(dict.fromkeys(name for name in names if name not in defined))
        defined.update(node.output)
    free.update(dict.fromkeys(value.name for value in graph.output if value.name not in defined))
    return list(free)
