"""Models in other processes: what their pickles hold, and that spawned and forked processes compute the same bits."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sepconv

BUILDERS: dict[str, Callable[[], sepconv.Model]] = {
    "mobilenet_v1": lambda: sepconv.models.mobilenet_v1(alpha=0.5, resolution=64, classes=100),
    "mobilenet_v2": lambda: sepconv.models.mobilenet_v2(alpha=0.5, resolution=64, classes=100),
    "mobilenet_v3_small": lambda: sepconv.models.mobilenet_v3_small(resolution=64, classes=100),
    "shufflenet_v2": lambda: sepconv.models.shufflenet_v2(0.5, resolution=64, classes=100),
}


def images(count: int) -> Any:
    return np.random.default_rng(0).random((count, 64, 64, 3), dtype=np.float32)


def weight_bytes(model: sepconv.Model) -> int:
    """Of all arrays of all layers, batch norms among them."""
    total = 0
    for layer in model.layers:
        records = [record for record in (layer, getattr(layer, "batch_norm", None)) if record is not None]
        values = [value for record in records for value in vars(record).values()]
        total += sum(np.asarray(value).nbytes for value in values if hasattr(value, "__array__"))
    return total


@pytest.mark.parametrize("name", BUILDERS)
def test_a_pickle_holds_the_weights_once_and_no_plan(name: str) -> None:
    model, x = BUILDERS[name](), images(2)
    expected = model(x)
    weights = weight_bytes(model)
    structure = 2000 * len(model.layers)  # bytes, generously
    # Weights packed for kernels would be as many bytes again; arrays that layers share are there once.
    assert 0.9 * weights <= len(pickle.dumps(model)) <= weights + structure
    # With protocol 5 the arrays stay outside of the stream, where they lie: nothing is copied to send them.
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    assert len(stream) <= structure
    assert sum(buffer.raw().nbytes for buffer in buffers) <= weights
    # As a receiver gets them: memory that must not be written to.
    received = pickle.loads(stream, buffers=[bytes(buffer.raw()) for buffer in buffers])
    for copy in (received, pickle.loads(pickle.dumps(received))):
        assert copy(x).tobytes() == expected.tobytes()
        assert copy.explain() == model.explain()


def test_a_pickle_keeps_the_fusion() -> None:
    layers = BUILDERS["mobilenet_v1"]().layers
    plans = {
        fusion: sepconv.Model(layers, name="v1", fusion=fusion).explain() for fusion in ("automatic", "always", "never")
    }
    assert len(set(plans.values())) == 3
    for fusion, plan in plans.items():
        assert pickle.loads(pickle.dumps(sepconv.Model(layers, name="v1", fusion=fusion))).explain() == plan


def serve(pipe: Any, model: sepconv.Model, x: Any) -> None:
    """Of a child: send what the model gives on 1, 2 and 5 threads."""
    for threads in (1, 2, 5):
        pipe.send(model(x, threads=threads).tobytes())
    pipe.close()


def run_in(start: str, model: sepconv.Model, x: Any) -> list[bytes]:
    context: Any = multiprocessing.get_context(start)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=serve, args=(sender, model, x))
    child.start()
    sender.close()
    try:
        results = []
        for _ in range(3):
            assert receiver.poll(120), f"a child by {start} hung"
            results.append(receiver.recv())
        child.join(120)
        assert child.exitcode == 0
        return results
    finally:
        if child.is_alive():
            child.kill()
        child.join()


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_children_compute_the_same_bits_while_the_parent_s_threads_run(start: str) -> None:
    model, x = BUILDERS["mobilenet_v2"](), images(3)
    expected = model(x, threads=1).tobytes()
    stop, wrong = threading.Event(), []

    def runs(threads: int) -> None:
        while not stop.is_set():
            if model(x, threads=threads).tobytes() != expected:
                wrong.append(threads)

    runners = [threading.Thread(target=runs, args=(threads,)) for threads in (1, 2, 3)]
    for runner in runners:
        runner.start()
    try:
        for _ in range(5 if start == "fork" else 1):
            assert run_in(start, model, x) == [expected] * 3
    finally:
        stop.set()
        for runner in runners:
            runner.join()
    assert not wrong
