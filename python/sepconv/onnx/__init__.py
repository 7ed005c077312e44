"""ONNX models: :func:`load` (also behind :func:`sepconv.load`), and :class:`InferenceSession` as onnxruntime has it.

Extra ``onnx``: the package onnx parses the files, infers shapes, and runs what sepconv has no kernel for.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sepconv.conventions import Convention
    from sepconv.onnx.model import OnnxModel
    from sepconv.onnx.passes import PASSES
    from sepconv.onnx.program import FallbackWarning
    from sepconv.onnx.session import InferenceSession
    from sepconv.onnx.session_types import SessionOptions

__all__ = ["PASSES", "FallbackWarning", "InferenceSession", "OnnxModel", "SessionOptions", "load"]

_HOMES = {
    "PASSES": "passes",
    "FallbackWarning": "program",
    "InferenceSession": "session",
    "OnnxModel": "model",
    "SessionOptions": "session_types",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name == "backend":
        return importlib.import_module(f"{__name__}.backend")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(
    source: str | os.PathLike[str] | bytes,
    outputs: Sequence[str] | None = None,
    convention: Convention | None = None,
    *,
    strict: bool = False,
    external_data: bool = False,
    passes: Iterable[str] | None = None,
) -> OnnxModel:
    """A model from an ONNX file, by path or as bytes; float32, opset 7 to 23 (others: a warning), sizes fixed or open.

    Args:
        outputs: names of values that the model gives in place of the file's outputs.
        convention: what the network expects of a photograph, and what its outputs mean.
        strict: refuse a model of which our kernels do not run every node; else the package onnx runs those, a warning
            says so, and ``model.explain()`` names them.
        external_data: take weights from other files in the model's folder; never through links or out of it.
        passes: which of :data:`PASSES` to run; None: all.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: the path cannot be opened.
        ModelFormatError: the file is damaged or contradicts itself.
        UnsupportedError: it asks for what is not possible, or with ``strict`` for a fallback.
        TypeError: an argument is of another kind.
        MissingExtraError: the package onnx is not installed.
    """
    from sepconv.onnx.files import read_source
    from sepconv.onnx.model import OnnxModel
    from sepconv.onnx.reader import read_onnx

    for argument, flag in (("strict", strict), ("external_data", external_data)):
        if not isinstance(flag, bool):
            raise TypeError(f"{argument} was {flag!r}, must be True or False")
    data, name, folder = read_source(source)
    graph, _ = read_onnx(data, name=name, folder=folder if external_data else None)
    return OnnxModel(graph, outputs=outputs, convention=convention, strict=strict, passes=passes)
