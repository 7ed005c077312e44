"""What the writers of the formats take: a list of layers or a model, and any kind of path, as ``export_model`` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sepconv import graph
from sepconv.export import export_model, to_onnx, to_tflite, write_ncnn, write_onnx, write_tflite

pytest.importorskip("sepconv.threads", reason="needs the built engine")
from sepconv.model import Model

WRITERS = {".onnx": write_onnx, ".tflite": write_tflite, ".param": write_ncnn}
LAYERS = [
    graph.Input(name="x", shape=(4, 4, 3)),
    graph.Activation(name="first", inputs=("x",), activation="relu"),
    graph.Conv2d(name="second", inputs=("first",), weight=np.ones((1, 1, 3, 2), np.float32)),
]


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_writer_takes_a_model_and_a_name(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip({".onnx": "onnx", ".tflite": "tflite"}.get(suffix, "numpy"))
    write: Callable[..., None] = WRITERS[suffix]
    chosen = Model(LAYERS, name="chosen", outputs=["first"])
    export_model(chosen, tmp_path / f"expected{suffix}")
    write(chosen, str(tmp_path / f"found{suffix}"))
    write(LAYERS, tmp_path / f"layers{suffix}", outputs=["first"])
    expected = (tmp_path / f"expected{suffix}").read_bytes()
    assert (tmp_path / f"found{suffix}").read_bytes() == (tmp_path / f"layers{suffix}").read_bytes() == expected
    wrong: Any
    for wrong in (None, 3):
        with pytest.raises(TypeError, match=f"path must be a str or an os.PathLike, not {type(wrong).__name__}"):
            write(LAYERS, wrong)
        with pytest.raises(TypeError, match=f"layers was of type {type(wrong).__name__}, must be a list of layers"):
            write(wrong, tmp_path / f"none{suffix}")


def test_a_model_as_a_file_in_memory() -> None:
    model = Model(LAYERS, name="whole")
    pytest.importorskip("onnx")
    assert to_onnx(model) == to_onnx(LAYERS)
    pytest.importorskip("tflite")
    assert to_tflite(model) == to_tflite(LAYERS)
