"""Nodes that our kernels do not run: the package onnx's own reference implementation does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sepconv.errors import UnsupportedError
from sepconv.onnx.ir import Graph, Node
from sepconv.onnx.protos import single_node_model


class Reference:
    """One node on ``onnx.reference``.

    Raises UnsupportedError where the package has no implementation of it.
    """

    def __init__(self, node: Node, graph: Graph) -> None:
        from sepconv.onnx.fallback_operators import Evaluator

        self._node = node
        dtype = graph.info(node.inputs[0]).dtype if node.inputs else None
        if node.is_op("ReduceLogSum", "ReduceLogSumExp") and dtype is not None and dtype.kind in "iu":
            raise UnsupportedError(f"node {node.name!r}: {node.op} of {dtype} is not possible, must be of real numbers")
        try:
            self._evaluator = Evaluator(single_node_model(node, graph))
        except MemoryError:
            raise
        except Exception as error:  # the package has no one class for this
            what = f"{node.domain}.{node.op}" if node.domain else node.op
            why = str(error).partition(", schema.has_function")[0]  # a list of all that the package has follows
            raise UnsupportedError(f"node {node.name!r}: nothing here runs {what}: {why}") from None

    def __call__(self, values: Mapping[str, Any]) -> list[Any]:
        feeds = {name: values[name] for name in self._node.reads()}
        results = self._evaluator.run(None, feeds)
        return [np.asarray(result) if isinstance(result, np.generic | float | int) else result for result in results]
