"""The benchmark beside peers that do what they should not, and what is counted as a contender's own time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("sepconv.threads", reason="needs the built engine")
from sepconv import cli
from sepconv.bench import contenders, method, networks
from sepconv.bench.processes import Worker, WorkerError
from sepconv.bench.runners import LAYERS

SMALL = networks.operator("depthwise", (4, 4, 8))


def odd_peer(folder: Path, monkeypatch: pytest.MonkeyPatch, *, opens: str = "pass", result: str = "0") -> None:
    """A package that stands in for onnxruntime: ``opens`` is run by its import, ``result`` is what it computes."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(contenders.KINDS, "onnxruntime", contenders.Kind("onnxruntime", "onnxruntime", LAYERS))
    (folder / "onnxruntime.py").write_text(
        f"import numpy as np\n{opens}\n"
        "class SessionOptions: pass\n"
        "class Input: name = 'x'\n"
        "class InferenceSession:\n"
        "    def __init__(self, *args, **options): pass\n"
        "    def get_inputs(self): return [Input]\n"
        f"    def run(self, names, feeds): return [{result}]\n"
    )


@pytest.mark.parametrize("result", ["np.array([None])", "np.full((1, 8, 4, 4), 'a')", "np.ones((1, 8, 4, 4), complex)"])
def test_results_that_are_no_numbers_exclude_their_peer_alone(
    result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd_peer(tmp_path, monkeypatch, result=result)
    chosen = contenders.choose(["onnxruntime", "numpy"], [], ["scalar"])
    compared = method.compare(SMALL, chosen, method.Settings(rounds=2, burst=0.001))
    assert "Cannot cast array data" in (compared.contenders[1].excluded or "")
    assert [entry.excluded for entry in compared.contenders if entry.contender.kind != "onnxruntime"] == [None, None]


def test_what_a_peer_wrote_last_does_nothing_to_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd_peer(tmp_path, monkeypatch, opens=r"raise ImportError('\x1b[2Jno such library')")
    quick = ["--rounds", "2", "--burst", "1", "--contenders", "onnxruntime"]
    assert cli.main(["bench", "--op", "depthwise", "--shape", "4,4,8", *quick]) == 0
    assert r"onnxruntime: ImportError: \x1b[2Jno such library" in capsys.readouterr().out


def test_half_an_answer_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a process that is killed while it writes one that is longer than a pipe holds."""
    monkeypatch.setattr("sepconv.bench.processes.COMMAND", ("-c", "print('{\"seconds\": [0.1', end='')"))
    with Worker({}, tmp_path / "log") as worker, pytest.raises(WorkerError, match="its process ended with status 0"):
        worker.ask({})


def test_what_a_peer_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the pipe of the answers, whose end was waited for."""
    monkeypatch.setattr("sepconv.bench.processes.COMMAND", ("-c", "import os, time; os.fork(); time.sleep(60)"))
    monkeypatch.setattr("sepconv.bench.processes.TIME_LIMIT", 1.0)
    start = time.monotonic()
    with Worker({}, tmp_path / "log") as worker, pytest.raises(WorkerError, match="it gave no answer in 1 s"):
        worker.ask({})
    assert time.monotonic() - start < 30


def test_what_flushes_the_caches_is_nobody_s_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than a burst: contenders sat out rounds, and had a quarter of the runs that were asked for."""
    monkeypatch.setattr(method, "flush_size", lambda: 256 << 20)
    settings = method.Settings(rounds=6, burst=0.02, cold=True)
    compared = method.compare(SMALL, contenders.choose(["sepconv"], [], ["scalar"]), settings)
    assert len(compared.contenders[0].bursts) == 6


def test_what_is_imported_is_not_in_the_time_of_the_start(tmp_path: Path) -> None:
    """The functions of sepconv's operators, which are imported by the first use."""
    contenders.prepare(SMALL, 1, tmp_path, {"sepconv"})
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from sepconv.bench.runners import INPUT, LAYERS, RUNNERS, Task\n"
        f"folder = Path({str(tmp_path)!r}); task = Task(folder, LAYERS, 'input', ('depthwise',),"
        " np.load(folder / INPUT), 1, True)\n"
        "for kind in ('sepconv_packing', 'sepconv'):\n"
        "    runner = RUNNERS[kind](task); before = set(sys.modules)\n"
        "    runner.open(); runner.run(); assert set(sys.modules) == before, set(sys.modules) - before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
