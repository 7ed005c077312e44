"""From our graph back to the package onnx: for its shape inference, and for its reference implementation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sepconv.onnx.ir import OWN_DOMAIN, Array, Graph, Info, Node

SMALL = 4096  # elements of constants whose values shape inference may need


def node_protos(node: Node) -> list[Any]:
    """What stands for a node where only shapes matter: results of each have the node's types and shapes."""
    import onnx

    helper = onnx.helper
    if node.domain == OWN_DOMAIN and node.op == "Linear":
        return [helper.make_node("MatMul", node.inputs[:2], node.outputs)]
    if node.domain == OWN_DOMAIN and node.op == "Product":
        sides = [
            (name, f"{node.outputs[0]}/{side}", side) for name, side in zip(node.inputs, ("left", "right"), strict=True)
        ]
        turned = [helper.make_node("Transpose", [x], [y], perm=node.attribute(side)) for x, y, side in sides]
        return [*turned, helper.make_node("MatMul", [y for _, y, _ in sides], node.outputs)]
    if node.domain == OWN_DOMAIN or (node.proto is None and node.op in _SAME_SHAPE):
        return [helper.make_node("Identity", node.inputs[:1], node.outputs)]
    inputs = list(node.inputs)
    before = []
    if node.flatten:
        inputs[0] = f"{node.outputs[0]}/flat"
        before = [helper.make_node("Flatten", [node.inputs[0]], [inputs[0]], axis=1)]
    return [*before, _proto(node, inputs)]


# Operators that passes make from others: elementwise, and of later opsets than the file's may be.
_SAME_SHAPE = frozenset({"HardSwish", "Mish", "Gelu", "Swish", "LayerNormalization"})


def _proto(node: Node, inputs: list[str]) -> Any:
    import onnx

    if node.proto is None:
        return onnx.helper.make_node(node.op, inputs, node.outputs, domain=node.domain, **node.attributes)
    proto = onnx.NodeProto()
    proto.op_type = node.op
    proto.domain = node.domain
    proto.input.extend(inputs)
    proto.output.extend(node.outputs)
    proto.attribute.extend(node.proto.attribute)
    return proto


def single_node_model(node: Node, graph: Graph) -> Any:
    """A model of this node alone, whose inputs are all that it reads."""
    import onnx

    helper = onnx.helper
    reads = dict.fromkeys(node.reads())
    # The package makes some operators of others, which may hang on the type.
    ports = [_value(name, Info(graph.info(name).dtype or np.dtype(np.float32))) for name in reads]
    results = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in node.outputs if name]
    proto = helper.make_graph([_proto(node, node.inputs)], "node", ports, results)
    return _model(proto, graph, ir_version=graph.ir_version, functions=graph.functions)


def shape_model(graph: Graph, known: Mapping[str, Info]) -> Any:
    """The graph with its small constants, and only the shapes of the others; without nodes whose results are known."""
    import onnx

    helper = onnx.helper
    ports, initializers = [], []
    for port in graph.inputs:
        proto = _value(port.name, port.info)
        if proto is not None:
            ports.append(proto)
    ports += [_value(name, info) for name, info in known.items()]
    used = {name for node in graph.nodes for name in node.reads()} | set(graph.outputs)
    for name, array in graph.constants.items():
        if name not in used:
            continue
        if array.size <= SMALL:
            initializers.append(_tensor(array, name))
        else:
            ports.append(_value(name, Info(array.dtype, array.shape)))
    results = [onnx.ValueInfoProto(name=name) for name in graph.outputs]
    nodes = [proto for node in graph.nodes if known.keys().isdisjoint(node.outputs[:1]) for proto in node_protos(node)]
    proto = helper.make_graph(nodes, "shapes", ports, results, initializers)
    return _model(proto, graph, ir_version=max(graph.ir_version, 4), functions=graph.functions)


def value_model(graph: Graph, nodes: Sequence[Node], results: Sequence[str]) -> Any:
    """Some nodes, and what they read: small constants, and of all else type and shape."""
    import onnx

    helper = onnx.helper
    written = {name for node in nodes for name in node.outputs}
    read = dict.fromkeys(name for node in nodes for name in node.reads() if name not in written)
    small = {name: array for name in read if (array := graph.constant(name)) is not None and array.size <= SMALL}
    ports = [_value(name, graph.info(name)) for name in read if name not in small]
    proto = helper.make_graph(
        [proto for node in nodes for proto in node_protos(node)],
        "values",
        ports,
        [onnx.ValueInfoProto(name=name) for name in results],
        [_tensor(array, name) for name, array in small.items()],
    )
    return _model(proto, graph, ir_version=max(graph.ir_version, 4))


def _model(proto: Any, graph: Graph, *, ir_version: int, functions: Iterable[Any] = ()) -> Any:
    """A GraphProto as a model of the graph's opsets."""
    import onnx

    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
    return onnx.helper.make_model(proto, opset_imports=opsets, ir_version=ir_version, functions=list(functions))


def _tensor(array: Array, name: str) -> Any:
    import onnx

    return onnx.numpy_helper.from_array(array, name)


def _value(name: str, info: Info) -> Any:
    import onnx

    if info.dtype is None:
        return None
    kind = onnx.helper.np_dtype_to_tensor_dtype(info.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, info.shape)


def infos_of(values: Iterable[Any]) -> dict[str, Info]:
    """What ValueInfoProtos say."""
    import onnx

    found = {}
    for value in values:
        tensor = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type" or not tensor.elem_type:
            continue
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        shape = None
        if tensor.HasField("shape"):
            shape = tuple(
                int(dim.dim_value) if dim.HasField("dim_value") else (dim.dim_param or None) for dim in tensor.shape.dim
            )
        found[value.name] = Info(dtype, shape)
    return found
