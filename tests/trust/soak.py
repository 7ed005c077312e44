"""Many inferences of MobileNet V1 0.25-128 in one process: memory, file descriptors and threads stay as they were."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

import numpy as np
from row import Settings, run_worker

import sepconv

WARM_UP = 2_000
LIMIT = 1 << 20  # bytes


def run(settings: Settings) -> str:
    return run_worker(Path(__file__), str(settings.count(20_000, 1_000_000))).splitlines()[-1]


def state() -> tuple[int, int, int]:
    """Resident bytes, open file descriptors, threads."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    descriptors, threads = (len(list(Path("/proc/self", kind).iterdir())) for kind in ("fd", "task"))
    return resident, descriptors, threads


def main() -> int:
    count = int(sys.argv[1])
    model = sepconv.models.mobilenet_v1(alpha=0.25, resolution=128)
    x = np.random.default_rng(0).random((1, 128, 128, 3), dtype=np.float32)
    expected = model(x, threads=1).tobytes()
    for index in range(WARM_UP):
        model(x, threads=1 + index % 2)
    before, start, wrong = state(), time.monotonic(), 0
    for index in range(count):
        result = model(x, threads=1 + index % 2)
        if index % 1000 == 0:
            wrong += result.tobytes() != expected
            if index % 100_000 == 0:
                print(index, state(), f"{time.monotonic() - start:.0f} s", flush=True)
    after = state()
    grown, descriptors, threads = (b - a for a, b in zip(before, after, strict=True))
    print(f"{count} inferences: {grown / 2**20:+.2f} MB, {descriptors:+d} files, {threads:+d} threads, {wrong} wrong")
    return 0 if grown <= LIMIT and not descriptors and not threads and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
