"""Files in: networks from TFLite and ONNX files, weights from torch checkpoints, safetensors files and NumPy archives.

Which format a file has is told by its content, never by its name. No reader trusts its file: SECURITY.md.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepconv.conventions import check_convention
from sepconv.errors import ModelFormatError
from sepconv.graph import output_names
from sepconv.io.arrays import Array
from sepconv.io.files import Source, describe, identify, naming, open_file

if TYPE_CHECKING:
    from sepconv.conventions import Convention
    from sepconv.io.safetensors import read_safetensors
    from sepconv.io.tflite import read_tflite
    from sepconv.io.torch_checkpoint import read_torch_checkpoint
    from sepconv.model import Model
    from sepconv.onnx.model import OnnxModel

__all__ = ["load", "load_tflite", "read_safetensors", "read_tflite", "read_torch_checkpoint", "read_weights"]

# A reader is imported when a file of its format is met.
_READERS = {"read_safetensors": "safetensors", "read_tflite": "tflite", "read_torch_checkpoint": "torch_checkpoint"}


def __getattr__(name: str) -> Any:
    if name not in _READERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_READERS[name]}"), name)


_WEIGHTS_ONLY = {
    "safetensors": "a safetensors file",
    "zip": "an archive of weights (torch checkpoint or .npz)",
    "pickle": "a torch checkpoint",
}


def load(
    path: str | os.PathLike[str],
    outputs: Sequence[str] | None = None,
    convention: Convention | None = None,
    *,
    strict: bool = False,
    external_data: bool = False,
    passes: Iterable[str] | None = None,
) -> Model | OnnxModel:
    """A network from a TFLite or ONNX file, named after the file.

    Args:
        outputs: names of the layers (ONNX: values) that the model gives, in place of the file's own outputs: the layer
            before a softmax gives logits. ``model.layers`` lists the names.
        convention: what the network expects of a photograph, and what its outputs mean; the files do not say.
        strict, external_data, passes: of ONNX files alone, see :func:`sepconv.onnx.load`.

    Returns:
        A :class:`sepconv.Model`; of an ONNX file a :class:`sepconv.onnx.OnnxModel`, which takes arrays as the file has
        them: images are NCHW.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: the path cannot be opened.
        ModelFormatError: the file is damaged, or of neither format.
        UnsupportedError: it uses an operator, a type or an option that sepconv lacks; the message names it.
        ValueError: ``outputs`` names a layer that does not exist, or the path cannot be one.
        TypeError: an argument is of another kind, or not for a file of this format.
        MissingExtraError: an ONNX file, and the package onnx is not installed.
    """
    outputs = output_names(outputs)
    check_convention(convention)
    source = open_file(path)
    kind = identify(source.data)
    if kind == "onnx":
        from sepconv.onnx import load as load_onnx

        return load_onnx(
            path, outputs=outputs, convention=convention, strict=strict, external_data=external_data, passes=passes
        )
    if strict or external_data or passes is not None:
        raise TypeError(f"strict, external_data and passes are for ONNX files, which {source.name} is not")
    return load_tflite(path, outputs, convention)


def load_tflite(
    path: str | os.PathLike[str], outputs: Sequence[str] | None = None, convention: Convention | None = None
) -> Model:
    """As :func:`load`, for a TFLite file alone."""
    outputs = output_names(outputs)
    source = open_file(path)
    check_tflite(source, path)
    from sepconv.io.tflite import read_tflite_network
    from sepconv.model import Model  # here: reading files does not need the compiled core

    network = read_tflite_network(source)

    return Model(
        network.layers,
        name=Path(path).stem,
        convention=convention,
        outputs=network.outputs if outputs is None else outputs,
    )


def check_tflite(source: Source, path: str | os.PathLike[str]) -> None:
    """Raise ModelFormatError, which says what it is, where ``path``'s file does not begin as a TFLite file does."""
    kind = identify(source.data)
    if kind in _WEIGHTS_ONLY:
        raise ModelFormatError(
            f"{source.name} is {_WEIGHTS_ONLY[kind]}, which holds weights and no network; give it as weights= to a "
            "function of sepconv.models"
        )
    if kind != "tflite":
        what = "an ONNX file" if kind == "onnx" else describe(source.data)
        wanted = "an ONNX" if kind != "onnx" and Path(path).suffix == ".onnx" else "a TFLite"
        raise ModelFormatError(f"{source.name} is not {wanted} file: it is {what}")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Weights by name from a torch checkpoint, a safetensors file or an .npz archive, told apart by content.

    Arrays are read-only; those stored uncompressed are views of the file, which must not be shortened
    while they live.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: the path cannot be opened.
        ModelFormatError: the file is damaged, of another format, or asks for more than tensors in dicts.
        UnsupportedError: it uses a type or a compression that sepconv lacks.
    """
    source = open_file(path)
    kind = identify(source.data)
    if kind == "safetensors":
        from sepconv.io.safetensors import read_safetensors_weights

        return read_safetensors_weights(source)
    if kind == "pickle":
        from sepconv.io.torch_checkpoint import read_torch_weights

        return read_torch_weights(source)
    if kind == "zip":
        return _read_archive(source)
    if kind == "tflite":
        raise ModelFormatError(f"{source.name} is a TFLite file, a whole network; sepconv.load reads it")
    raise ModelFormatError(
        f"{source.name} is not a torch checkpoint, a safetensors file or an .npz archive: it is {describe(source.data)}"
    )


def _read_archive(source: Source) -> dict[str, Array]:
    from sepconv.io.npz import read_npz_arrays
    from sepconv.io.torch_checkpoint import read_zip_checkpoint
    from sepconv.io.zip_archive import called, read_members

    with naming(source.name):
        members = read_members(source.data)
        others = [name for name in members if not name.endswith(".npy")]
        if members and not others:
            return read_npz_arrays(source.data, members)
        if len(others) < len(members) and not any(name.endswith("data.pkl") for name in others):
            raise ModelFormatError(f"the archive has {called(others[0])}; an .npz has arrays (.npy) alone")
        return read_zip_checkpoint(source.data, members)
