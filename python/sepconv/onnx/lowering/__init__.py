"""From nodes of our graph to the layer list; :mod:`sepconv.onnx.lowering.base` tells how values become layers."""

from __future__ import annotations

from sepconv.onnx.lowering import other, pools, weighted
from sepconv.onnx.lowering.base import Lowering, NotInPlanError, layer_shape
from sepconv.onnx.lowering.other import spatial_padding
from sepconv.onnx.lowering.weighted import per_channel

__all__ = [
    "Lowering", "NotInPlanError", "layer_shape", "other", "per_channel", "pools", "spatial_padding", "weighted",
]  # fmt: skip
