"""Depthwise-separable convolutions and the networks made of them.

Models: :mod:`sepconv.models` builds MobileNets, :func:`load` reads TFLite files, :class:`Model` runs them.
Threads: :func:`set_num_threads`, :func:`num_threads`. Instruction set: :func:`isa`, forced by ``SEPCONV_ISA``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import io, models
    from ._core import isa, num_threads, set_num_threads, supported_isas
    from .cost import Cost, cost
    from .errors import ModelFormatError, SepconvError, UnsupportedError
    from .io import load
    from .model import Model

__all__ = [
    "Cost",
    "Model",
    "ModelFormatError",
    "SepconvError",
    "UnsupportedError",
    "__version__",
    "cost",
    "io",
    "isa",
    "load",
    "models",
    "num_threads",
    "set_num_threads",
    "supported_isas",
]

# Where each name comes from. Loaded on first use, so that `import sepconv` costs next to nothing.
_HOMES = {
    "Cost": ".cost",
    "Model": ".model",
    "ModelFormatError": ".errors",
    "SepconvError": ".errors",
    "UnsupportedError": ".errors",
    "cost": ".cost",
    "isa": "._core",
    "load": ".io",
    "num_threads": "._core",
    "set_num_threads": "._core",
    "supported_isas": "._core",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    elif name in ("io", "models"):
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
