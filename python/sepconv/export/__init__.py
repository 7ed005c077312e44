"""Networks out: the layer list as an ONNX, TFLite or ncnn file, in float32.

``export_model`` tells the format by the path's suffix. ONNX needs the extra ``onnx``, TFLite the extra ``tflite``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sepconv.export.ncnn import ncnn_files, write_ncnn
from sepconv.export.onnx import to_onnx, write_onnx
from sepconv.export.tflite import to_tflite, write_tflite
from sepconv.layer_lists import LayersLike
from sepconv.paths import check_writable, checked_path

__all__ = [
    "FORMATS",
    "check_path",
    "export_model",
    "to_onnx",
    "to_tflite",
    "write_ncnn",
    "write_onnx",
    "write_tflite",
    "written_files",
]

Writer = Callable[[LayersLike, Path, int | None, Sequence[str] | None], None]
FORMATS: dict[str, Writer] = {".onnx": write_onnx, ".tflite": write_tflite, ".param": write_ncnn}


def export_model(
    layers: LayersLike,
    path: str | os.PathLike[str],
    batch: int | None = None,
    outputs: Sequence[str] | None = None,
) -> None:
    """Write a network, with BatchNorm folded, to a file whose suffix is one of ``FORMATS``.

    ``layers``: a list of them, or a :class:`sepconv.Model`.

    ``outputs``: names of the layers whose results the file gives, in this order (which ncnn's files do not have); None:
    the model's, of a list those that no layer reads, inputs aside. Layers on which no output depends are left out.

    An ncnn network is two files: beside ``name.param`` its weights, ``name.bin``. ``batch`` fixes the number of images;
    None leaves it open, where the format can (ONNX), else takes 1. A network whose input is quantised takes float32.
    A file that was there is replaced when the new one is whole, and kept where it cannot be written.

    Raises:
        TypeError: ``layers`` or ``path`` is of another kind, weights are no real numbers.
        ValueError: another suffix, layers that are no network, a batch that is no number of images, outputs that are
            none of its layers.
        UnsupportedError: the format has no way to say what a layer does, or is too small for the weights.
        MissingExtraError: a package that the format needs is not installed.
        OSError: the file cannot be written.
    """
    check_path(path)
    target = Path(path)
    FORMATS[target.suffix](layers, target, batch, outputs)


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise TypeError for no path, ValueError for another suffix, OSError where ``export_model`` could not write."""
    target = checked_path(path)
    if target.suffix not in FORMATS:
        raise ValueError(f"path was {str(path)!r}, must end in one of {', '.join(FORMATS)}")
    for written in written_files(target):
        check_writable(written)


def written_files(path: Path) -> tuple[Path, ...]:
    """What ``export_model`` writes: of an ncnn network two files."""
    return ncnn_files(path) if path.suffix == ".param" else (path,)
