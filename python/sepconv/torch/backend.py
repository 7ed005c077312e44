"""The backend "sepconv" of ``torch.compile``, found through the entry point in pyproject.toml."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import GraphModule, Node

from sepconv.torch.optimize import optimize_graph


def backend(graph_module: GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    """Runs what sepconv can of a graph that dynamo captured as plans, and the rest as it is.

    Parameters are arguments of such a graph: they may be others at each call, as long as they are not computed. Where
    gradients are recorded, all is run by torch: compile for inference, under ``torch.no_grad()``.
    """

    def constant(node: Node) -> bool:
        return bool(node.op in ("placeholder", "get_attr"))

    compiled: Callable[..., Any] = optimize_graph(graph_module, constant, frozen=False, threads=None).module
    return compiled
