"""The benchmark's parts: what it runs, who takes part, how processes answer, what becomes of the times.

No test asserts a time.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_export import NETWORKS

from sepconv import cost, graph
from sepconv.bench import contenders, method, networks, processes, report, statistics, sweep
from sepconv.bench.contenders import Contender
from sepconv.bench.numpy_network import run_network
from sepconv.bench.processes import Worker, WorkerError
from sepconv.lowering import folded_layers
from sepconv.models import mobilenet_v1_layers

pytest.importorskip("sepconv.threads", reason="needs the built engine")
from sepconv import _core
from sepconv.model import Model

Compute = Callable[[list[graph.Layer], NDArray[np.float32]], list[NDArray[np.float32]]]
RNG = np.random.default_rng(3)
QUICK = method.Settings(rounds=3, burst=0.001)
SMALL = networks.operator("separable", (7, 6, 5, 4), stride=(2, 2), activation="relu6")
HAVE_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


@pytest.mark.parametrize(
    ("model", "name", "macs"),
    [
        ("mobilenet_v1_1.0_224", "mobilenet_v1_1.0_224", 568.74),
        ("mobilenet_v1_0.25_128", "mobilenet_v1_0.25_128", None),
        ("mobilenet_v2", "mobilenet_v2_1.0_224", 300.77),
        ("efficientnet_lite0", "efficientnet_lite0", 385.19),
        ("efficientnet_lite0_192", "efficientnet_lite0_192", None),
    ],
)
def test_networks_by_name(model: str, name: str, macs: float | None) -> None:
    network = networks.open_network(model)
    assert network.name == name
    assert network.macs == cost(network.layers).macs
    assert macs is None or round(network.macs / 1e6, 2) == macs


def test_a_network_from_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tflite")
    from sepconv.export import export_model

    path = tmp_path / "mine.tflite"
    export_model(mobilenet_v1_layers(0.25, 32, 5), path)
    network = networks.open_network(str(path))
    assert network.name == "mine"
    assert network.input.shape == (32, 32, 3)
    with pytest.raises(ValueError, match=r"weights is 'w\.pth', must be left out"):
        networks.open_network(str(path), weights="w.pth")


@pytest.mark.parametrize("model", ["mobilenet_v3", "mobilenet_v1_224", "nothing.tflite", "no/such/file", ""])
def test_what_names_no_network(model: str) -> None:
    with pytest.raises(ValueError, match=r"MODEL is '.*', must be an existing \.tflite or \.onnx file or a name such"):
        networks.open_network(model)


def test_operators() -> None:
    shapes = {
        "depthwise": ((9, 8, 4, 8), {"kernel": (5, 3), "stride": (2, 1)}, (5, 8, 8), 5 * 8 * 8 * 15),
        "pointwise": ((9, 8, 4, 7), {}, (9, 8, 7), 9 * 8 * 28),
        "separable": ((9, 8, 4, 7), {"stride": (2, 2)}, (5, 4, 7), 5 * 4 * (4 * 9 + 28)),
        "conv": ((9, 8, 4), {"padding": "valid", "dilation": (2, 1)}, (5, 6, 4), 30 * 9 * 16),
    }
    for kind, (shape, options, output, macs) in shapes.items():
        network = networks.operator(kind, shape, **options)  # type: ignore[arg-type]
        assert list(graph.infer_shapes(network.layers).values())[-1] == output
        assert network.macs == macs
    several = networks.operator("conv", (8, 8, 3), dilation=(2, 1), padding="valid", activation="relu6")
    assert several.name == "conv 3x3 8x8x3 dilation 2x1 valid relu6"
    with pytest.raises(ValueError, match=r"kernel is \(3, 3\), must be left out for a pointwise convolution"):
        networks.operator("pointwise", (4, 4, 4), kernel=(3, 3))
    assert networks.operator("pointwise", (4, 4, 4), kernel=(1, 1)).name == "pointwise 4x4x4"
    with pytest.raises(ValueError, match=r"shape is \(4, 4\), must be H,W,C or H,W,C,N"):
        networks.operator("conv", (4, 4))
    with pytest.raises(ValueError, match="N a multiple of C"):
        networks.operator("depthwise", (4, 4, 3, 4))


def compute_numpy(layers: list[graph.Layer], x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return run_network(layers, graph.outputs(layers), x)


def compute_torch(layers: list[graph.Layer], x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    pytest.importorskip("torch")
    from sepconv.bench.torch_network import TorchNetwork, to_torch

    return [y.numpy().transpose(0, 2, 3, 1) for y in TorchNetwork(layers, graph.outputs(layers))(to_torch(x))]


@pytest.mark.parametrize("compute", [compute_numpy, compute_torch])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_peers_that_are_written_here(name: str, compute: Compute) -> None:
    layers = folded_layers(NETWORKS[name])
    model = Model(layers, name=name)
    x = RNG.standard_normal((2, *networks.Network(name, tuple(layers)).input.shape), dtype=np.float32)
    expected = model(x)
    outputs = expected if isinstance(expected, tuple) else (expected,)
    assert method.relative_error(compute(layers, x), outputs) < 2e-6


def test_who_takes_part() -> None:
    everybody = contenders.choose(None, [], ["scalar", "avx2", "avx512"])
    assert everybody[0] == Contender("sepconv")
    assert [c.kind for c in everybody] == [k for k, kind in contenders.KINDS.items() if kind.default]
    held = contenders.choose(["openvino", "litert"], ["avx2", "avx512"], ["scalar", "avx2", "avx512"])
    assert [c.name for c in held] == [
        *("sepconv avx512", "sepconv avx2", "openvino", "openvino avx2", "litert", "litert avx2")
    ]
    assert contenders.reason_absent(held[-1], {}) == "nothing holds it to avx2"
    assert held[1].environment(2)["SEPCONV_ISA"] == "avx2"
    assert held[3].environment(2) == held[2].environment(2) | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    with pytest.raises(ValueError, match="contenders has 'tvm', must be of sepconv, sepconv_packing, onnxruntime"):
        contenders.choose(["tvm"], [], ["scalar"])
    with pytest.raises(ValueError, match="isa has 'avx2', must be of scalar on this machine"):
        contenders.choose(None, ["avx2"], ["scalar"])


def test_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method, "FRESH_STARTS", 2)
    monkeypatch.setattr(method, "flush_size", lambda: 1 << 20)
    chosen = contenders.choose(["numpy", "oracle", *(["onnxruntime"] if HAVE_ONNX else [])], [], ["scalar"])
    doing: list[str] = []
    flushed: list[int] = []

    def ask(self: Worker, question: dict[str, Any]) -> dict[str, Any]:
        flushed.extend(question[key] for key in question if key == "flush_bytes")
        return kept(self, question)

    kept = Worker.ask
    monkeypatch.setattr(Worker, "ask", ask)
    settings = method.Settings(threads=1, batch=2, rounds=2, burst=0.001, startup=True, memory=True, cold=True)
    compared = method.compare(SMALL, chosen, settings, doing.append)
    assert len(doing) == method.steps_of(chosen, settings)
    for entry in compared.contenders:
        assert entry.excluded is None
        assert entry.error is not None
        assert entry.error < 1e-6
        assert len(entry.bursts) >= 1
        assert min(map(min, entry.bursts)) > 0
        assert len(entry.startup) == 2
    assert set(flushed) == {1 << 20}
    assert compared.contenders[0].isa is not None
    assert min(compared.rates["scalar"]) > 0

    found = report.document([compared], ["sepconv", "bench"], "scalar", None)
    assert found["versions"]["numpy"] == np.__version__
    assert {"processor", "cores", "architecture"} <= found["machine"].keys()
    (result,) = found["results"]
    assert result["macs"] == SMALL.macs
    assert result["contenders"][0]["ratio"]["value"] == 1.0
    assert len(report.headers(result)) == len(report.rows(result)[0])
    assert report.headers(result)[-2:] == ["start ms", "memory MB"]
    assert "batch 2, caches cold · 0.00078 M multiply-adds an image" in report.title(result)
    assert report.notes(result) == []
    (summary,) = report.summaries(result)
    assert summary.startswith("sepconv is ")


def test_who_is_wrong_or_missing_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method, "MAX_RELATIVE_ERROR", -1.0)
    monkeypatch.setitem(contenders.KINDS, "ncnn", contenders.Kind("no_such_package", "ncnn-from-pypi", "network.param"))
    chosen = [Contender("sepconv"), Contender("ncnn"), Contender("numpy")]
    compared = method.compare(SMALL, chosen, QUICK)
    reasons = [entry.excluded or "" for entry in compared.contenders]
    assert reasons[1] == "not installed (pip install ncnn-from-pypi)"
    assert reasons[2].startswith("its outputs are others: relative error")
    (result,) = report.document([compared], [], "scalar", None)["results"]
    assert [line.partition(":")[0] for line in report.notes(result)][-2:] == ["ncnn", "numpy"]
    compared.contenders[2].error = float("inf")
    json.dumps(report.document([compared], [], "scalar", None), allow_nan=False)
    assert report.rows(result)[1][1] == "–"


def test_what_a_peer_cannot_take_is_listed() -> None:
    pytest.importorskip("tflite")
    pytest.importorskip("ai_edge_litert")
    odd = [
        graph.Input(name="input", shape=(5, 5, 4)),
        graph.MaxPool2d(name="a", inputs=("input",), kernel=(3, 3), stride=(1, 1), padding=((1, 0), (0, 0))),
    ]
    network = networks.Network("odd", tuple(odd))
    compared = method.compare(network, [Contender("sepconv"), Contender("litert")], QUICK)
    assert compared.contenders[0].bursts
    assert "which TFLite cannot say" in (compared.contenders[1].excluded or "")


def test_outputs_that_differ() -> None:
    a = np.array([1.0, -4.0, 2.0], np.float32)
    assert method.relative_error([a], [a]) == 0
    assert method.relative_error([a + np.float32(0.5)], [a]) == pytest.approx(0.125)
    assert method.relative_error([a * np.float32("nan")], [a]) == float("inf")
    assert method.relative_error([a, a], [a]) == float("inf")
    assert method.relative_error([a[:2]], [a]) == float("inf")


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Worker({}, log) as worker, pytest.raises(WorkerError, match="KeyError: 'folder'"):
        worker.ask({"kind": "numpy"})
    with Worker({}, log) as worker:
        worker._process.kill()
        with pytest.raises(WorkerError, match="its process ended by SIGKILL"):
            worker.ask({"kind": "fma", "isa": "scalar", "threads": 1})
    assert worker._process.returncode is not None


def killed_at(monkeypatch: pytest.MonkeyPatch, name: str, ask_number: int) -> None:
    """The process of this contender is killed before it answers that question."""
    asked: list[str] = []
    ask = Worker.ask

    def counting(self: Worker, question: dict[str, Any]) -> dict[str, Any]:
        asked.append(self._log.stem)
        if self._log.stem == name and asked.count(name) == ask_number:
            self._process.kill()
        return ask(self, question)

    monkeypatch.setattr(Worker, "ask", counting)


@pytest.mark.parametrize("ask_number", [1, 2, 3])
@pytest.mark.parametrize("isas", [[], ["scalar"]])
def test_a_comparison_ends_where_sepconv_does(
    isas: list[str], ask_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it starts, in its first burst and in a later one."""
    chosen = contenders.choose(["numpy"], isas, ["scalar"])
    killed_at(monkeypatch, chosen[0].name, ask_number)
    with pytest.raises(WorkerError, match=f"^{chosen[0].name}: its process ended by SIGKILL$"):
        method.compare(SMALL, chosen, QUICK)


def test_a_peer_that_ends_is_excluded(monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at(monkeypatch, "numpy", 3)
    compared = method.compare(SMALL, contenders.choose(["numpy"], [], ["scalar"]), QUICK)
    assert [entry.excluded for entry in compared.contenders] == [None, "its process ended by SIGKILL"]


def test_a_process_without_an_answer_is_not_called_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TIME_LIMIT", 0.0)
    with Worker({}, tmp_path / "log") as worker, pytest.raises(WorkerError, match="it gave no answer in 0 s"):
        worker.ask({"kind": "fma", "isa": "scalar", "threads": 1})


def test_a_process_does_not_import_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    (tmp_path / "pickle.py").write_text("raise SystemExit('the wrong one')")
    with Worker({}, tmp_path / "log") as worker:
        assert worker.ask({"kind": "fma", "isa": "scalar", "threads": 1}) == {"isa": "scalar"}


def test_a_network_whose_outputs_are_not_finite() -> None:
    """Which would differ from themselves."""
    weight = np.full((1, 1, 5, 5), 1e30, np.float32)
    layers = [graph.Conv2d(name=name, inputs=(x,), weight=weight) for name, x in ("yx", "zy")]
    network = networks.Network("huge", (graph.Input(name="x", shape=(3, 3, 5)), *layers))
    with pytest.raises(WorkerError, match="the outputs of huge for random input are not finite: nothing to compare"):
        method.compare(network, contenders.choose(["numpy"], [], ["scalar"]), QUICK)


def test_ncnn_works_in_place_on_its_own_memory() -> None:
    pytest.importorskip("ncnn")
    relu = graph.Activation(name="y", inputs=("x",), activation="relu")
    network = networks.Network("relu", (graph.Input(name="x", shape=(6, 6, 4)), relu))
    compared = method.compare(network, contenders.choose(["ncnn"], [], ["scalar"]), QUICK)
    assert [entry.excluded for entry in compared.contenders] == [None, None]


def test_what_a_process_wrote_does_not_hide_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    script = tmp_path / "script"
    script.write_text("echo noise >&2; exit 3")
    monkeypatch.setattr(processes, "COMMAND", (str(script),))
    with (
        Worker({}, tmp_path / "log") as worker,
        pytest.raises(WorkerError, match="ended with status 3; it wrote 'noise'"),
    ):
        worker.ask({})


def test_a_free_peer_is_held_against_the_best_peak() -> None:
    """But sepconv against that of the ISA in use, and who is held against that of his."""
    free, own, held = Contender("numpy"), Contender("sepconv"), Contender("sepconv", "avx2")
    assert [contender.peak_isa("scalar", "avx512") for contender in (free, own, held)] == ["avx512", "scalar", "avx2"]
    best = _core.supported_isas()[-1]
    compared = method.compare(SMALL, [own, free], QUICK, isa="scalar", best_isa=best)
    (result,) = report.document([compared], [], "scalar", None)["results"]
    for row, isa in zip(result["contenders"], ("scalar", best), strict=True):
        assert row["gflops"] / row["share_of_peak"] == pytest.approx(result["peak_gflops"][isa])
    assert report.isas([result]) == [_core.isa()]


def test_sepconv_reads_the_file_that_litert_reads(tmp_path: Path) -> None:
    pytest.importorskip("tflite")
    network = networks.open_network("mobilenet_v2_0.35_32")
    assert contenders.prepare(network, 1, tmp_path, {"sepconv"}) == {}
    assert contenders.sepconv_file(tmp_path, network.outputs) == contenders.TFLITE
    (tmp_path / contenders.TFLITE).unlink()
    assert contenders.sepconv_file(tmp_path, network.outputs) == "layers.pickle"


def test_statistics() -> None:
    assert statistics.summarise([[1.0, 5.0], [2.0, 4.0, 3.0]]) == statistics.Times(1000, 2000, 3000, 5)
    # A quarter of the resamples has one burst twice, a quarter the other.
    assert statistics.ratio([[1.0], [3.0]], [[1.0], [1.0]]) == statistics.Ratio(1.5, 1.0, 3.0)
    bursts = RNG.normal(10, 0.1, (20, 8)).tolist()
    slower = [[2 * value for value in burst] for burst in bursts]
    ratio = statistics.ratio(slower, bursts)
    assert ratio.value == pytest.approx(2.0)
    assert 1.95 < (ratio.low or 0) < 2.0 < (ratio.high or 0) < 2.05
    one = statistics.ratio(slower[:1], bursts[:1])
    assert (one.low, one.high) == (None, None)
    assert statistics.typical_rate([1.0, 2.0, 3.0, 4.0, 5.0]) == 4.0


def sweep_result(name: str, macs: float, milliseconds: float, threads: int = 1) -> dict[str, Any]:
    share = 2e-6 * macs / milliseconds / 100
    row = {"name": "sepconv", "kind": "sepconv", "milliseconds": {"p25": milliseconds}, "share_of_peak": share}
    known = {"network": name, "macs": macs, "batch": 1, "cold": False, "threads": threads}
    return {**known, "peak_gflops": {"scalar": 100.0}, "contenders": [row]}


def test_each_number_of_threads_has_its_line_and_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {name: networks.open_network(name).macs for name in sweep.names()}
    results = [sweep_result(name, macs, 20e-9 * macs / n, n) for name, macs in costs.items() for n in (1, 2)]
    fitted = sweep.lines(results)
    assert {name: line["slope"] for name, line in fitted.items()} == pytest.approx(
        {"sepconv, 1 thread": 0.02, "sepconv, 2 threads": 0.01}
    )
    pytest.importorskip("matplotlib")
    from sepconv.bench import plot

    figures: list[Any] = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, path, dpi: figures.append(figure))
    plot.save_sweep(tmp_path / "sweep.svg", results, "")
    curves = {line.get_label(): line.get_ydata()[-1] for line in figures[0].axes[0].get_lines()}
    most = 20e-9 * costs["mobilenet_v1_1.0_224"]
    assert curves["sepconv, 1 thread"] == pytest.approx(most)
    assert curves["sepconv, 2 threads"] == pytest.approx(most / 2)


def test_the_line_of_a_sweep() -> None:
    costs = {name: networks.open_network(name).macs for name in sweep.names()}
    assert len(costs) == 7
    # 100 GFLOP/s are 20 microseconds a million multiply-adds; this is a quarter slower, and 0.1 ms besides.
    results = [sweep_result(name, macs, 25e-9 * macs + 0.1) for name, macs in costs.items()]
    line = sweep.fit(results, "sepconv")
    assert line is not None
    assert (line.slope, line.offset) == pytest.approx((0.025, 0.1))
    assert line.of_peak == pytest.approx(1.25)
    assert sweep.fit(results[:1], "sepconv") is None
    (sentence,) = sweep.sentences(sweep.lines(results))
    assert "1.25 times the peak's" in sentence
    widths, resolutions = sweep.series(results)
    assert [square for square, _ in widths] == [0.0625, 0.25, 0.5625, 1.0]
    assert len(resolutions) == 4


def test_a_comparison_tells_only_what_was_asked_for() -> None:
    chosen = contenders.choose(["numpy"], [], ["scalar"])
    settings = method.Settings(threads=1, rounds=1, burst=0.001, memory=True)
    compared = method.compare(SMALL, chosen, settings, lambda doing: None)
    (result,) = report.document([compared], ["sepconv", "bench"], "scalar", None)["results"]
    assert report.headers(result)[-2:] == ["error", "memory MB"]  # one start, files not in memory yet, says little
    assert "startup_ms" not in result["contenders"][0]
