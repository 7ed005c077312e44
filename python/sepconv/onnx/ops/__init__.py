"""The operators that our own kernels run, by name; see :mod:`sepconv.onnx.ops.registry`."""

from __future__ import annotations

from sepconv.onnx.ops import elementwise, moving, products, resize, rows, windows
from sepconv.onnx.ops.registry import OPERATORS, Call, NotNativeError, Operator, find

__all__ = [
    "OPERATORS", "Call", "NotNativeError", "Operator", "elementwise", "find", "moving", "products", "resize", "rows",
    "windows",
]  # fmt: skip
