"""Depthwise-separable convolutions and the networks made of them.

Models: :mod:`sepconv.models` builds MobileNets, :func:`load` reads TFLite files, :class:`Model` runs them.
Operators on your own arrays: :func:`depthwise_conv2d`, :func:`pointwise_conv2d`, :func:`separable_conv2d`,
:func:`inverted_residual`, :func:`conv2d`, their weights packed once by :func:`prepare`.
Threads: :func:`set_num_threads`, :func:`num_threads`. Instruction set: :func:`isa`, forced by ``SEPCONV_ISA``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import io, models, torch
    from ._core import isa, num_threads, set_num_threads, supported_isas
    from .cost import Cost, cost
    from .errors import ModelFormatError, SepconvError, UnsupportedError
    from .io import load
    from .model import Model
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

__all__ = [
    "Cost",
    "LastCall",
    "Model",
    "ModelFormatError",
    "Prepared",
    "SepconvError",
    "UnsupportedError",
    "__version__",
    "conv2d",
    "cost",
    "depthwise_conv2d",
    "inverted_residual",
    "io",
    "isa",
    "last_call",
    "load",
    "models",
    "num_threads",
    "pointwise_conv2d",
    "prepare",
    "separable_conv2d",
    "set_num_threads",
    "supported_isas",
    "torch",
]

# Where each name comes from. Loaded on first use, so that `import sepconv` costs next to nothing.
_HOMES = {
    "Cost": ".cost",
    "LastCall": ".ops",
    "Model": ".model",
    "ModelFormatError": ".errors",
    "Prepared": ".ops",
    "SepconvError": ".errors",
    "UnsupportedError": ".errors",
    "conv2d": ".ops",
    "cost": ".cost",
    "depthwise_conv2d": ".ops",
    "inverted_residual": ".ops",
    "isa": "._core",
    "last_call": ".ops",
    "load": ".io",
    "num_threads": "._core",
    "pointwise_conv2d": ".ops",
    "prepare": ".ops",
    "separable_conv2d": ".ops",
    "set_num_threads": "._core",
    "supported_isas": "._core",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    elif name in ("io", "models", "torch"):
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
