"""One model in a pool of processes, started by fork or by spawn: models pickle, weights and structure.

    python examples/process_pool.py --start spawn

A pickle holds the layers and the weights, not what they were packed into: each process packs for its own processor, and
gives the same bits where the instruction set is the same. With spawn the model goes to each process once, when it
starts. With fork nothing is sent: a child finds the model in the memory that it shares with its parent, also where
other threads of the parent are in the middle of a run.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sepconv

MODEL: list[sepconv.Model] = []  # of this process


def start(model: sepconv.Model) -> None:
    """Run once in each process."""
    MODEL[:] = [model]


def scores(batch: NDArray[np.float32]) -> Any:
    """float32 [n, classes] of [n, h, w, 3]; on one thread, as there are other processes."""
    return MODEL[0](batch, threads=1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--start", choices=("fork", "spawn", "forkserver"), default="spawn")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)

    model = sepconv.models.mobilenet_v2(alpha=0.35, resolution=96, classes=10)
    work = np.random.default_rng(0).random((6, 4, 96, 96, 3), dtype=np.float32)  # six batches of four
    expected = [model(batch) for batch in work]
    context = multiprocessing.get_context(options.start)
    with ProcessPoolExecutor(options.workers, context, start, (model,)) as pool:
        results = list(pool.map(scores, work))
    same = all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))
    print(f"{len(results)} batches in {options.workers} processes by {options.start}")
    print("the same bits as here:", same)


if __name__ == "__main__":
    main()
