"""What the writers of the formats take: a list of layers or a model, and any kind of path, as ``export_model`` does."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sepconv import UnsupportedError, graph
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


def test_an_ncnn_network_is_two_files(tmp_path: Path) -> None:
    (tmp_path / "network.bin").write_text("kept")
    (tmp_path / "linked.param").symlink_to(tmp_path / "linked.bin")
    for folder in ("/", tmp_path):
        with pytest.raises(IsADirectoryError):
            write_ncnn(LAYERS, folder)
    for name in ("network.bin", "linked.param"):
        with pytest.raises(ValueError, match=r"path was .*', which is '\w+\.bin' too; must be another file"):
            write_ncnn(LAYERS, tmp_path / name)
    assert (tmp_path / "network.bin").read_text() == "kept"


@pytest.mark.parametrize("suffix", WRITERS)
def test_numbers_of_images(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip({".onnx": "onnx", ".tflite": "tflite"}.get(suffix, "numpy"))
    wrong: Any
    for wrong in (True, 1.0, "1", np.ones(2), 0):
        with pytest.raises(ValueError, match=f"batch was {re.escape(repr(wrong))}, must be "):
            export_model(LAYERS, tmp_path / f"x{suffix}", wrong)
    export_model(LAYERS, tmp_path / f"one{suffix}", 1)
    one: Any = np.int64(1)
    export_model(LAYERS, tmp_path / f"numpys{suffix}", one)
    assert (tmp_path / f"numpys{suffix}").read_bytes() == (tmp_path / f"one{suffix}").read_bytes()


def test_names_and_folding() -> None:
    pytest.importorskip("onnx")
    wrong: Any
    for wrong in (5, None, "", "\ud800", b"x"):
        with pytest.raises(ValueError, match=f"name was {re.escape(repr(wrong))}, must be a non-empty string"):
            to_onnx(LAYERS, name=wrong)
    for wrong in ("no", 1, None):
        with pytest.raises(TypeError, match=f"fold was {wrong!r}, must be True or False"):
            to_onnx(LAYERS, fold=wrong)
    with pytest.raises(ValueError, match=r"path was 'a\\x00.onnx', must be a path: .*no null character"):
        export_model(LAYERS, "a\0.onnx")


def test_a_whole_number_as_epsilon() -> None:
    onnx = pytest.importorskip("onnx")
    norm = graph.BatchNorm(**dict.fromkeys(("gamma", "beta", "mean", "variance"), np.ones(2)), epsilon=0)
    conv = graph.Conv2d(name="conv", inputs=("first",), weight=np.ones((1, 1, 3, 2), np.float32), batch_norm=norm)
    node = to_onnx([*LAYERS[:2], conv], fold=False).graph.node[-1]
    assert onnx.helper.get_node_attr_value(node, "epsilon") == 0.0


def test_no_constant_is_left_over() -> None:
    """Of which onnxruntime warns."""
    pytest.importorskip("onnx")
    squeeze = [LAYERS[0], graph.GlobalAveragePool(name="means", inputs=("x",))]
    squeeze.append(graph.Conv2d(name="factors", inputs=("means",), weight=np.ones((1, 1, 3, 3), np.float32)))
    written = to_onnx([*squeeze, graph.Mul(name="scaled", inputs=("x", "factors"))]).graph
    assert {tensor.name for tensor in written.initializer} <= {x for node in written.node for x in node.input}


def test_a_softmax_that_tflite_does_not_have() -> None:
    """Its exp(beta * (x - max)) would be infinite: LiteRT gives NaN."""
    pytest.importorskip("tflite")
    negative = [*LAYERS, graph.Softmax(name="third", inputs=("second",), beta=-2.0)]
    with pytest.raises(UnsupportedError, match=r"layer 'third' \(Softmax\) has beta -2\.0, which TFLite cannot say"):
        to_tflite(negative)


def test_tensors_of_tflite_have_their_layers_names() -> None:
    pytest.importorskip("tflite")
    from sepconv.io import read_tflite

    shape = (1, 1, 2)  # which an identity keeps an image: no vector, as a Reshape gives
    named = [graph.Input(name="x", shape=(4, 4, 3)), graph.Reshape(name="flat", inputs=("x",), shape=(1, 3, 16))]
    named += [
        graph.Conv2d(
            name=activation, inputs=("flat",), weight=np.ones((1, 3, 16, 2), np.float32), activation=activation
        )
        for activation in ("silu", "hard_sigmoid")
    ]
    named.append(graph.Activation(name="kept", inputs=("silu",), activation="none"))
    read = read_tflite(to_tflite(named))
    assert {"silu", "hard_sigmoid", "kept"} <= {layer.name for layer in read}
    again, model = Model(read, name="again"), Model(named, name="model")
    assert again.outputs == model.outputs
    assert again.outputs[-1].shape == (None, *shape)


def test_a_model_as_a_file_in_memory() -> None:
    model = Model(LAYERS, name="whole")
    pytest.importorskip("onnx")
    assert to_onnx(model) == to_onnx(LAYERS)
    pytest.importorskip("tflite")
    assert to_tflite(model) == to_tflite(LAYERS)
