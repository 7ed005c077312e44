"""Depthwise-separable convolutions and the networks made of them.

Models: :mod:`sepconv.models` builds MobileNets, :func:`load` reads TFLite and ONNX files, :class:`Model` runs them.
ONNX models as onnxruntime runs them: :class:`InferenceSession`, so that ``import sepconv as onnxruntime`` will do.
Operators on your own arrays: :func:`depthwise_conv2d`, :func:`pointwise_conv2d`, :func:`separable_conv2d`,
:func:`inverted_residual`, :func:`conv2d`, their weights packed once by :func:`prepare`.
Threads: :func:`set_num_threads`, :func:`num_threads`. Instruction set: :func:`isa`, forced by ``SEPCONV_ISA``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import io, models, onnx, torch
    from ._core import isa, num_threads, supported_isas
    from .errors import ModelFormatError, SepconvError, UnsupportedError
    from .io import load
    from .model import Model
    from .network_cost import Cost, cost
    from .onnx.session import InferenceSession, IOBinding
    from .onnx.session_types import (
        ExecutionMode,
        GraphOptimizationLevel,
        ModelMetadata,
        NodeArg,
        OrtValue,
        RunOptions,
        SessionOptions,
        get_all_providers,
        get_available_providers,
        get_device,
        set_default_logger_severity,
    )
    from .ops import (
        LastCall,
        Prepared,
        conv2d,
        depthwise_conv2d,
        inverted_residual,
        last_call,
        pointwise_conv2d,
        prepare,
        separable_conv2d,
    )
    from .threads import set_num_threads

__all__ = [
    "Cost",
    "ExecutionMode",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "LastCall",
    "Model",
    "ModelFormatError",
    "ModelMetadata",
    "NodeArg",
    "OrtValue",
    "Prepared",
    "RunOptions",
    "SepconvError",
    "SessionOptions",
    "UnsupportedError",
    "__version__",
    "conv2d",
    "cost",
    "depthwise_conv2d",
    "get_all_providers",
    "get_available_providers",
    "get_device",
    "inverted_residual",
    "io",
    "isa",
    "last_call",
    "load",
    "models",
    "num_threads",
    "onnx",
    "pointwise_conv2d",
    "prepare",
    "separable_conv2d",
    "set_default_logger_severity",
    "set_num_threads",
    "supported_isas",
    "torch",
]

# Where each name comes from. Loaded on first use, so that `import sepconv` costs next to nothing. No module may have
# the name of one of these: imported, it would take its place.
_HOMES = {
    "conv2d": ".ops",
    "Cost": ".network_cost",
    "cost": ".network_cost",
    "depthwise_conv2d": ".ops",
    "ExecutionMode": ".onnx.session_types",
    "get_all_providers": ".onnx.session_types",
    "get_available_providers": ".onnx.session_types",
    "get_device": ".onnx.session_types",
    "GraphOptimizationLevel": ".onnx.session_types",
    "InferenceSession": ".onnx.session",
    "inverted_residual": ".ops",
    "IOBinding": ".onnx.session",
    "isa": "._core",
    "last_call": ".ops",
    "LastCall": ".ops",
    "load": ".io",
    "Model": ".model",
    "ModelFormatError": ".errors",
    "ModelMetadata": ".onnx.session_types",
    "NodeArg": ".onnx.session_types",
    "num_threads": "._core",
    "OrtValue": ".onnx.session_types",
    "pointwise_conv2d": ".ops",
    "prepare": ".ops",
    "Prepared": ".ops",
    "RunOptions": ".onnx.session_types",
    "separable_conv2d": ".ops",
    "SepconvError": ".errors",
    "SessionOptions": ".onnx.session_types",
    "set_default_logger_severity": ".onnx.session_types",
    "set_num_threads": ".threads",
    "supported_isas": "._core",
    "UnsupportedError": ".errors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    elif name in ("io", "models", "onnx", "torch"):
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
