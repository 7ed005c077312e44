"""``sepconv bench``, ``profile`` and ``peaks``, as one types them. No test asserts a time."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sepconv import cli, cost, graph
from sepconv.bench import machine, method, networks, peaks, processes, profile
from sepconv.cli import console
from sepconv.export import export_model
from sepconv.models.catalog import is_name
from sepconv.table import printable

pytest.importorskip("sepconv.threads", reason="needs the built engine")
from sepconv import _core

needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
QUICK = ("--rounds", "2", "--burst", "1", "--contenders", "numpy")


@pytest.fixture(autouse=True)
def quick_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "SECONDS", 0.001)
    monkeypatch.setattr(peaks, "DRAM_BYTES", 4 << 20)


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main(args) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def error(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.main(args) == 2
    return capsys.readouterr().err


def test_bench_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "bench", "mobilenet_v1_0.25_32", *QUICK)
    assert re.search(r"mobilenet_v1_0\.25_32, 1 thread · \d\.\d M multiply-adds · peak \d+ GFLOP/s", text)
    assert re.search(r"^sepconv .*1\.00 \(", text, re.MULTILINE)
    assert re.search(r"^  sepconv is \d+\.\d+ times as fast as the fastest peer, numpy", text, re.MULTILINE)
    assert _core.isa() in text


def test_bench_an_operator_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    op = ("--op", "depthwise", "--shape", "8,8,16", "--stride", "2", "--kernel", "5", "--activation", "relu6")
    found = json.loads(run(capsys, "bench", *op, *QUICK, "--threads", "1,2", "--isa", "scalar", "--json"))
    assert [result["threads"] for result in found["results"]] == [1, 2]
    assert found["results"][0]["network"] == "depthwise 5x5 8x8x16 stride 2x2 relu6"
    assert [row["name"] for row in found["results"][0]["contenders"]] == [
        *("sepconv scalar", "sepconv_packing scalar", "numpy scalar")
    ]
    assert found["results"][0]["contenders"][0]["isa"] == "scalar"
    assert {"machine", "versions", "isa", "load_average", "date", "command"} <= found.keys()


@pytest.mark.parametrize("words", [("--json", "{}"), ("--json={}",)])
def test_the_command_names_files_without_their_folders(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "a=b.json"
    command = ["bench", "--op", "pointwise", "--shape", "4,4,8", *QUICK, *(word.format(document) for word in words)]
    monkeypatch.setattr(sys, "argv", ["sepconv", *command])
    run(capsys, *command)
    found = json.loads(document.read_text(encoding="utf-8"))["command"]
    assert found.endswith(f"--contenders numpy {' '.join(words).format('a=b.json')}")


def test_bench_the_operators_of_mobilenet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from sepconv.bench import operators

    every = operators.mobilenet_operators()
    assert len({network.name for network in every}) == len(every) == 18 + 21
    assert every[-1].name == "separable 3x3 7x7x960→320"
    monkeypatch.setattr(operators, "mobilenet_operators", lambda: [every[17], every[-1]])
    found = json.loads(run(capsys, "bench", "--op-table", *QUICK, "--json"))
    for result in found["results"]:
        assert [row["kind"] for row in result["contenders"]] == ["sepconv", "numpy"]
        assert all(row["milliseconds"]["p25"] > 0 and row["max_relative_error"] < 1e-5 for row in result["contenders"])
    text = run(capsys, "bench", "--op-table", *QUICK[:-1], "sepconv_packing,numpy", "--batch", "2")
    assert "25th percentile (minimum), batch 2\n" in text
    assert "numpy: in --json alone" in text
    # With lines between the columns where rich is installed.
    assert re.search(r"^ *depthwise 3x3 7x7x960[ │]+1[ │]+\d+\.\d \(\d+\.\d\)[ │]+\d", text, re.MULTILINE)


def test_the_table_of_operators() -> None:
    from sepconv.bench import operators

    def row(kind: str, p25: float) -> dict[str, object]:
        return {"kind": kind, "milliseconds": {"p25": p25, "minimum": p25 / 2}}

    times = {"sepconv": 0.02, "sepconv_packing": 0.08, "torch": 0.1, "torch_contiguous": 0.05}
    result = {"network": "depthwise", "threads": 2, "contenders": [row(*item) for item in times.items()]}
    (cells,) = operators.rows([result])
    assert cells[:4] == ["depthwise", "2", "20.0 (10.0)", "80.0 (40.0)"]
    assert cells[-4:] == ["–", "–", "2.50×", "0.62× (loses)"]
    assert len(cells) == len(operators.HEADERS)
    first, second = operators.sentences([result])
    assert "faster of torch's two layouts on 1 of 1" in first
    assert "on 0 of 1" in second
    result["contenders"] = [row("sepconv", 0.02), row("torch", 0.1)]
    assert operators.sentences([result])[0].startswith("with prepared weights: faster than torch channels_last on 1 of")


@needs_matplotlib
def test_bench_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, document = tmp_path / "times.svg", tmp_path / "times.json"
    op = ("--op", "pointwise", "--shape", "4,4,8,16")
    assert "pointwise" in run(capsys, "bench", *op, *QUICK, "--plot", str(picture), "--json", str(document))
    assert picture.read_text(encoding="utf-8").startswith("<?xml")
    assert json.loads(document.read_text(encoding="utf-8"))["schema"] == 1


@needs_matplotlib
def test_bench_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from sepconv.bench import sweep

    monkeypatch.setattr(sweep, "ALPHAS", (0.25, 0.5))
    monkeypatch.setattr(sweep, "RESOLUTIONS", (32, 64))
    monkeypatch.setattr(sweep, "FITTED_FROM", 0.0)
    picture = tmp_path / "sweep.png"
    text = run(capsys, "bench", "--sweep", "--rounds", "2", "--burst", "1", "--plot", str(picture))
    assert "µs a million multiply-adds" in text
    assert picture.stat().st_size > 0


def test_bench_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a name such as mobilenet_v1_1.0_224, " in error(capsys, "bench", "resnet50")
    for wrong, right in (("mobilnet_v2", "mobilenet_v2"), ("shufflenet_v2_0.5", "shufflenet_v2_0.5_224")):
        assert f"MODEL is '{wrong}', must be an existing" in (text := error(capsys, "profile", wrong))
        assert f", {right}" in text.replace("a name such as ", ", ")
    assert "exclude each other" in error(capsys, "bench", "mobilenet_v1", "--sweep")
    assert "--op needs --shape" in error(capsys, "bench", "--op", "conv")
    assert "--shape needs --op" in error(capsys, "bench", "--shape", "4,4,4")
    assert "activation was 'swish'" in error(
        capsys, "bench", "--op", "conv", "--shape", "4,4,4", "--activation", "swish"
    )
    assert "contenders has 'tvm'" in error(capsys, "bench", "--contenders", "tvm")
    assert "isa has 'sse9'" in error(capsys, "bench", "--isa", "sse9")
    with pytest.raises(SystemExit):
        cli.main(["bench", "--threads", "1,0"])
    assert "must be a whole number, 1 or more" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["bench", "--op", "conv", "--shape", "4,4,4", "--kernel", "1,2,3"])
    assert "must be one number or two" in capsys.readouterr().err


@needs_matplotlib
def test_a_plot_that_cannot_be_written_is_known_before_measuring(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--plot is 'times.docx', must end in one of" in error(capsys, "bench", "--plot", "times.docx")


def test_peaks(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "peaks", "--threads", "1,2")
    for line in (*(f"FMA {isa}" for isa in _core.supported_isas()), "read L1", "read L2", "read L3", "read DRAM"):
        assert line in text
    (one,) = json.loads(run(capsys, "peaks", "--threads", "1", "--json"))["peaks"]
    assert set(one["gflops"]) == set(_core.supported_isas())
    assert all(rate > 0 for rate in [*one["gflops"].values(), *one["gigabytes_a_second"].values()])


def test_more_threads_than_cpus_have_the_peaks_of_the_cpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rate(what: object, *rest: Any) -> list[float]:
        return [1e9 * rest[-2]]  # of each thread

    monkeypatch.setattr(_core, "measure_fma", rate)
    monkeypatch.setattr(_core, "measure_read", rate)
    monkeypatch.setattr(machine, "cpus", lambda: 2)
    found = json.loads(run(capsys, "peaks", "--threads", "1,2,64", "--json"))["peaks"]
    rates = [(peak["threads"], {*peak["gflops"].values(), *peak["gigabytes_a_second"].values()}) for peak in found]
    assert rates == [(1, {1.0}), (2, {2.0}), (64, {2.0})]
    text = run(capsys, "peaks", "--threads", "1,64")
    assert re.search(r"FMA scalar.* 1\.0 GFLOP/s.* 2\.0 GFLOP/s", text)
    assert re.search(r"read DRAM.* 1\.0 GB/s.* 2\.0 GB/s", text)
    questions: list[dict[str, Any]] = []

    def ask(self: processes.Worker, question: dict[str, Any]) -> dict[str, Any]:
        questions.append(question)
        return kept(self, question)

    kept = processes.Worker.ask
    monkeypatch.setattr(processes.Worker, "ask", ask)
    run(capsys, "bench", "--op", "pointwise", "--shape", "4,4,8", *QUICK, "--threads", "64")
    assert [question["threads"] for question in questions if question.get("kind") == "fma"] == [2]


def test_measuring_checks_its_arguments() -> None:
    with pytest.raises(ValueError, match="isa must be one of"):
        _core.measure_fma("sse9", 1, 0.0)
    with pytest.raises(ValueError, match="threads is 0, must be between 1 and"):
        _core.measure_fma("scalar", 0, 0.0)
    with pytest.raises(ValueError, match="seconds is -1"):
        _core.measure_read("scalar", 1 << 12, 1, -1.0)
    with pytest.raises(ValueError, match="bytes is 8, must be at least 128"):
        _core.measure_read("scalar", 8, 1, 0.0)


def some_peaks() -> peaks.Peaks:
    bandwidth = {"L1": 400e9, "L2": 200e9, "L3": 40e9, "DRAM": 10e9}
    sizes = {"L1": 32 << 10, "L2": 1 << 20, "L3": 16 << 20}
    return peaks.Peaks(1, 1, _core.isa(), {_core.isa(): 100e9}, bandwidth, sizes)


def test_what_bounds_a_step() -> None:
    found = some_peaks()
    assert [found.level(size) for size in (1, 32 << 10, 33 << 10, 2 << 20, 1 << 30)] == ["L1", "L1", "L2", "L3", "DRAM"]
    assert found.seconds(_core.isa(), 1e9, {"L2": 1e6}) == (0.01, "multiply-adds")
    assert found.seconds(_core.isa(), 1e6, {"L1": 1e3, "DRAM": 1e6}) == (1e-4, "DRAM")


def test_a_profile() -> None:
    network = networks.open_network("mobilenet_v2_0.35_32")
    fused = profile.profile(network, some_peaks(), repeat=3)
    alone = profile.profile(network, some_peaks(), repeat=2, fused=False, batch=2)
    layers = [layer.name for layer in network.layers[1:]]
    assert list(dict.fromkeys(name for step in fused.steps for name in step.layers)) == layers
    assert list(dict.fromkeys(step.layers for step in alone.steps)) == [(name,) for name in layers]
    assert len(fused.steps) < len(layers)
    for layer in filter(lambda layer: layer.macs, cost(network.layers).layers):
        assert sum(step.macs for step in alone.steps if layer.name in step.layers) == 2 * layer.macs
    for step in alone.steps:
        assert step.milliseconds >= step.minimum > 0
        assert step.bound in ("multiply-adds", "L1", "L2", "L3", "DRAM")
        assert all(kernel.endswith(_core.isa()) or kernel.startswith("to_") for kernel in step.kernels)
    shared = profile.profile(network, some_peaks(), threads=3, repeat=2, batch=9)  # eight of them share the last steps
    assert all(step.milliseconds >= step.minimum > 0 for step in shared.steps)
    table = profile.rows(fused)
    assert table[-1][0] == "total"
    assert np.isclose(float(table[-1][3]), fused.milliseconds, atol=1e-3)


@needs_matplotlib
@pytest.mark.parametrize("name", ["$\\frac$", "a\x1b[2J", "\udcff"])
def test_names_that_are_no_plain_text(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not mathematics to matplotlib, nothing to a terminal; \\udcff is a byte that is no UTF-8."""
    pytest.importorskip("tflite")
    path, layer = tmp_path / f"{name}.tflite", name.replace("\udcff", "y")
    conv = graph.Conv2d(name=layer, inputs=("x",), weight=np.ones((1, 1, 3, 4), np.float32))
    export_model([graph.Input(name="x", shape=(4, 4, 3)), conv], path)
    for command in (("bench", *QUICK), ("profile", "--repeat", "1")):
        text = run(capsys, command[0], str(path), *command[1:], "--plot", str(tmp_path / "plot.svg"))
        assert text.startswith(f"{printable(name)}, 1 thread")


@needs_matplotlib
def test_the_roofline_of_a_network_without_multiply_adds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tflite")
    vector = graph.Reshape(name="vector", inputs=("x",), shape=(1, 1, 48))
    export_model([graph.Input(name="x", shape=(4, 4, 3)), vector], tmp_path / "vector.tflite")
    run(capsys, "profile", str(tmp_path / "vector.tflite"), "--repeat", "1", "--plot", str(tmp_path / "plot.png"))
    assert (tmp_path / "plot.png").stat().st_size > 0


@pytest.mark.parametrize(("batch", "reads"), [(1, 1), (3, 3), (8, 1), (21, 7)])
def test_the_last_steps_read_their_weights_once_for_a_group(batch: int, reads: int) -> None:
    """And a step before them, on 1×1 activations too, once an image."""
    weight = np.ones((1, 1, 64, 64), np.float32)
    layers = [
        graph.Input(name="x", shape=(1, 1, 64)),
        graph.Conv2d(name="a", inputs=("x",), weight=weight),
        graph.Upsample(name="b", inputs=("a",), size=(2, 2)),
        graph.GlobalAveragePool(name="c", inputs=("b",)),
        graph.FullyConnected(name="d", inputs=("c",), weight=weight[0, 0]),
    ]
    slow = dataclasses.replace(some_peaks(), bandwidth={"DRAM": 1e6}, sizes={})
    network = networks.Network("tail", tuple(layers))
    found = profile.profile(network, slow, repeat=1, fused=False, batch=batch)
    first, last = (next(step for step in found.steps if step.layers == (name,) and step.macs) for name in ("a", "d"))
    activations = batch * 4 * 128
    for step, times in ((first, batch), (last, reads)):
        assert 1e3 * step.bound_ms == pytest.approx(times * (step.bytes - activations) + activations)


@needs_matplotlib
def test_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "roofline.png"
    text = run(capsys, "profile", "mobilenet_v1_0.25_32", "--repeat", "2", "--plot", str(picture))
    assert "classifier" in text
    assert "of the bound" in text
    assert picture.stat().st_size > 0
    found: dict[str, Any] = json.loads(run(capsys, "profile", "mobilenet_v1_0.25_32", "--repeat", "2", "--json"))
    assert found["isa"] == _core.isa()
    assert (found["batch"], found["repeat"]) == (1, 2)
    assert ", 1 thread, batch 3, " in run(capsys, "profile", "mobilenet_v1_0.25_32", "--repeat", "2", "--batch", "3")
    assert all(step["bytes"] > 0 for step in found["steps"])


def test_a_narrow_terminal_cuts_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    console.print_table("title", ("layers", "ms", "KB"), [["a layer with a long name", "123.4567", "98765.4"]])
    first, second = capsys.readouterr().out.splitlines()[-3:-1]
    assert first.split() == ["a", "layer", "with", "│", "123.4567", "│", "98765.4"]
    assert second.split() == ["a", "long", "name", "│", "│"]


def test_a_dumb_terminal_cuts_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    row = ["depthwise" * 20, *map(str, range(10**11, 10**11 + 8))]
    console.print_table("title", [""] * 9, [row])
    text = capsys.readouterr().out
    assert all(cell in text for cell in row[1:])
    assert "…" not in text
    assert text.count("d") == 20


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_the_encoding_lacks_are_replaced(encoding: str) -> None:
    command = ("bench", "--op", "pointwise", "--shape", "4,4,8,9", "--rounds", "1", "--burst", "1")
    done = piped(*command, "--contenders", "numpy", PYTHONIOENCODING=encoding)
    out, err = done.communicate(timeout=120)
    assert (done.returncode, err) == (0, b"")
    assert re.match(rf"pointwise 4x4x8>9, 1 thread {'-' if encoding == 'ascii' else '·'} ", out.decode(encoding))


def test_a_reader_that_leaves_is_no_error() -> None:
    with piped("bench", "--op", "pointwise", "--shape", "4,4,8", "--rounds", "1", "--contenders", "numpy") as done:
        assert done.stdout is not None
        done.stdout.close()
        assert done.wait(timeout=120) == cli.EXIT_BROKEN_PIPE


def piped(*arguments: str, **env: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sepconv", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **env})


def test_the_table_has_no_interval_of_one_round_and_names_as_the_notes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(method, "MAX_RELATIVE_ERROR", -1.0)
    monkeypatch.setattr(console, "_rich", lambda: False)
    text = run(capsys, "bench", "--op", "pointwise", "--shape", "4,4,8", "--rounds", "1", "--contenders", "numpy")
    assert "  sepconv, packing included: its outputs are others" in text
    assert re.search(r"^sepconv, packing included +–", text, re.MULTILINE)
    monkeypatch.undo()
    text = run(capsys, "bench", "--op", "pointwise", "--shape", "4,4,8", "--rounds", "1", "--contenders", "numpy")
    assert re.search(r"^sepconv .* 1\.00 +[│|]? *0e\+00", text, re.MULTILINE), text


def test_the_names_that_help_tells_are_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--help"])
    text = capsys.readouterr().out
    assert " oracle" in text
    families = re.findall(r"\b(?:mobilenet|efficientnet|mnasnet|shufflenet|ssdlite)_\w+", text)
    assert len(families) >= 8
    assert all(map(is_name, families))


def test_tables_without_rich(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "_rich", lambda: False)
    console.print_table("title", ("a", "b"), [["x", "1"], [], ["y", "22"]])
    assert capsys.readouterr().out == "title\na   b\n-  --\nx   1\n-  --\ny  22\n\n"
    with console.progress(2) as advance:
        advance("nothing")


def test_missing_extras_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package, extra, path in (("onnx", "onnx", "a.onnx"), ("tflite", "tflite", "a.tflite")):
        monkeypatch.setitem(sys.modules, package, None)
        assert f"{package}: install the extra '{extra}' (in a clone: pip install '.[{extra}]')" in error(
            capsys, "export", "mobilenet_v1_0.25_32", str(tmp_path / path)
        )
    export_model(networks.open_network("mobilenet_v1_0.25_32").layers, tmp_path / "a.param")
    assert (tmp_path / "a.bin").stat().st_size > 0
    assert "--keep-batch-norm is for .onnx files" in error(
        capsys, "export", "mobilenet_v1_0.25_32", str(tmp_path / "a.param"), "--keep-batch-norm"
    )


def test_the_document_says_what_was_measured() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(root / "tools" / "update_benchmarks.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
