"""Command lines that cannot be obeyed: one line that says why, and every file as it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_paths import Limit, names

pytest.importorskip("sepconv.threads", reason="needs the built engine")

import sepconv
from sepconv import cli, graph
from sepconv.bench import method, peaks
from sepconv.cli.classify import classify, format_result, to_probabilities
from sepconv.errors import UnsupportedError
from sepconv.export import export_model, to_onnx, to_tflite
from sepconv.models.catalog import named_layers

SMALL = "mobilenet_v1_0.25_32"


@pytest.fixture
def photograph(tmp_path: Path) -> str:
    image = pytest.importorskip("PIL.Image", reason="needs pillow (extra demo)")
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra demo)")
    path = tmp_path / "photo.png"
    image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    return str(path)


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong must be told before anything is measured."""

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("measured before the arguments were checked")

    monkeypatch.setattr(method, "compare", fail)
    monkeypatch.setattr(peaks, "measure", fail)
    monkeypatch.setattr(cli.engine, "open_model", fail)


def error(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    assert cli.main([str(arg) for arg in args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sepconv: ")
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite", "a.param"])
def test_export_keeps_the_old_file_where_writing_fails(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], small_files: Limit
) -> None:
    pytest.importorskip("onnx" if name == "a.onnx" else "tflite")
    path = tmp_path / name
    path.write_bytes(b"old")
    with small_files(1 << 14):
        message = error(capsys, "export", SMALL, path)
    failed = path.with_suffix(".bin") if name == "a.param" else path
    assert message == f"sepconv: {failed}: File too large\n"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == [name]


def test_export_writes_both_files_of_ncnn_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.bin").mkdir()
    (tmp_path / "p.param").write_bytes(b"old")
    assert "p.bin: Is a directory" in error(capsys, "export", SMALL, tmp_path / "p.param")
    assert (tmp_path / "p.param").read_bytes() == b"old"


@pytest.mark.parametrize("command", [("bench",), ("bench", "--sweep"), ("profile", SMALL), ("classify",)])
@pytest.mark.usefixtures("nothing_runs")
def test_pictures_that_cannot_be_written_are_known_before_the_work(
    command: tuple[str, ...], photograph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = "--plot"
    if command == ("classify",):
        command, option = ("classify", photograph), "--save"
    for path in (tmp_path / "result", f"{tmp_path}/", "/dev/full", "", "x.foo"):
        argument = option.removeprefix("--")
        assert f"{argument} is {str(path)!r}, must end in one of ." in error(capsys, *command, option, path)
    assert "a.png: No such file or directory" in error(capsys, *command, option, tmp_path / "none" / "a.png")
    assert names(tmp_path) == ["photo.png"]


@pytest.mark.usefixtures("nothing_runs")
def test_a_picture_that_needs_latex(
    photograph: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "x.pgf"
    path.write_bytes(b"old")
    message = error(capsys, "classify", photograph, "--save", path)
    assert f"--save is {str(path)!r}, which matplotlib cannot draw here: 'xelatex' not found" in message
    assert path.read_bytes() == b"old"


@pytest.mark.usefixtures("nothing_runs")
def test_json_that_cannot_be_written_is_known_before_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none" / "x.json"
    assert error(capsys, "bench", "--json", path) == f"sepconv: {path}: No such file or directory\n"
    assert "Is a directory" in error(capsys, "bench", "--json", tmp_path)


@pytest.mark.usefixtures("nothing_runs")
def test_two_results_are_not_written_into_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra bench)")
    path = tmp_path / "z.svg"
    for other in (path, tmp_path / "." / "z.svg"):
        message = error(capsys, "bench", SMALL, "--json", path, "--plot", other)
        assert "which --json writes; must be another file" in message


def test_what_was_measured_is_shown_where_the_file_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra bench)")
    picture = tmp_path / "f.svg"
    op = ("--op", "pointwise", "--shape", "4,4,8")
    quick = ("--rounds", "1", "--burst", "1", "--contenders", "numpy")
    assert cli.main(["bench", *op, *quick, "--json", "/dev/full", "--plot", str(picture)]) == 2
    captured = capsys.readouterr()
    assert captured.err == "sepconv: /dev/full: No space left on device\n"
    assert "pointwise 4x4x8" in captured.out
    assert picture.stat().st_size > 0


def test_a_pipe_whose_reader_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is not standard output's."""

    def leave(contents: Mapping[Path, bytes]) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", *map(str, contents))

    monkeypatch.setattr(cli.bench, "write_files", leave)
    pipe = tmp_path / "pipe"
    quick = ("--op", "pointwise", "--shape", "4,4,8", "--rounds", "1", "--burst", "1", "--contenders", "numpy")
    assert cli.main(["bench", *quick, "--json", str(pipe)]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"sepconv: {pipe}: Broken pipe\n"
    assert "pointwise 4x4x8" in captured.out


@pytest.mark.parametrize("written", ["network.onnx", "mobilenet_v1_0.25_32", "mobilenet_v1_100_224"])
def test_json_takes_no_model_for_its_file(written: str, capsys: pytest.CaptureFixture[str], nothing_runs: None) -> None:
    assert cli.main(["bench", "--json", written]) == 2
    assert f"--json is {written!r}, must be a file to write: put MODEL before --json" in capsys.readouterr().err


def test_nothing_is_written_over_what_is_read(
    photograph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], nothing_runs: None
) -> None:
    pytest.importorskip("tflite")
    path = tmp_path / "network.tflite"
    path.write_bytes(to_tflite(named_layers(SMALL)[1], 1))  # type: ignore[index]
    picture = tmp_path / "network.png"
    picture.write_bytes(path.read_bytes())
    link = tmp_path / "link.json"
    link.symlink_to(path)
    for argv, argument in (
        (["classify", photograph, "--save", photograph], "--save"),
        (["bench", str(path), "--json", str(link)], "--json"),
        (["export", str(path), str(path)], "FILE"),
        (["profile", str(picture), "--plot", str(picture)], "--plot"),
        (["bench", str(picture), "--plot", str(picture)], "--plot"),
    ):
        before = Path(argv[-1]).read_bytes()
        assert cli.main(argv) == 2
        assert f"{argument} is {argv[-1]!r}, which is read; must be another file" in capsys.readouterr().err
        assert Path(argv[-1]).read_bytes() == before


@pytest.mark.usefixtures("nothing_runs")
def test_the_photograph_that_is_the_default_is_kept(
    photograph: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.engine, "default_photograph", lambda: Path(photograph))
    assert "--save is " in error(capsys, "classify", "--save", photograph)


@pytest.mark.parametrize("read", ["model", "weights"])
def test_the_second_file_of_ncnn_is_not_written_over_what_is_read(
    read: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"read")
    arguments = ["mobilenet_v1", "--weights", path] if read == "weights" else [path]
    message = error(capsys, "export", *arguments, tmp_path / "x.param")
    assert message == f"sepconv: FILE is {str(path)!r}, which is read; must be another file\n"
    assert path.read_bytes() == b"read"
    assert names(tmp_path) == ["x.bin"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["bench", SMALL, "--stride", "2"], "--stride needs --op"),
        (["bench", "--op-table", "--kernel", "5"], "--kernel needs --op"),
        (["bench", SMALL, "--threads", "100000"], "threads was 100000, must be between 1 and 1024"),
        (["export", "mobilenet_v1_100_224", "x.tflite"], "alpha was 100.0, must be a positive number of at most 10"),
        (["bench", "--op", "pointwise", "--shape", "8,8,8", "--kernel", "3"], "must be left out for a pointwise"),
        (["bench", "--op-table", "--startup"], "--startup must be left out with --op-table"),
        (["bench", "--op-table", "--isa", "a,b"], "--isa is a,b, must be one with --op-table, which has a column a"),
        (["bench", "--op-table", "--memory"], "--memory must be left out with --op-table"),
        (["bench", SMALL, "--contenders", "sepconv_packing"], "needs --op or --op-table"),
        (["bench", SMALL, "--json", ""], "--json is '', must be a file to write"),
        (["bench", SMALL, "--burst", "60001"], "--burst is 60001, must be at most 60000 milliseconds"),
        (["bench", "--op", "conv", "--shape", "8,8,8", "--stride", "9999999999"], "integers from 1 to 2147483647"),
        (["classify", ""], "IMAGE was '', must be a path"),
        (["bench", "nothing.onnx"], "MODEL is 'nothing.onnx', must be an existing .tflite or .onnx file"),
        (["peaks", "--threads", "1,1025"], "threads was 1025, must be between 1 and 1024"),
        (["export", "", "x.tflite"], "MODEL is '', must be an existing .tflite or .onnx file"),
        (["export", SMALL, ""], "FILE was '', must be a path"),
        (["export", __file__, "x.tflite"], "is not a TFLite file: it is a text file"),
    ],
)
def test_arguments_that_do_not_fit(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], nothing_runs: None
) -> None:
    assert cli.main(argv) == 2
    assert message in capsys.readouterr().err


def test_batches_beyond_a_file_and_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("tflite")
    for name, batch in (("a.tflite", 3_000_000_000), ("a.onnx", 1 << 63)):
        expected = f"batch was {batch}, must be a whole number from 1 to 2147483647"
        assert expected in error(capsys, "export", SMALL, tmp_path / name, "--batch", str(batch))
    found = named_layers(SMALL)
    assert found is not None
    for wrong in (0, True, 1.5):
        for writer in (to_onnx, to_tflite):
            with pytest.raises(ValueError, match=f"batch was {wrong}, must be a whole number from 1"):
                writer(found[1], wrong)  # type: ignore[arg-type]
    for command in ("bench", "profile"):
        message = error(capsys, command, SMALL, "--batch", str(10**9))
        assert f"batch is {10**9}, with which the input of {SMALL} takes 12288.0 GB, must take at most the" in message
    for size in (("--shape", "8,8,1000000000"), ("--shape", "8,8,8", "--kernel", "99999999999")):
        message = error(capsys, "bench", "--op", "conv", *size)
        assert "shape is (8, 8, " in message
        assert "must give a weight of at most 2147483647 elements" in message


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".param"])
def test_what_is_no_network_is_not_written(suffix: str, tmp_path: Path) -> None:
    """Also where what is wrong would not be written: what follows is left out."""
    if suffix != ".param":
        pytest.importorskip(suffix[1:])
    source, weight = graph.Input(name="x", shape=(4, 4, 3)), np.ones((1, 1, 3, 3))

    def written(name: str, weight: Any = weight, **options: Any) -> None:
        layer = graph.Conv2d(name=name, inputs=("x",), weight=weight, **options)
        export_model([source, layer], tmp_path / f"a{suffix}")

    with pytest.raises(ValueError, match="name was 'x', must be unlike the names of all earlier layers"):
        written("x")
    for wrong in (1j * weight, weight.astype(str), weight.astype(object)):
        with pytest.raises(TypeError, match=r"layer 'y': weight had dtype .*, must have one of real numbers"):
            written("y", wrong)
    with pytest.raises(TypeError, match="layer 'y': weight was a masked array"):
        written("y", np.ma.array(weight, mask=True))
    norm = {key: np.ones(3) for key in ("gamma", "beta", "mean")}
    with pytest.raises(TypeError, match=r"layer 'y': batch_norm\.variance had dtype complex128"):
        written("y", batch_norm=graph.BatchNorm(**norm, variance=1j * np.ones(3), epsilon=0.0))
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_weights_that_no_file_holds(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip(suffix[1:])
    weight = np.broadcast_to(np.float32(0), (16384, 33000))
    layers = [graph.Input(name="x", shape=(1, 1, 16384)), graph.FullyConnected(name="y", inputs=("x",), weight=weight)]
    with pytest.raises(UnsupportedError, match=r"has 2,162,688,000 bytes of weights, of which an? .* holds at most"):
        export_model(layers, tmp_path / f"a{suffix}")


def test_one_file_for_both_of_ncnn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.param"
    path.symlink_to("a.bin")
    message = error(capsys, "export", SMALL, path)
    assert message == f"sepconv: path was {str(path)!r}, which is 'a.bin' too; must be another file\n"
    assert names(tmp_path) == ["a.param"]


def test_memory_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        np.empty((1 << 60,), np.uint8)

    monkeypatch.setattr(cli.engine, "num_threads", fail)
    assert cli.main(["info"]) == 2
    assert capsys.readouterr().err.startswith("sepconv: not enough memory: Unable to allocate")


def test_memory_that_is_not_there_for_an_onnx_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of which protobuf says nothing but that it failed."""
    onnx = pytest.importorskip("onnx")

    def fail() -> bytes:
        raise Exception("Failed to serialize proto")

    large = SimpleNamespace(SerializeToString=fail)
    monkeypatch.setattr(onnx.helper, "make_model", lambda *args, **options: large)
    message = error(capsys, "export", SMALL, tmp_path / "a.onnx")
    assert message == "sepconv: not enough memory: for an ONNX file of these weights\n"
    assert names(tmp_path) == []


def test_a_network_of_two_results_is_no_classifier(
    photograph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tflite")
    layers: Any = sepconv.models.ssdlite_layers(alpha=0.25, resolution=96, classes=5)
    export_model(layers, tmp_path / "ssd.tflite")
    message = error(capsys, "classify", photograph, "--model", tmp_path / "ssd.tflite")
    assert "model ssd gives [[None, 6, 6, 12], [None, " in message
    assert "must give one result: the classes' scores, [n, classes]" in message
    pixels: Any = [layers[0], graph.Activation(name="relu", inputs=(layers[0].name,), activation="relu")]
    export_model(pixels, tmp_path / "pixels.tflite")
    message = error(capsys, "classify", photograph, "--model", tmp_path / "pixels.tflite")
    assert "model pixels gives [[None, 96, 96, 3]], must give one result" in message


def test_probabilities() -> None:
    """The softmax of scores, but not of what the output's layer, whatever comes last, gives as probabilities."""
    scores, shares = np.array([[1000, 999, -1000]], np.float32), np.array([[0.5, 0.25, 0.25]], np.float32)
    softmax = graph.Softmax(name="p", inputs=("x",))
    flatten = graph.Reshape(name="r", inputs=("p",), shape=(1, 1, 3))
    gate = graph.FullyConnected(name="s", inputs=("x",), weight=np.eye(3), activation="sigmoid")
    layers = [graph.Input(name="x", shape=(1, 1, 3)), gate, softmax, flatten]
    expected = [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0]
    np.testing.assert_allclose(to_probabilities(scores, layers, "x"), expected, atol=1e-12)
    for output in ("p", "r", "s"):
        np.testing.assert_array_equal(to_probabilities(shares, layers, output), shares[0])
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="output is not finite"):
            to_probabilities(np.array([[0, bad]], np.float32), layers, "x")


@pytest.mark.parametrize("command", ["export", "classify"])
def test_weights_of_truth_values(
    command: str, photograph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bool.npz"
    arrays: dict[str, Any] = {"stem.weight": np.zeros((3, 3, 3, 32), bool)}
    np.savez(path, **arrays)
    wanted = ("mobilenet_v1", tmp_path / "a.param") if command == "export" else (photograph, "--model", "mobilenet_v1")
    message = error(capsys, command, *wanted, "--weights", path)
    assert f"--weights is {str(path)!r}: weights['stem.weight'] was of dtype bool" in message


@pytest.mark.usefixtures("photograph")
def test_a_photograph_that_is_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert error(capsys, "classify", tmp_path / "pipe") == f"sepconv: {tmp_path / 'pipe'} is not a regular file\n"


def test_a_photograph_whose_name_would_command_the_terminal(
    photograph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(photograph).rename(tmp_path / "\x1b[2J.png")
    model = sepconv.models.mobilenet_v1(0.25, 32)
    result = classify(model, np.zeros((9, 9, 3), np.uint8), image_name=path.name, repeat=1)
    assert format_result(result).startswith(r"\x1b[2J.png · ")
    path.write_bytes(b"no photograph")
    assert rf"{tmp_path}/\x1b[2J.png is not an image" in error(capsys, "classify", path)


@pytest.mark.parametrize("largest", [None, 50])
def test_a_photograph_through_standard_input(photograph: str, largest: int | None) -> None:
    limit = "" if largest is None else f"images._LARGEST = {largest}; "
    code = f"from sepconv import images; {limit}print(images.load_image('/dev/stdin').shape)"
    data = Path(photograph).read_bytes()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, input=data)
    if largest is None:
        assert done.stdout == b"(9, 9, 3)\n", done.stderr
    else:
        assert b"ImageError: /dev/stdin has more than 50 bytes" in done.stderr
