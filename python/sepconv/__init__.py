"""Depthwise-separable convolutions and the networks made of them.

Models: :mod:`sepconv.models` builds MobileNets, :func:`load` reads TFLite and ONNX files, :class:`Model` runs them.
ONNX models as onnxruntime runs them: :class:`InferenceSession`, so that ``import sepconv as onnxruntime`` will do.
Operators on your own arrays: :func:`depthwise_conv2d`, :func:`pointwise_conv2d`, :func:`separable_conv2d`,
:func:`inverted_residual`, :func:`conv2d`, their weights packed once by :func:`prepare`.
Threads: :func:`set_num_threads`, :func:`num_threads`. Instruction set: :func:`isa`, forced by ``SEPCONV_ISA``.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import conventions as conventions
    from . import errors as errors
    from . import export as export
    from . import graph as graph
    from . import io as io
    from . import models as models
    from . import onnx as onnx
    from . import torch as torch
    from ._core import isa, num_threads, supported_isas
    from .errors import ModelFormatError, SepconvError, UnsupportedError
    from .extras import MissingExtraError
    from .io import load
    from .model import Model
    from .network_cost import Cost, cost
    from .onnx.model import OnnxModel
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

# No modules: `from sepconv import *` would rebind the caller's io, onnx and torch.
__all__ = [
    "Cost",
    "ExecutionMode",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "LastCall",
    "MissingExtraError",
    "Model",
    "ModelFormatError",
    "ModelMetadata",
    "NodeArg",
    "OnnxModel",
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
    "isa",
    "last_call",
    "load",
    "num_threads",
    "pointwise_conv2d",
    "prepare",
    "separable_conv2d",
    "set_default_logger_severity",
    "set_num_threads",
    "supported_isas",
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
    "MissingExtraError": ".extras",
    "Model": ".model",
    "ModelFormatError": ".errors",
    "ModelMetadata": ".onnx.session_types",
    "NodeArg": ".onnx.session_types",
    "num_threads": "._core",
    "OnnxModel": ".onnx.model",
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

_SUBMODULES = ("conventions", "errors", "export", "graph", "io", "models", "onnx", "torch")


def __getattr__(name: str) -> Any:
    if name == "_core":
        value = _load_core()
    elif name in _HOMES:
        home = _HOMES[name]
        value = getattr(_load_core() if home == "._core" else importlib.import_module(home, __name__), name)
    elif name in _SUBMODULES:
        from .extras import MissingExtraError

        try:
            value = importlib.import_module(f".{name}", __name__)
        except MissingExtraError as error:  # of the package torch; hasattr and getattr pass no other error
            raise AttributeError(str(error)) from error
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _load_core() -> Any:
    """The extension module. Without it Python takes the folder of its type stubs for a package, with nothing in it."""
    core = importlib.import_module("._core", __name__)
    if getattr(core, "__file__", None) is None:
        from .errors import MissingCoreError

        del sys.modules["sepconv._core"], globals()["_core"]
        raise MissingCoreError()
    return core


def __dir__() -> list[str]:
    from importlib.util import find_spec

    return sorted([*__all__, *(name for name in _SUBMODULES if name != "torch" or find_spec(name) is not None)])
