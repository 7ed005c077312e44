"""Ctrl-C in the middle of long runs: how long until KeyboardInterrupt, and whether the next run is right."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from row import HERE, Settings, require

import sepconv
from sepconv import graph

LIMIT = 0.2  # seconds
CASES = ("many images", "large image", "slow layers", "verify", "operator", "packing", "onnx", "onnx nodes")


def run(settings: Settings) -> str:
    """Best alone on the machine: any other program can hold a signal up."""
    cases = [case for case in CASES if "onnx" not in case or importlib.util.find_spec("onnx")]
    times = {case: interrupts(case, settings.count(2, 15)) for case in cases}
    every = [seconds for case in cases for seconds in times[case]]
    # The short form also runs on busy machines: there the best of each case counts.
    judged = every if settings.full else [min(times[case]) for case in cases]
    late = [seconds for seconds in judged if seconds > LIMIT]
    slowest = ", ".join(f"{case} {max(times[case]) * 1000:.0f} ms" for case in cases)
    require(not late, f"{len(late)} of {len(judged)} took longer than {LIMIT} s; the slowest: {slowest}")
    within = sum(seconds <= LIMIT for seconds in every)
    return f"{within} of {len(every)} within {LIMIT} s; the slowest: {slowest}"


def interrupts(case: str, count: int) -> list[float]:
    """Seconds from the signal to the exception."""
    command: list[str | Path] = [sys.executable, HERE / "interrupt.py", case, str(count)]
    random, times = Random(case), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            for _ in range(count):
                require(child.stdout.readline() == "running\n", f"{case}: the child did not start")
                time.sleep(0.05 + 0.1 * random.random())
                sent = time.monotonic()
                child.send_signal(signal.SIGINT)
                times.append(float(child.stdout.readline()) - sent)
            require(child.stdout.readline() == "right\n", f"{case}: wrong after it")
        finally:
            child.kill()
    return times


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    case, count = sys.argv[1], int(sys.argv[2])
    call = CALLS[case]()
    small = sepconv.models.mobilenet_v1(alpha=0.25, resolution=32, classes=10)
    tiny = np.ones((1, 32, 32, 3), np.float32)
    expected = small(tiny, threads=2).tobytes()
    right = True
    for index in range(count):
        try:
            print("running", flush=True)
            call(1 + index % 2)
            print("finished", flush=True)
            return 1
        except KeyboardInterrupt:
            print(time.monotonic(), flush=True)
        right = right and small(tiny, threads=2).tobytes() == expected
    print("right" if right else "wrong", flush=True)
    return 0


# --- What is interrupted: each makes a function of the number of threads, which runs for seconds

Call = Callable[[int], object]


def ones(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.ones(shape, np.float32)


def repeated(count: int, call: Call) -> Call:
    def calls(threads: int) -> None:
        for _ in range(count):
            call(threads)

    return calls


def network(images: int, resolution: int) -> Call:
    model = sepconv.models.mobilenet_v1(resolution=resolution, classes=10)
    x = ones(images, resolution, resolution, 3)
    return lambda threads: model(x, threads=threads)


def verify() -> Call:
    model = sepconv.models.mobilenet_v1(resolution=640, classes=10)
    return lambda _: model.verify(ones(1, 640, 640, 3))


def slow_layers() -> Call:
    model = sepconv.Model(
        [
            graph.Input(name="x", shape=(2500, 2000, 3)),
            graph.DepthwiseConv2d(name="y", inputs=("x",), weight=ones(9, 9, 3, 1)),
            graph.Softmax(name="z", inputs=("y",)),
            graph.GlobalAveragePool(name="mean", inputs=("z",)),
        ],
        name="slow",
    )
    x = ones(2, 2500, 2000, 3)
    return lambda threads: model(x, threads=threads)


def operator() -> Call:
    """Planes that each begin a page which was never touched."""
    x, weight = ones(1, 64, 600, 600), ones(256, 64, 1, 1)
    return repeated(99, lambda threads: sepconv.pointwise_conv2d(x, weight, layout="NCHW", threads=threads))


def packing() -> Call:
    """Weights of 100 MB, and images so small that packing them is all the work."""
    x, weight = ones(2, 5000, 1, 1), ones(5000, 5000, 1, 1)
    return repeated(999, lambda threads: sepconv.pointwise_conv2d(x, weight, layout="NCHW", threads=threads))


def onnx_model(plans: bool) -> Call:
    from onnx_models import Builder, loaded

    b = Builder()
    y = b.conv(b.conv("x", 8, 64, 5), 64, 64, 5)
    model = loaded(b.model({"x": (1, 8, 900, 900)}, [b.node("Softmax", y, axis=1)]), plans=plans)
    x = ones(1, 8, 900, 900)
    return repeated(99, lambda threads: model(x, threads=threads))


CALLS: dict[str, Callable[[], Call]] = {
    "many images": lambda: network(400, 224),
    "large image": lambda: network(8, 1500),
    "slow layers": slow_layers,
    "verify": verify,
    "operator": operator,
    "packing": packing,
    "onnx": lambda: onnx_model(True),
    "onnx nodes": lambda: onnx_model(False),
}


if __name__ == "__main__":
    sys.exit(main())
