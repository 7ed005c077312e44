"""One contender in a process of its own, which ``processes`` starts and drives by lines of JSON.

The first line says who and what: kind, folder, file, threads. The answer tells how long loading took and what memory.
Then each line asks for a burst: seconds, and whether caches are cold; the answer is the time of each run. The kind
``fma`` is the calibration loop: its answer is multiply-adds a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from sepconv.bench.runners import INPUT, RUNNERS, Task

Answer = dict[str, Any]
PR_SET_PDEATHSIG = 1
MINIMUM_RUNS = 2


def peak_memory() -> int:
    """Bytes that this process has had resident at most."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    answers, questions = _private_pipes()
    _die_with_parent()
    for line in questions:
        question = json.loads(line)
        if "kind" in question:
            burst, answer = _calibration(question) if question["kind"] == "fma" else _contender(question)
        else:
            answer = burst(question)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _contender(question: Answer) -> tuple[Callable[[Answer], Answer], Answer]:
    folder = Path(question["folder"])
    memory_before = peak_memory()
    imported = time.perf_counter()
    x = np.load(folder / INPUT)
    task = Task(
        folder,
        question["file"],
        question["input"],
        tuple(question["outputs"]),
        x,
        question["threads"],
        question["operator"],
    )
    runner = RUNNERS[question["kind"]](task)
    start = time.perf_counter()
    runner.open()
    result = runner.run()
    first = time.perf_counter()
    memory = peak_memory() - memory_before
    # Here rather than where they are compared: what is no array of numbers is this contender's failure alone.
    outputs = [np.asarray(y).astype(np.float32, casting="same_kind", copy=False) for y in runner.outputs(result)]
    np.savez(question["results"], *outputs)
    answer = {"import": start - imported, "startup": first - start, "memory": memory, "isa": runner.isa()}

    def burst(ask: Answer) -> Answer:
        return {"seconds": _times(runner.run, ask["seconds"], ask["flush_bytes"])}

    return burst, answer


def _times(run: Callable[[], Any], seconds: float, flush_bytes: int) -> list[float]:
    """Seconds of each run, for about ``seconds`` in all; before them one that brings back what others displaced."""
    run()
    times: list[float] = []
    flush = np.ones(flush_bytes // 8) if flush_bytes else None
    end = time.perf_counter() + seconds
    while len(times) < MINIMUM_RUNS or time.perf_counter() < end:
        if flush is not None:
            flush += 1.0
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def _calibration(question: Answer) -> tuple[Callable[[Answer], Answer], Answer]:
    from sepconv import _core

    def burst(ask: Answer) -> Answer:
        return {"rates": _core.measure_fma(question["isa"], question["threads"], ask["seconds"])}

    return burst, {"isa": question["isa"]}


def _private_pipes() -> tuple[IO[str], IO[str]]:
    """Pipes that nothing but this module writes to or reads: runtimes print at times."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    return answers, questions


def _die_with_parent() -> None:
    """A stopped process would not notice that its pipes are closed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
