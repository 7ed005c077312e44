"""Threads, ours and the program's: the same bits, no waiting on each other, and a clean way out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle import every_isa, normal

import sepconv
from sepconv import _core, mapping
from sepconv.compile import compile_graph
from sepconv.graph import outputs
from sepconv.mapping import map_file, release_pages
from sepconv.model import Model
from sepconv.models import (
    efficientnet_lite0_layers,
    mobilenet_v1,
    mobilenet_v1_layers,
    mobilenet_v2,
    mobilenet_v2_layers,
)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
# Seconds from Ctrl-C to KeyboardInterrupt. Code that a sanitizer watches takes several times as long.
INTERRUPT_LIMIT = 2.0 if "libasan" in os.environ.get("LD_PRELOAD", "") else 0.2


@pytest.fixture(scope="module")
def model() -> Model:
    return mobilenet_v2(alpha=0.5, resolution=96, classes=10)


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    return normal(3, 96, 96, 3)


# --- The same bits


@every_isa
@pytest.mark.parametrize("name", ("v1", "v2", "lite0"))
def test_any_number_of_threads_gives_the_same_bits(name: str, isa: str) -> None:
    layers = {
        "v1": lambda: mobilenet_v1_layers(0.5, resolution=113, classes=10),
        "v2": lambda: mobilenet_v2_layers(0.5, resolution=100, classes=10),
        "lite0": lambda: efficientnet_lite0_layers(resolution=75, classes=10),
    }[name]()
    x = normal(2, *layers[0].output_shape())
    for fusion in ("automatic", "always"):
        plan = _core.Plan(compile_graph(layers, outputs(layers), isa), fusion)
        (expected,) = plan.run([x], 1)
        for threads in (*range(2, 17), 100):
            assert plan.run([x], threads)[0].tobytes() == expected.tobytes(), threads


def test_many_python_threads_share_a_model(model: Model, images: NDArray[np.float32]) -> None:
    expected = model(images).tobytes()
    with ThreadPoolExecutor(12) as pool:
        results = pool.map(lambda i: model(images, threads=1 + i % 4).tobytes(), range(96))
        assert all(result == expected for result in results)


def test_many_python_threads_run_models_of_their_own() -> None:
    def work(seed: int) -> bool:
        own = mobilenet_v1(alpha=0.25, resolution=32 + seed, classes=4, seed=seed)
        x = normal(2, 32 + seed, 32 + seed, 3, seed=seed)
        expected = own(x, threads=1).tobytes()
        return all(own(x, threads=threads).tobytes() == expected for threads in (2, 3, 1, 4) * 3)

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, range(24)))


# --- How many


def test_set_num_threads(model: Model, images: NDArray[np.float32]) -> None:
    before, expected = sepconv.num_threads(), model(images)
    assert 1 <= before <= len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else before >= 1
    try:
        for n in (1, 3, _core.MAX_THREADS, 2):
            sepconv.set_num_threads(n)
            assert sepconv.num_threads() == n
        assert model(images).tobytes() == expected.tobytes()
        for wrong in (0, -1, _core.MAX_THREADS + 1, 2**40):
            with pytest.raises(ValueError, match=f"n was {wrong}, must be between 1 and {_core.MAX_THREADS}"):
                sepconv.set_num_threads(wrong)
        for other in (1.5, "2", None, True, np.float32(2.7)):
            with pytest.raises(TypeError, match=r"n was .*, must be an int"):
                sepconv.set_num_threads(other)  # type: ignore[arg-type]
        assert sepconv.num_threads() == 2
    finally:
        sepconv.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_default_respects_affinity() -> None:
    code = """
        import os
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        import sepconv
        print(sepconv.num_threads())
    """
    assert python(code).stdout.strip() == "1"


# --- The program around a run


def test_another_python_thread_runs_meanwhile() -> None:
    model, x = mobilenet_v1(resolution=224, classes=10), normal(20, 224, 224, 3)
    finished, ticks = threading.Event(), 0

    def tick() -> None:
        nonlocal ticks
        while not finished.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    before = ticks
    model(x, threads=1)
    during = ticks - before
    finished.set()
    thread.join()
    assert during >= 5  # of the 100 that fit; none, were the lock held


def test_denormals_are_as_before(model: Model, images: NDArray[np.float32]) -> None:
    tiny = np.full(64, 1e-40, np.float32)

    def kept() -> bool:
        return bool(np.all(tiny * np.float32(1) > 0) and np.all(tiny * np.float32(0.5) > 0))

    assert kept()
    for threads in (1, 4):
        model(images, threads=threads)
        assert kept()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(kept).result()
    with pytest.raises(TypeError):
        model(images.tolist())
    assert kept()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="counts on Linux's clocks")
def test_idle_threads_use_no_cpu(model: Model, images: NDArray[np.float32]) -> None:
    for _ in range(3):  # other tests' leftovers may still be at work
        model(images, threads=8)
        time.sleep(0.02)
        before = time.process_time()
        time.sleep(0.3)
        used = time.process_time() - before
        if used < 0.03:
            return
    pytest.fail(f"used {used:.3f} s of CPU in 0.3 s of sleep")


# --- Fork


def wait_for(child: int, seconds: float = 20) -> int:
    """The child's exit status; it is killed where it does not end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail(f"the child did not end within {seconds} s")


def fork(work: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return child


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_forked_after_a_run_works(model: Model, images: NDArray[np.float32]) -> None:
    expected = model(images, threads=4).tobytes()
    children = [fork(lambda: all(model(images, threads=n).tobytes() == expected for n in (1, 2, 5))) for _ in range(3)]
    assert [wait_for(child) for child in children] == [0, 0, 0]
    assert model(images, threads=4).tobytes() == expected


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_forked_during_a_run_of_another_thread_works(model: Model, images: NDArray[np.float32]) -> None:
    expected, stop = model(images).tobytes(), threading.Event()

    def run() -> None:
        while not stop.is_set():
            model(images, threads=2)

    with ThreadPoolExecutor(2) as pool:
        runners = [pool.submit(run) for _ in range(2)]
        try:
            for _ in range(10):
                child = fork(lambda: all(model(images, threads=n).tobytes() == expected for n in (1, 3)))
                assert wait_for(child) == 0
        finally:
            stop.set()
        for runner in runners:
            runner.result()


def in_process(model: Model, images: NDArray[np.float32], queue: Any) -> None:
    queue.put(model(images, threads=3).tobytes())


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_multiprocessing_fork(model: Model, images: NDArray[np.float32]) -> None:
    expected = model(images, threads=2).tobytes()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    children = [context.Process(target=in_process, args=(model, images, queue)) for _ in range(3)]
    for child in children:
        child.start()
    results = [queue.get() for _ in children]
    for child in children:
        child.join(20)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert results == [expected] * 3


# --- Ctrl-C and the end


def python(code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert result.returncode == 0, result.stderr
    return result


INTERRUPTED = """
    import signal, sys, time
    import numpy as np, sepconv
    from sepconv import graph
    signal.signal(signal.SIGINT, signal.default_int_handler)
    {build}
    x = np.ones(({images}, *model.layers[0].shape), np.float32)
    print("ready", flush=True)
    try:
        {call}
        print("finished", flush=True)
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
    small = sepconv.models.mobilenet_v1(alpha=0.25, resolution=32, classes=10)
    print(small(np.ones((1, 32, 32, 3), np.float32), threads=2).shape)
"""
V1 = "model = sepconv.models.mobilenet_v1(resolution={}, classes=10)"
SLOW_LAYER = """model = sepconv.Model([
        graph.Input(name="x", shape=(2500, 2000, 3)),
        graph.DepthwiseConv2d(name="y", inputs=("x",), weight=np.ones((9, 9, 3, 1), np.float32)),
        graph.Softmax(name="z", inputs=("y",)),
        graph.GlobalAveragePool(name="mean", inputs=("z",)),
    ], name="slow")"""


def seconds_until_interrupted(build: str, call: str, images: int, isa: str) -> float:
    code = textwrap.dedent(INTERRUPTED).format(build=build, call=call, images=images)
    environment = {**os.environ, "SEPCONV_ISA": isa}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.3)
            sent = time.monotonic()
            child.send_signal(signal.SIGINT)
            output, errors = child.communicate(timeout=30)
        finally:
            child.kill()
    assert child.returncode == 0, errors
    assert "finished" not in output
    assert output.splitlines()[1] == "(1, 10)"  # works on
    return float(output.splitlines()[0]) - sent


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@every_isa
@pytest.mark.parametrize(
    "build, call, images",
    [
        pytest.param(V1.format(224), "model(x, threads=1)", 400, id="many images"),
        pytest.param(V1.format(1500), "model(x, threads=2)", 8, id="large images"),
        pytest.param(SLOW_LAYER, "model(x, threads=1)", 2, id="slow layers"),
        pytest.param(V1.format(640), "model.verify(x)", 1, id="verify"),
    ],
)
def test_ctrl_c(build: str, call: str, images: int, isa: str) -> None:
    # A busy machine may stop any process for longer: the best of three counts.
    times: list[float] = []
    while len(times) < 3 and (not times or times[-1] > INTERRUPT_LIMIT):
        times.append(seconds_until_interrupted(build, call, images, isa))
    assert min(times) <= INTERRUPT_LIMIT


def test_exit_in_the_middle_of_daemon_threads_runs() -> None:
    code = textwrap.dedent("""
        import sys, threading, time
        import numpy as np, sepconv
        model = sepconv.models.mobilenet_v1(alpha=0.25, resolution=64, classes=10)
        x = np.ones((int(sys.argv[1]), 64, 64, 3), np.float32)
        def work():
            while True:
                model(x, threads=int(sys.argv[3]))
        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        end = time.monotonic() + float(sys.argv[2])
        while time.monotonic() < end:
            pass
    """)
    children = []
    for i in range(20):
        images, seconds, threads = 1 + 99 * (i % 2), 0.05 + 0.007 * i, 1 + i // 2 % 2
        command = [sys.executable, "-c", code, str(images), str(seconds), str(threads)]
        children.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        if len(children) == 4 or i == 19:
            for child in children:
                errors = child.communicate(timeout=60)[1]
                assert child.returncode == 0, errors
                assert errors == ""
            children.clear()


def test_a_run_while_the_interpreter_ends() -> None:
    """From atexit, and from a destructor that runs when modules are torn down."""
    result = python(
        """
        import atexit
        import numpy as np, sepconv
        model = sepconv.models.mobilenet_v1(alpha=0.25, resolution=32, classes=10)
        x = np.ones((1, 32, 32, 3), np.float32)
        class Last:
            def __init__(self, model, x): self.model, self.x = model, x
            def __del__(self): print("destructor", self.model._plan.run([self.x], 2)[0].shape, flush=True)
        last = Last(model, x)
        last.itself = last
        atexit.register(lambda: print("atexit", model(x, threads=2).shape, flush=True))
        """
    )
    assert result.stdout.splitlines() == ["atexit (1, 10)", "destructor (1, 1, 1, 10)"]


def test_files_are_mapped_and_let_go_while_pages_are_given_back() -> None:
    def load() -> None:
        with Path(__file__).open("rb") as file:
            while time.monotonic() < end:
                [map_file(file.fileno()) for _ in range(20)]

    def release() -> None:
        while time.monotonic() < end:
            release_pages()

    before, interval, end = mapping._mapped.copy(), sys.getswitchinterval(), time.monotonic() + 1
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for task in [pool.submit(work) for work in (load, load, release, release)]:
                task.result()
    finally:
        sys.setswitchinterval(interval)
    assert mapping._mapped <= before  # nothing is noted of what is gone
