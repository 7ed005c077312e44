"""An ONNX model that the layer list says as a whole: as layers, and as a :class:`sepconv.Model` of NHWC images."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sepconv.errors import UnsupportedError
from sepconv.graph import Layer
from sepconv.onnx.files import read_source
from sepconv.onnx.inference import infer
from sepconv.onnx.ir import Info, Input
from sepconv.onnx.partition import Region, lower, partition
from sepconv.onnx.passes import PASSES, run_passes
from sepconv.onnx.passes.dead_code import remove_dead_code
from sepconv.onnx.reader import read_onnx

DEFAULT_SIDE = 224  # of an image whose size the file leaves open


def read_onnx_layers(
    source: str | os.PathLike[str] | bytes, outputs: Sequence[str] | None = None
) -> tuple[list[Layer], tuple[str, ...]]:
    """The layers of an ONNX file, and the names of those that it gives.

    Open sizes become one image of 224 × 224.

    Raises what :func:`sepconv.onnx.load` does, and UnsupportedError where some node is no layer; the message names it.
    """
    data, name, _ = read_source(source)
    graph, _ = read_onnx(data, name=name)
    if outputs is not None:
        graph.outputs = list(outputs)
    graph.inputs = [Input(port.name, _closed(port.info)) for port in graph.inputs]
    graph.infos.update({port.name: port.info for port in graph.inputs})
    graph, _ = run_passes(graph, PASSES)
    infer(graph)
    remove_dead_code(graph)
    items, reasons = partition(graph)
    if len(items) != 1 or not isinstance(items[0], Region):
        alone = [item.name for item in items if not isinstance(item, Region)][:3]
        why = "; ".join(f"{node!r}: {reasons.get(node, 'apart')}" for node in alone) or "it falls into parts"
        raise UnsupportedError(f"{name} is not a network of layers alone: {why}")
    lowering = lower(graph, items[0])
    return lowering.layers, tuple(lowering.layer(name) for name in graph.outputs)


def _closed(info: Info) -> Info:
    if info.shape is None or len(info.shape) != 4:
        return info
    default = (1, 3, DEFAULT_SIDE, DEFAULT_SIDE)
    return Info(
        info.dtype, tuple(dim if isinstance(dim, int) else d for dim, d in zip(info.shape, default, strict=True))
    )
