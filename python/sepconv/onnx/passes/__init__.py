"""What is done to a model's graph before it is compiled: each pass is a function in a file of its own.

A pass changes the graph in place and returns a line that says what it did, "" for nothing. ``model.explain()`` prints
these; ``passes=`` of :func:`sepconv.load` chooses among them. Two more decide when a graph is compiled for its sizes:
which regions become plans, and the layout inside them (:mod:`sepconv.onnx.partition`).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable

import numpy as np

from sepconv.onnx.ir import Graph

# In order of execution. Each is the module of that name here, with a function run(graph).
PASSES = (
    "constants", "layer_norm", "channels_last", "identities", "pooling", "batch_norm", "scale", "linear", "reshapes",
    "pad", "flatten", "hard_swish", "gelu", "affine", "activation", "squeeze_excite", "channel_shuffle", "transposed",
    "dead_code",
)  # fmt: skip


def run_passes(graph: Graph, passes: Iterable[str]) -> tuple[Graph, list[tuple[str, str]]]:
    """A changed copy of the graph, and (pass, what it did) for each that did something.

    Shapes are inferred even where no pass is asked for.
    """
    from sepconv.onnx.inference import infer

    if isinstance(passes, str):
        raise TypeError(f"passes was {passes!r}, must be a sequence of names or None")
    passes = tuple(passes)
    for name in passes:
        if name not in PASSES:
            raise ValueError(f"passes has {name!r}, must be of {', '.join(PASSES)}")
    graph = graph.copy()
    notes = []
    if "constants" not in passes:
        infer(graph, fold=False)
    for name in PASSES:
        if name in passes:
            with np.errstate(all="ignore"):  # numbers that are not finite are nothing to warn of
                done = importlib.import_module(f"{__name__}.{name}").run(graph)
            if done:
                notes.append((name, done))
    return graph, notes
