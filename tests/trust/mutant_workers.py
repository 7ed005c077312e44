"""What the rows of mutants share: workers with a seed each, what they count, and a process's memory."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from row import HERE, require, run_worker

PROCESSES = 2
MAX_SECONDS = 1.0
MAX_MEMORY = 64  # MB besides four times the file
NUMBERS = (-(2**31), -2, -1, 0, 1, 2, 3, 5, 8, 127, 1024, 2**20, 2**31 - 1)


@dataclass(frozen=True)
class Totals:
    """Of all workers: mutants by verdict, and the most that one took."""

    mutants: int
    right: int
    large: int
    refused: int
    seconds: float
    memory: float  # MB besides four times the file


def totals(script: str, count: int) -> Totals:
    """``count`` mutants of a script that ends by :func:`main`, by PROCESSES workers."""
    share = str(count // PROCESSES)
    with ThreadPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(run_worker, HERE / script, str(seed), share) for seed in range(PROCESSES)]
        results = np.array([[float(number) for number in job.result().split()[-6:]] for job in jobs])
    mutants, right, large, refused = (int(n) for n in results[:, :4].sum(axis=0))
    require(right > 0 and refused > 0, f"of {mutants} mutants {right} ran and {refused} were refused: neither may be 0")
    seconds, memory = results[:, 4:].max(axis=0)
    return Totals(mutants, right, large, refused, seconds, memory)


def main(make: Callable[[Random], bytes], attempt: Callable[[bytes], tuple[str, float, float]]) -> None:
    """A worker: makes mutants and tries them, and prints its part of the totals.

    ``attempt``: the verdict (right, large or refused), seconds, and MB besides four times the file. What it raises ends
    the worker, after the mutant was printed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    random, found = Random(arguments.seed), {"right": 0, "large": 0, "refused": 0}
    slowest = heaviest = 0.0
    for index in range(arguments.count):
        data = make(random)
        try:
            verdict, seconds, memory = attempt(data)
        except BaseException:
            print(f"mutant {index} of seed {arguments.seed}: {data.hex()}", flush=True)
            raise
        found[verdict] += 1
        slowest, heaviest = max(slowest, seconds), max(heaviest, memory)
        if index % 1000 == 0:
            gc.collect()
    print(arguments.count, *found.values(), slowest, heaviest)


def require_modest(seconds: float, memory: float) -> None:
    require(seconds <= MAX_SECONDS, f"took {seconds:.2f} s")
    require(memory <= MAX_MEMORY, f"took {memory:.0f} MB besides 4 times the file")


def resident(kind: str) -> int:
    """Bytes: VmRSS, those now, or VmHWM, the most since reset_peak()."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"/proc/self/status has no {kind}")


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")
