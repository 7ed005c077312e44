"""Each allocation made to fail once: MemoryError, or a right result; nothing lost, and the next call is right.

failing.cpp is preloaded and lets one allocation fail, by its number. Each is tried in a forked child, whose pool starts
its threads anew: a child that crashes or hangs is seen, and harms no other.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from row import HERE, Settings, run

SECONDS = 60  # of a child, before it counts as hung
REPEATS = 12  # of one failure, to see what is lost
MODEL, ONNX = Path("model.tflite"), Path("model.onnx")
LOST = 100  # bytes a failure that count as lost
Work = Callable[[], bytes]


def run_row(settings: Settings) -> str:
    folder = settings.build / "failing"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "failing.so"
    run(["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-o", library, HERE / "failing.cpp", "-ldl"])
    most = str(settings.count(40, 1 << 30))
    command: list[str | Path] = [sys.executable, HERE / "allocations.py", library, most]
    return run(command, environment={"LD_PRELOAD": str(library)}).strip().splitlines()[-1]


# --- What is tried: each from the beginning, with everything made anew


def small_model() -> bytes:
    import sepconv

    model = sepconv.models.mobilenet_v2(alpha=0.1, resolution=32, classes=5)
    return np.asarray(model(_image(9), threads=3)).tobytes() + str(model.explain()).encode()


def loaded() -> bytes:
    import sepconv

    model = sepconv.load(MODEL)
    assert isinstance(model, sepconv.Model)
    return np.asarray(model(_image(1), threads=2)).tobytes()


def verified() -> bytes:
    import sepconv
    from sepconv import graph

    layers = [
        graph.Input(name="x", shape=(8, 8, 3)),
        graph.Conv2d(name="a", inputs=("x",), weight=_numbers(3, 3, 3, 20), padding=((1, 1), (1, 1))),
        graph.DepthwiseConv2d(name="b", inputs=("a",), weight=_numbers(3, 3, 20, 1), activation="relu"),
        graph.ChannelShuffle(name="c", inputs=("b",), groups=4),
        graph.Softmax(name="y", inputs=("c",)),
    ]
    return str(sepconv.Model(layers, name="small").verify(_numbers(1, 8, 8, 3)).ok).encode()


def operators() -> bytes:
    import sepconv

    x, depthwise, pointwise = _numbers(2, 40, 40, 35), _numbers(3, 3, 35, 1), _numbers(1, 1, 35, 20)
    prepared = sepconv.prepare(pointwise, "pointwise")
    results = [
        sepconv.separable_conv2d(x, depthwise, prepared, padding=1, threads=3),
        sepconv.conv2d(x, _numbers(3, 3, 35, 7), stride=2, threads=2),
        sepconv.depthwise_conv2d(x.transpose(0, 3, 1, 2), _numbers(70, 1, 5, 5), layout="NCHW", threads=2),
    ]
    return b"".join(np.ascontiguousarray(result).tobytes() for result in results)


def gradients() -> bytes:
    from sepconv import _core

    x, dy = _numbers(2, 12, 12, 20), _numbers(2, 12, 12, 40)
    padding, both = ((1, 1), (1, 1)), (True, True)
    results = [
        *_core.depthwise_grad(x, _numbers(40, 1, 3, 3), dy, (1, 1), padding, (1, 1), both, 3),
        *_core.pointwise_grad(_numbers(300, 20), _numbers(24, 20), _numbers(300, 24), both, 2),
        _core.activation_grad("hard_swish", x, x, 2),
    ]
    return b"".join(np.asarray(result).tobytes() for result in results)


def onnx_model() -> bytes:
    import sepconv.onnx

    return b"".join(
        np.ascontiguousarray(result).tobytes() for result in sepconv.onnx.load(ONNX).run({"x": _numbers(1, 3, 16, 16)})
    )


def works() -> dict[str, Work]:
    found: dict[str, Work] = {
        "model": small_model,
        "tflite": loaded,
        "verify": verified,
        "operators": operators,
        "gradients": gradients,
    }
    try:
        import onnx  # noqa: F401
    except ImportError:
        return found
    return {**found, "onnx": onnx_model}


def _numbers(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _image(images: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return _numbers(images, 32, 32, 3)


def write_models() -> None:
    import sepconv
    from sepconv.export import export_model

    export_model(sepconv.models.mobilenet_v1_layers(0.1, resolution=32, classes=5), MODEL)
    if "onnx" in works():
        from onnx_models import small_network

        ONNX.write_bytes(small_network().SerializeToString())


# --- One failure


class Memory(ctypes.Structure):
    """glibc's struct mallinfo2: ten size_t, the eighth of which is what is in use."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("a", "b", "c", "d", "mapped", "e", "f", "used", "g", "h")]


class Failing:
    """The preloaded library."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._library.failing_start.argtypes = [ctypes.c_long, ctypes.c_bool]
        self._library.failing_stop.restype = ctypes.c_long
        self._libc = ctypes.CDLL(None)
        self._libc.mallinfo2.restype = Memory

    def call(self, work: Work, number: int) -> tuple[bytes | None, int]:
        """The result, None for MemoryError, and how many allocations there were, -1 - that where one failed."""
        # The package onnx makes strings too, and says of its own failures what it likes.
        assert self._library.failing_start(number, work is not onnx_model), "the extension is not loaded"
        try:
            result = work()
        except MemoryError:
            return None, self._library.failing_stop()
        return result, self._library.failing_stop()

    def used(self) -> int:
        memory = self._libc.mallinfo2()
        return int(memory.used + memory.mapped)


def try_failure(failing: Failing, work: Work, number: int, expected: bytes) -> None:
    """In a child. AssertionError where a promise does not hold."""
    result, _ = failing.call(work, number)
    assert result in (None, expected), "a wrong result where an allocation failed"
    assert failing.call(work, -1)[0] == expected, "a wrong result after an allocation failed"
    used = []
    for _ in range(REPEATS):
        failing.call(work, number)
        used.append(failing.used())
    # What grows each time; once or twice may be a cache of Python's.
    steps = sorted(b - a for a, b in itertools.pairwise(used))
    assert steps[len(steps) // 4] < LOST, f"memory grows by {steps} bytes where an allocation fails"


def forked(action: Callable[[], None]) -> str:
    """What went wrong, or nothing."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        status = 1
        try:
            action()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "it hung" if number == signal.SIGALRM else f"it was ended by signal {number}"
    return "" if os.WEXITSTATUS(status) == 0 else "see above"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("most", type=int)
    arguments = parser.parse_args()
    failing = Failing(arguments.library)
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_models()
        for name, work in works().items():
            expected = work()
            _, count = failing.call(work, -1)
            numbers = range(0, count, max(1, count // arguments.most))
            for number in numbers:
                wrong = forked(lambda n=number, w=work, e=expected: try_failure(failing, w, n, e))  # type: ignore[misc]
                if wrong:
                    print(f"{name}: where allocation {number} of {count} fails: {wrong}")
                    return 1
            counts[name] = (len(numbers), count)
    each = ", ".join(f"{name} {tried} of {count}" for name, (tried, count) in counts.items())
    print(
        f"{sum(tried for tried, _ in counts.values())} allocations made to fail ({each}): MemoryError or right, 0 lost"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
