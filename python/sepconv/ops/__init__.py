"""The operators as functions of anyone's arrays; see docs/drop-in.md for what each replaces."""

from __future__ import annotations

from .blocks import inverted_residual, separable_conv2d
from .convolutions import conv2d, depthwise_conv2d, pointwise_conv2d
from .engine import LastCall, last_call
from .prepared import Prepared, prepare

__all__ = [
    "LastCall",
    "Prepared",
    "conv2d",
    "depthwise_conv2d",
    "inverted_residual",
    "last_call",
    "pointwise_conv2d",
    "prepare",
    "separable_conv2d",
]
