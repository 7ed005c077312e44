"""Many Python threads, each calling a shared model, one of its own, and an operator on shared weights."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from row import Settings, run_worker

import sepconv

SIZE = 32
HEIGHTS = (5, 17, 32)
THREADS = 64


def run(settings: Settings) -> str:
    calls = settings.count(100, 10_000)
    return run_worker(Path(__file__), "--threads", str(THREADS), "--calls", str(calls)).strip()


@dataclass(frozen=True)
class Shared:
    """What all threads call, and what it must give; the operator for images of each of ``HEIGHTS``."""

    model: sepconv.Model
    logits: bytes
    depthwise: sepconv.Prepared
    pointwise: sepconv.Prepared
    blocks: dict[int, bytes]


def share() -> Shared:
    model = sepconv.models.mobilenet_v1(alpha=0.25, resolution=SIZE, classes=10)
    random = np.random.default_rng(1)
    depthwise = sepconv.prepare(random.random((3, 3, 3, 1), dtype=np.float32), "depthwise")
    pointwise = sepconv.prepare(random.random((1, 1, 3, 20), dtype=np.float32), "pointwise")
    blocks = {
        height: sepconv.separable_conv2d(image(0)[:, :height], depthwise, pointwise, threads=1).tobytes()
        for height in HEIGHTS
    }
    return Shared(model, model(image(0), threads=1).tobytes(), depthwise, pointwise, blocks)


def work(shared: Shared, seed: int, calls: int) -> int:
    """How many of the results were wrong."""
    x = image(0)
    own = sepconv.models.mobilenet_v1(alpha=0.25, resolution=SIZE, classes=4, seed=seed)
    mine = image(seed)
    right = own(mine, threads=1).tobytes()
    wrong = 0
    for call in range(calls):
        if call % 3 == 0:
            wrong += shared.model(x, threads=1 + (seed + call) % 4).tobytes() != shared.logits
        elif call % 3 == 1:
            height = HEIGHTS[(seed + call) % len(HEIGHTS)]
            y = sepconv.separable_conv2d(
                x[:, :height], shared.depthwise, shared.pointwise, threads=1 + (seed + call) % 3
            )
            wrong += y.tobytes() != shared.blocks[height]
        else:
            wrong += own(mine, threads=1 + call // 3 % 3).tobytes() != right
    return wrong


def image(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).random((1, SIZE, SIZE, 3), dtype=np.float32)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    arguments = parser.parse_args()
    shared = share()
    with ThreadPoolExecutor(arguments.threads) as pool:
        jobs = [pool.submit(work, shared, seed, arguments.calls) for seed in range(arguments.threads)]
        wrong = sum(job.result() for job in jobs)
    print(f"{arguments.threads * arguments.calls} calls, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
