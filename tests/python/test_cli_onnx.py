"""An .onnx file through the command line, from end to end: each command that takes a file of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("sepconv.threads", reason="needs the built engine")

import sepconv
from sepconv import cli, images
from sepconv.bench import networks
from sepconv.conventions import guess
from sepconv.export import export_model, to_onnx
from sepconv.graph import Conv2d, DepthwiseConv2d, Input, Layer
from sepconv.model import Model

NAME = "mobilenet_v2_0.35_64"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "network.onnx"
    assert cli.main(["export", NAME, str(path)]) == 0
    return path


def out(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert cli.main(arguments) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_classify_gives_what_the_file_gives(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pillow: Any = pytest.importorskip("PIL.Image", reason="needs pillow (extra demo)")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    pillow.fromarray(pixels).resize((73, 73)).save(tmp_path / "photograph.png")
    text = out(capsys, "classify", str(tmp_path / "photograph.png"), "--model", str(file), "--repeat", "1", "--json")
    result = json.loads(text)
    convention = guess("float32", 1000)
    photograph = images.load_image(tmp_path / "photograph.png")
    x = convention.to_input(images.resize(photograph, convention, 64, 64))
    loaded: Any = sepconv.load(file)
    (scores,) = loaded(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    shares = np.exp(scores) / np.exp(scores).sum()
    top = {guess["index"]: guess["probability"] for guess in result["top"]}
    assert list(top) == np.argsort(-scores, kind="stable")[:5].tolist()
    assert list(top.values()) == pytest.approx(shares[list(top)], rel=1e-5)
    assert result["input"] == [64, 64, 3]


def test_classify_has_no_names_for_the_classes_of_another_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pillow: Any = pytest.importorskip("PIL.Image", reason="needs pillow (extra demo)")
    pillow.new("RGB", (40, 40)).save(tmp_path / "photograph.png")
    export_model(sepconv.models.mobilenet_v1_layers(0.25, 32, classes=10), tmp_path / "ten.onnx")
    command = ("classify", str(tmp_path / "photograph.png"), "--model", str(tmp_path / "ten.onnx"), "--repeat", "1")
    for convention in ((), ("--convention", "slim")):  # which has a background before ImageNet's
        result = json.loads(out(capsys, *command, *convention, "--top", "10", "--json"))
        assert {guess["label"] for guess in result["top"]} == {f"class {index}" for index in range(10)}


def test_bench_profile_and_export_take_it(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("--rounds", "2", "--burst", "1", "--contenders", "numpy")
    assert "sepconv" in out(capsys, "bench", str(file), *quick)
    assert "gemm_f32_" in out(capsys, "profile", str(file), "--repeat", "2")
    again = tmp_path / "again.onnx"
    out(capsys, "export", str(file), str(again))
    x = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    first, second = (sepconv.load(path) for path in (file, again))
    assert not isinstance(first, Model)
    assert np.array_equal(first(x), second(x))


@pytest.mark.parametrize("order", [("y", "z"), ("z", "y")])
@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_every_output_is_kept_in_its_order(
    order: tuple[str, ...], suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results that other layers read too, of files that are read by each command."""
    if suffix == ".tflite":
        pytest.importorskip("tflite")
    weight = np.random.default_rng(1).standard_normal((1, 1, 3, 4), dtype=np.float32)
    layers: list[Layer] = [
        Input(name="x", shape=(6, 6, 3)),
        Conv2d(name="y", inputs=("x",), weight=weight),
        DepthwiseConv2d(name="z", inputs=("y",), weight=np.ones((3, 3, 4, 1), np.float32)),
    ]
    path, again = tmp_path / f"two{suffix}", tmp_path / f"again{suffix}"
    export_model(layers, path, 1, order)
    assert networks.open_network(str(path)).outputs == order
    out(capsys, "export", str(path), str(again))
    image = np.random.default_rng(0).random((1, 6, 6, 3), dtype=np.float32)
    expected = Model(layers, name="two", outputs=order)(image)
    if suffix == ".onnx":
        image = image.transpose(0, 3, 1, 2).copy()
    for result, wanted in zip(sepconv.load(again)(image), expected, strict=True):
        np.testing.assert_allclose(result.transpose(0, 2, 3, 1) if suffix == ".onnx" else result, wanted, rtol=1e-6)
    found = json.loads(out(capsys, "profile", str(path), "--repeat", "1", "--json", "--unfused"))
    assert {"y", "z"} <= {name for step in found["steps"] for name in step["layers"]}
    quick = ("--rounds", "1", "--burst", "1", "--contenders", "numpy,torch,onnxruntime,openvino,litert,ncnn,oracle")
    (result,) = json.loads(out(capsys, "bench", str(path), *quick, "--json"))["results"]
    wrong = [row["excluded"] for row in result["contenders"] if "excluded" in row]
    assert all("not installed" in reason for reason in wrong), wrong


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".param"])
def test_a_result_that_is_given_twice(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx: Any = pytest.importorskip("onnx")
    layers = [Input(name="x", shape=(6, 6, 3)), Conv2d(name="y", inputs=("x",), weight=np.ones((1, 1, 3, 4)))]
    model = to_onnx(layers)
    model.graph.output.add().CopyFrom(model.graph.output[0])
    model.graph.output[1].name = "z"
    model.graph.node.append(onnx.helper.make_node("Identity", ["y"], ["z"]))
    onnx.save(model, tmp_path / "twice.onnx")
    network = networks.open_network(str(tmp_path / "twice.onnx"))
    assert len(set(network.outputs)) == 2
    out(capsys, "export", str(tmp_path / "twice.onnx"), str(tmp_path / f"again{suffix}"))
    if suffix == ".onnx":
        first, second = sepconv.load(tmp_path / "again.onnx")(np.ones((1, 3, 6, 6), np.float32))
        assert np.array_equal(first, second)
        return
    peers = "numpy,torch,onnxruntime,openvino,litert,ncnn,oracle" if suffix == ".param" else "litert"
    quick = ("--rounds", "1", "--burst", "1", "--contenders", peers)
    (result,) = json.loads(out(capsys, "bench", str(tmp_path / "twice.onnx"), *quick, "--json"))["results"]
    wrong = [row["excluded"] for row in result["contenders"] if "excluded" in row]
    assert all("not installed" in reason for reason in wrong), wrong


def test_what_is_no_onnx_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\x08\x07not a model")
    for arguments in (("bench", str(bad)), ("profile", str(bad)), ("export", str(bad), str(tmp_path / "x.tflite"))):
        assert cli.main(arguments) == 2
        assert "bad.onnx" in capsys.readouterr().err
    bad.write_text("hello")
    assert cli.main(["profile", str(bad)]) == 2
    assert f"{str(bad)!r} is not an ONNX file: it is only 5 bytes long" in capsys.readouterr().err
