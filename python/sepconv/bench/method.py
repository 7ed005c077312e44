"""How contenders are measured: each in its own process, in turn, many short bursts, beside a loop of multiply-adds."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sepconv.bench import machine
from sepconv.bench.contenders import KINDS, Contender, prepare, reason_absent, sepconv_file
from sepconv.bench.networks import Network
from sepconv.bench.processes import Worker, WorkerError, Workers
from sepconv.bench.runners import LAYERS
from sepconv.export.ncnn import ncnn_name
from sepconv.table import format_threads

# Outputs of unlike sums of float32 may differ by this much of the largest; more is another network.
MAX_RELATIVE_ERROR = 1e-3
CALIBRATION_SECONDS = 0.004
LONGEST_BURST = 60.0  # seconds, well below what a process has for an answer
SLOW = 2.0  # bursts' lengths that a contender may be behind its time before it sits out a round
FRESH_STARTS = 12

Advance = Callable[[str], None]
Bursts = list[list[float]]


@dataclass(frozen=True)
class Settings:
    """How long to measure, and under what conditions."""

    threads: int = 1
    batch: int = 1
    rounds: int = 40
    burst: float = 0.04  # seconds
    cold: bool = False
    startup: bool = False
    memory: bool = False


@dataclass
class Measured:
    """What one contender gave. ``excluded`` says why it has no times."""

    contender: Contender
    peak_isa: str  # of the peak that its speed is held against
    isa: str | None = None
    bursts: Bursts = field(default_factory=list)
    error: float | None = None  # largest difference from sepconv's outputs, as a part of their largest
    startup: list[float] = field(default_factory=list)  # seconds from loading to the first result, of fresh processes
    imports: list[float] = field(default_factory=list)  # seconds that importing its package took before that
    memory: int | None = None  # bytes
    excluded: str | None = None


@dataclass
class Comparison:
    """One network under one setting."""

    network: Network
    settings: Settings
    contenders: list[Measured]
    rates: dict[str, list[float]]  # floating-point operations a second of the calibration loop, for each ISA
    seconds: float = 0.0


def steps_of(contenders: Sequence[Contender], settings: Settings) -> int:
    """How often ``compare`` calls ``advance``."""
    fresh = FRESH_STARTS if settings.startup else int(settings.memory)
    return len(contenders) * (1 + fresh) + settings.rounds


def compare(
    network: Network,
    contenders: Sequence[Contender],
    settings: Settings,
    advance: Advance = lambda doing: None,
    isa: str = "scalar",
    best_isa: str = "scalar",
    workers: Workers | None = None,
) -> Comparison:
    """Measure ``contenders``, of which the first must be a sepconv.

    ``advance`` is called with what is being done, ``steps_of`` times; ``isa`` is the one that sepconv has in use, and
    ``best_isa`` the machine's best, for peers that are not held to one. ``workers``: processes to use, and to leave
    running. Raises WorkerError where sepconv itself fails, at whatever time, and where its outputs are not finite; a
    peer that fails is excluded.
    """
    with tempfile.TemporaryDirectory(prefix="sepconv-bench-") as folder:
        return _compare(network, contenders, settings, Path(folder), advance, isa, best_isa, workers)


def _compare(
    network: Network,
    contenders: Sequence[Contender],
    settings: Settings,
    folder: Path,
    advance: Advance,
    isa: str,
    best_isa: str,
    workers: Workers | None,
) -> Comparison:
    begin = time.monotonic()
    measured = [Measured(contender, contender.peak_isa(isa, best_isa)) for contender in contenders]
    missing = prepare(network, settings.batch, folder, {contender.kind for contender in contenders})
    for entry in measured:
        entry.excluded = reason_absent(entry.contender, missing)
    title = f"{network.name}, {format_threads(settings.threads)}"
    runner = _Runs(network, settings, folder, lambda doing: advance(f"{title}: {doing}"), workers)
    isas = list(dict.fromkeys(entry.peak_isa for entry in measured))
    runner.fresh_starts(measured)
    rates = runner.take_turns(measured, isas)
    return Comparison(network, settings, measured, rates, time.monotonic() - begin)


class _Runs:
    def __init__(
        self, network: Network, settings: Settings, folder: Path, advance: Advance, workers: Workers | None
    ) -> None:
        self.workers = workers
        self.network = network
        self.settings = settings
        self.folder = folder
        self.advance = advance
        self.sepconv_file = LAYERS if network.operator else sepconv_file(folder, network.outputs)

    def fresh_starts(self, measured: Sequence[Measured]) -> None:
        """Load to first result, and memory, in processes that end at once; nothing else runs meanwhile."""
        repeats = FRESH_STARTS if self.settings.startup else int(self.settings.memory)
        for _ in range(repeats):
            for entry in measured:
                self.advance(f"{entry.contender.name}: starts")
                if entry.excluded is None:
                    self._fresh_start(entry)

    def _fresh_start(self, entry: Measured) -> None:
        with self._worker(entry.contender) as worker:
            answer = self._ask(worker, entry, self._task(entry.contender))
            if answer is None:
                return
            if self.settings.startup:
                entry.startup.append(answer["startup"])
                entry.imports.append(answer["import"])
            if self.settings.memory:
                entry.memory = max(entry.memory or 0, answer["memory"])

    def take_turns(self, measured: Sequence[Measured], isas: Sequence[str]) -> dict[str, list[float]]:
        """Fill in the bursts; return the calibration's rates."""
        settings = self.settings
        rates: dict[str, list[float]] = {isa: [] for isa in isas}
        flush_bytes = flush_size() if settings.cold else 0
        with contextlib.ExitStack() as stack:
            workers = {id(entry): self._start(entry, stack) for entry in measured}
            calibrations = {isa: stack.enter_context(self._calibration(isa)) for isa in isas}
            for isa, worker in calibrations.items():
                worker.ask({"kind": "fma", "isa": isa, "threads": min(settings.threads, machine.cpus())})
            self._exclude_wrong(measured)
            spent = dict.fromkeys(workers, 0.0)
            for turn in range(settings.rounds):
                self.advance("in turn")
                for isa, worker in calibrations.items():
                    rates[isa] += worker.ask({"seconds": CALIBRATION_SECONDS})["rates"]
                for entry in measured:
                    own = workers[id(entry)]
                    if own is None or entry.excluded is not None:
                        continue
                    if spent[id(entry)] > (turn + SLOW) * settings.burst * SLOW and turn + 1 < settings.rounds:
                        continue
                    answer = self._ask(own, entry, {"seconds": settings.burst, "flush_bytes": flush_bytes})
                    if answer is not None:
                        times = answer["seconds"]
                        entry.bursts.append(times)
                        # And the run before them; what flushes the caches is nobody's time.
                        spent[id(entry)] += sum(times) * (1 + 1 / len(times))
        return rates

    def _start(self, entry: Measured, stack: contextlib.ExitStack) -> Worker | None:
        self.advance(f"{entry.contender.name}: starts")
        if entry.excluded is not None:
            return None
        worker = stack.enter_context(self._worker(entry.contender))
        answer = self._ask(worker, entry, self._task(entry.contender))
        if answer is not None:
            entry.isa = answer["isa"]
        return worker

    def _ask(self, worker: Worker, entry: Measured, question: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None from a peer that fails, which is excluded. Without sepconv there is nothing to compare."""
        try:
            return worker.ask(question)
        except WorkerError as error:
            if entry.contender.kind == "sepconv":
                raise WorkerError(f"{entry.contender.name}: {error}") from None
            entry.excluded = str(error)
            return None

    def _exclude_wrong(self, measured: Sequence[Measured]) -> None:
        """Compare outputs with the first contender's, which is sepconv."""
        reference = self._outputs(measured[0].contender)
        if not all(np.isfinite(array).all() for array in reference):
            raise WorkerError(f"the outputs of {self.network.name} for random input are not finite: nothing to compare")
        for entry in measured:
            if entry.excluded is None:
                entry.error = relative_error(self._outputs(entry.contender), reference)
                if not entry.error <= MAX_RELATIVE_ERROR:
                    entry.excluded = f"its outputs are others: relative error {entry.error:.1e}"

    def _outputs(self, contender: Contender) -> list[np.ndarray[Any, Any]]:
        with np.load(self._outputs_path(contender)) as arrays:
            return [arrays[key] for key in arrays.files]

    def _outputs_path(self, contender: Contender) -> Path:
        return self.folder / f"{contender.name}.npz"

    def _task(self, contender: Contender) -> dict[str, Any]:
        named = ncnn_name if contender.kind == "ncnn" else str
        return {
            "kind": contender.kind,
            "folder": str(self.folder),
            "file": self.sepconv_file if contender.kind == "sepconv" else KINDS[contender.kind].file,
            "threads": self.settings.threads,
            "operator": self.network.operator,
            "input": named(self.network.input.name),
            "outputs": [named(name) for name in self.network.outputs],
            "results": str(self._outputs_path(contender)),
        }

    def _worker(self, contender: Contender) -> AbstractContextManager[Worker]:
        environment = contender.environment(self.settings.threads)
        return self._process(contender.name, environment)

    def _calibration(self, isa: str) -> AbstractContextManager[Worker]:
        return self._process(f"fma {isa}", {})

    def _process(self, name: str, environment: dict[str, str]) -> AbstractContextManager[Worker]:
        if self.workers is None:
            return Worker(environment, self.folder / f"{name}.log")
        return contextlib.nullcontext(self.workers.get(name, environment))


def relative_error(outputs: Sequence[np.ndarray[Any, Any]], reference: Sequence[np.ndarray[Any, Any]]) -> float:
    """The largest difference, as a part of the largest value; infinity where sizes differ or values are NaN."""
    if len(outputs) != len(reference):
        return float("inf")
    worst = 0.0
    for got, want in zip(outputs, reference, strict=True):
        if got.size != want.size:
            return float("inf")
        scale = float(np.max(np.abs(want))) or 1.0
        error = float(np.max(np.abs(got.reshape(want.shape) - want))) / scale
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return worst


def flush_size() -> int:
    """Bytes to touch so that the caches hold nothing else: twice what the machine has of L3, up to 512 MB."""
    return min(2 * machine.cache_bytes().get("L3", 32 << 20), 512 << 20)
