"""Readers of files, and operators, on hostile input: first guided by coverage, then mutations of what that found.

Coverage costs most of the time, so the second half, without it, makes most of the executions.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from fuzz_targets import TARGETS, refuses
from mutation import mutate
from row import HERE, RowError, Settings, compiled, require
from row import run as run_program

GUIDED = 500_000  # executions of the full form's first half
EXECUTIONS = 10_000_000  # of both halves
PROCESSES = 2  # that share the operators' full form
SECONDS = 60  # of the short form
LONGEST = 10  # seconds of CPU that a thousand executions may take, before the process is ended by a signal
_FUZZER = (
    "-DCMAKE_CXX_COMPILER=clang++",
    "-DSEPCONV_BUILD_FUZZERS=ON",
    "-DSEPCONV_SANITIZE=address;undefined",
)


def readers(settings: Settings) -> str:
    """All side by side; the full form two at a time."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2 if settings.full else 8) as pool:
        jobs = [pool.submit(fuzz_reader, name, settings, Path(folder)) for name in TARGETS]
        return "; ".join(job.result() for job in jobs)


def operators(settings: Settings) -> str:
    """Graphs, calls and gradients: tests/trust/operators.cpp under libFuzzer, from a corpus that earlier runs found."""
    program = compiled(settings, "fuzz", "sepconv_fuzz_operators", *_FUZZER)
    processes = PROCESSES if settings.full else 1
    limits = [f"-runs={EXECUTIONS // processes}"] if settings.full else ["-runs=-1", f"-max_total_time={SECONDS}"]
    known = kept("operators")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as pool:

        def fuzz(seed: int) -> str:
            corpus = Path(folder) / str(seed)
            corpus.mkdir()
            for index, data in enumerate(known):
                (corpus / str(index)).write_bytes(data)
            return run_program(
                [program, *limits, f"-seed={seed}", "-max_len=96", *_options(Path(folder), "operators"), corpus]
            )

        logs = list(pool.map(fuzz, range(1, processes + 1)))
        if settings.full:
            merged = Path(folder) / "merged"
            merged.mkdir()
            run_program([program, "-merge=1", merged, *(Path(folder) / str(1 + index) for index in range(processes))])
            keep(settings, "operators", merged)
    totals = {name: [0, 0] for name in ("calls", "graphs", "gradients")}
    for log in logs:
        counts = re.findall(r"of (\w+) (\d+) ran, (\d+) were refused", log)
        require(len(counts) == len(totals), f"the fuzzer did not finish:\n{log[-3000:]}")
        for name, ran, refused in counts:
            totals[name] = [totals[name][0] + int(ran), totals[name][1] + int(refused)]
    found = "; ".join(f"of {name} {ran} ran, {refused} were refused" for name, (ran, refused) in totals.items())
    return f"{sum(map(_executions, logs))} executions, 0 crashes; {found}"


def kept(name: str) -> list[bytes]:
    """The corpus that earlier runs found, an input a line."""
    return [bytes.fromhex(line) for line in (HERE / f"{name}.corpus").read_text().split()]


def keep(settings: Settings, name: str, corpus: Path, seeds: Sequence[bytes] = ()) -> None:
    """Leaves what a full run found, but for its seeds, beside its builds, to take the place of what is kept."""
    lines = sorted({path.read_bytes().hex() for path in corpus.iterdir()} - {b.hex() for b in (b"", *seeds)})
    settings.build.mkdir(parents=True, exist_ok=True)
    (settings.build / f"{name}.corpus").write_text("\n".join(lines) + "\n")


def _options(folder: Path, name: str) -> list[str]:
    # The limit is one of time on the clock, which goes on while a busy machine does other things.
    return [f"-artifact_prefix={folder}/{name}-", "-timeout=600", "-print_final_stats=1", "-verbosity=1"]


def _executions(log: str) -> int:
    done = re.search(r"Done (\d+) runs", log)
    require(done is not None, f"the fuzzer did not finish:\n{log[-3000:]}")
    return int(done[1]) if done else 0


def fuzz_reader(name: str, settings: Settings, folder: Path) -> str:
    """In processes of their own. Returns the executions of both halves, and how many files were found readable."""
    full = settings.full
    corpus = folder / name
    corpus.mkdir()
    for index, seed in enumerate([*TARGETS[name].seeds(), *kept(name)]):
        (corpus / str(index)).write_bytes(seed)
    limits = [f"-runs={GUIDED}"] if full else ["-runs=-1", f"-max_total_time={SECONDS // 2}"]
    options = [*limits, f"-max_len={TARGETS[name].max_size}", *_options(folder, name)]
    guided = 0
    try:
        log = run_program([sys.executable, HERE / "fuzz_guided.py", name, *options, corpus])
        guided = _executions(log)
        print(f"{name}: {guided} executions guided by coverage", flush=True)
        if full:
            keep(settings, name, corpus, TARGETS[name].seeds())
    except RowError as error:
        if "No module named 'atheris'" not in str(error):
            raise
    limit = ["--executions", str(EXECUTIONS - guided)] if full else ["--seconds", str(SECONDS // (2 if guided else 1))]
    log = run_program([sys.executable, __file__, name, corpus, *limit])
    executions, read = map(int, log.split()[-2:])
    found = f"{name}: {guided} + {executions} executions, {read} of the latter read, 0 crashes"
    print(found, flush=True)
    return found


def hammer(name: str, corpus: Path, executions: int, seconds: float) -> tuple[int, int]:
    """Mutations of the corpus until either limit is reached; how many there were, and how many could be read."""
    target, random = TARGETS[name], Random()
    files = [path.read_bytes() for path in sorted(corpus.iterdir())]
    seeds = target.seeds()
    require(not any(refuses(target.read, seed) for seed in seeds), f"{name}: a file that is right is refused")
    files += seeds * (1 + len(files) // len(seeds))  # half of all mutations are of files that are right
    start = time.monotonic()
    done = read = 0
    while done < executions and time.monotonic() - start < seconds:
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        for _ in range(1000):
            data = mutate(files[int(random.random() * len(files))], files, target.tokens, target.max_size, random)
            try:
                read += not refuses(target.read, data)
            except BaseException:
                print(f"the reader {name} fails on {data.hex()}", flush=True)
                raise
        done += 1000
        if done % 1_000_000 == 0:
            print(f"{name}: {done} executions after {time.monotonic() - start:.0f} s", flush=True)
    return done, read


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--executions", type=int, default=sys.maxsize)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    arguments = parser.parse_args()
    print(*hammer(arguments.target, arguments.corpus, arguments.executions, arguments.seconds))
