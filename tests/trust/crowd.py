"""Many Python threads, each calling a model that all share and one of its own; every result is compared."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from row import Settings, run_worker

import sepconv

SIZE = 32
THREADS = 64


def run(settings: Settings) -> str:
    calls = settings.count(100, 10_000)
    return run_worker(Path(__file__), "--threads", str(THREADS), "--calls", str(calls)).strip()


def work(shared: sepconv.Model, expected: bytes, seed: int, calls: int) -> int:
    """How many of the results were wrong."""
    x = image(0)
    own = sepconv.models.mobilenet_v1(alpha=0.25, resolution=SIZE, classes=4, seed=seed)
    mine = image(seed)
    right = own(mine, threads=1).tobytes()
    wrong = 0
    for call in range(calls):
        if call % 2:
            wrong += shared(x, threads=1 + (seed + call) % 4).tobytes() != expected
        else:
            wrong += own(mine, threads=1 + call // 2 % 3).tobytes() != right
    return wrong


def image(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).random((1, SIZE, SIZE, 3), dtype=np.float32)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    arguments = parser.parse_args()
    shared = sepconv.models.mobilenet_v1(alpha=0.25, resolution=SIZE, classes=10)
    expected = shared(image(0), threads=1).tobytes()
    with ThreadPoolExecutor(arguments.threads) as pool:
        jobs = [pool.submit(work, shared, expected, seed, arguments.calls) for seed in range(arguments.threads)]
        wrong = sum(job.result() for job in jobs)
    print(f"{arguments.threads * arguments.calls} calls, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
