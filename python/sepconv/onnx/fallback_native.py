"""Nodes of graphs within nodes, and of functions, on our kernels where these run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from sepconv.onnx.ir import Array, Info, Node
from sepconv.onnx.ops import Call, NotNativeError, Operator, find
from sepconv.onnx.tensors import Tensors

# Their squares, or what they sum, pass float16's largest number long before their results do.
_WIDE = {
    "AveragePool", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpPool", "RMSNormalization",
    "ReduceL2",
}  # fmt: skip


class OnOurKernels:
    """In the place of an operator of the package onnx, which runs what our kernels do not."""

    def __init__(self, package: Any, node: Node, operator: Operator, linked: Mapping[str, str]) -> None:
        self._package = package
        self._node = node
        self._operator = operator
        self._linked = linked  # attributes of a function's node → those of the function that they are

    def __getattr__(self, name: str) -> Any:
        return getattr(self._package, name)

    def run(self, *inputs: Any, **options: Any) -> tuple[Any, ...]:
        arrays = [np.asarray(x) if isinstance(x, np.generic) else x for x in inputs]
        if not all(x is None or isinstance(x, np.ndarray) for x in arrays):
            return tuple(self._package.run(*inputs, **options))
        is_wide, dtype = self._node.op in _WIDE, getattr(arrays[0], "dtype", None) if arrays else None
        if is_wide and dtype == np.float16:
            arrays = [x.astype(np.float32) if x is not None and x.dtype == dtype else x for x in arrays]
        results = self._results(arrays, options.get("linked_attributes") or {}) or self._package.run(*arrays, **options)
        if is_wide:  # LayerNormalization's statistics are float32 whatever its input is
            results = [np.asarray(results[0], dtype), *(x.astype(np.float32) for x in results[1:])]
        return tuple(results)

    def _results(self, inputs: list[Array | None], given: Mapping[str, Any]) -> list[Array] | None:
        node = self._node
        if self._linked:
            values = {name: given[theirs] for name, theirs in self._linked.items() if given.get(theirs) is not None}
            node = replace(node, attributes={**node.attributes, **values})
        if self._operator.problem(node, [Info() if x is None else Info(x.dtype, x.shape) for x in inputs]):
            return None
        try:
            return self._operator.run(Call(node, inputs))
        except NotNativeError:
            return None
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise ValueError(f"node {node.name!r} ({node.op}): {error}") from error


def on_our_kernels(package: Any, proto: Any, opset: int) -> Any:
    """The package's operator for a node of a standard domain, or what tries our kernels first."""
    if package.has_subgraph or proto.domain:
        return package
    linked = {attribute.name: attribute.ref_attr_name for attribute in proto.attribute if attribute.ref_attr_name}
    tensors = Tensors(None)
    attributes = {
        attribute.name: tensors.value(attribute, f"attribute {attribute.name!r} of {proto.op_type}")
        for attribute in proto.attribute
        if not attribute.ref_attr_name
    }
    if any(value is None for value in attributes.values()):
        return package
    node = Node(
        proto.op_type, list(proto.input), list(proto.output), attributes, proto.name or proto.op_type, opset=opset
    )
    operator = find(node)
    return package if operator is None else OnOurKernels(package, node, operator, linked)
