"""Forks before the first run, after a run, and while other threads run: each child runs the model and is compared."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
from row import Settings, run_worker

import sepconv

LIMIT = 120  # seconds until a child counts as hung


def run(settings: Settings) -> str:
    return run_worker(Path(__file__), str(settings.count(60, 1000))).strip()


def forked(model: sepconv.Model, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]], expected: bytes) -> str:
    """How a child ended: right, wrong, hung, or its status."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            results = [model(x, threads=threads).tobytes() for threads in (1, 2, 5)]
            status = 0 if all(result == expected for result in results) else 2
        finally:
            os._exit(status)
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return {0: "right", 2 << 8: "wrong"}.get(status, f"ended with {status}")
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


def main() -> int:
    count = int(sys.argv[1]) // 3 + 1
    model = sepconv.models.mobilenet_v2(alpha=0.35, resolution=64, classes=10)
    x = np.random.default_rng(0).random((2, 64, 64, 3), dtype=np.float32)
    # What is right, from a process of its own, so that this one has run nothing.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, model(x, threads=1).tobytes())
        os._exit(0)
    expected = os.read(reader, 1 << 16)
    os.waitpid(child, 0)

    found = {"before": [forked(model, x, expected) for _ in range(count)]}
    model(x, threads=4)
    found["after"] = [forked(model, x, expected) for _ in range(count)]
    stop, wrong = threading.Event(), []

    def runs(threads: int) -> None:
        while not stop.is_set():
            if model(x, threads=threads).tobytes() != expected:
                wrong.append(threads)

    runners = [threading.Thread(target=runs, args=(threads,)) for threads in (1, 2, 3)]
    for runner in runners:
        runner.start()
    found["during"] = [forked(model, x, expected) for _ in range(count)]
    stop.set()
    for runner in runners:
        runner.join()
    bad = [f"{when}: {how}" for when, ends in found.items() for how in ends if how != "right"]
    print(f"{3 * count} forks before, after and during runs, {len(bad)} children hung or wrong, {len(wrong)} parents")
    print("\n".join(bad), end="")
    return 1 if bad or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
