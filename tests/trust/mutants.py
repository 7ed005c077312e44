"""Networks changed as networks: other shapes, types, indices, options, operators. Each loads and runs, or is refused.

A mutant that loads is run, every layer held against the oracle in float64, and the fused plan against the unfused one.
Those that describe more work than a test can do are only compiled. Times are CPU time, so that other programs do not
count; memory is the kernel's own high-water mark.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from mutant_workers import NUMBERS, main, require_modest, reset_peak, resident, totals
from row import Settings, require

import sepconv
from sepconv import graph
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.export.tflite_builder import TfliteBuilder

MAX_MACS = 2_000_000  # of those that are run
MAX_ACTIVATIONS = 4 << 20  # bytes
KINDS = (
    *("ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "FULLY_CONNECTED", "LOGISTIC", "MEAN"),
    *("MAX_POOL_2D", "PAD", "QUANTIZE", "RELU", "RELU6", "RESHAPE", "SOFTMAX", "SQUEEZE", "CONCATENATION", "TANH"),
)
TYPES = ("FLOAT32", "FLOAT16", "UINT8", "INT8", "INT32", "INT64", "BOOL", "STRING")


def run(settings: Settings) -> str:
    t = totals("mutants.py", settings.count(3_000, 120_000))
    return (
        f"{t.mutants} mutants: {t.right} ran and were right, {t.large} too large to run, {t.refused} refused; "
        f"at most {t.seconds:.2f} s and {t.memory:.0f} MB over 4 times the file"
    )


# --- Mutations


def base(random: Random) -> tuple[TfliteBuilder, list[int]]:
    """A network to change, and its outputs: that with every operator, or some of the operators one after the other."""
    from tflite_builder import small_network

    b = TfliteBuilder()
    small_network(b)
    if random.random() < 0.3:
        return b, list(b.outputs)
    first = random.randrange(len(b.operators))
    b.operators = b.operators[first : first + random.choice((1, 1, 2, 3))]
    b.inputs = [b.operators[0].inputs[0]]
    return b, [b.operators[-1].outputs[0]]


def change(b: TfliteBuilder, outputs: list[int], random: Random) -> None:
    """One change that a writer of TFLite files could make."""
    operator = random.choice(b.operators)
    tensor = random.randrange(len(b.tensors))

    def shape(extents: tuple[int, ...]) -> tuple[int, ...]:
        values = list(extents) or [1]
        at = random.randrange(len(values))
        kind = random.randrange(5)
        if kind == 0:
            values[at] = random.choice(NUMBERS)
        elif kind == 1:
            values[at] = max(values[at] + random.choice((-2, -1, 1, 2, 9)), 0)
        elif kind == 2:
            values[at : at + 1] = [values[at], 1]
        elif kind == 3:
            del values[at]
        else:
            random.shuffle(values)
        return tuple(values)

    def index() -> int:
        return random.choice((-1, -2, len(b.tensors), 2**31 - 1)) if random.random() < 0.2 else tensor

    def option() -> None:
        fields = dict(operator.fields)
        name = random.choice([*fields, ""])
        if name in ("Padding", "FusedActivationFunction"):  # enumerations, of one byte
            fields[name] = random.randrange(128)
        elif type(fields.get(name)) is int:
            fields[name] = random.choice(NUMBERS)
        operator.fields = fields

    def duplicate() -> None:
        copied = replace(operator, inputs=list(operator.inputs), outputs=[len(b.tensors)])
        b.tensors.append(replace(b.tensors[operator.outputs[0] % len(b.tensors)]))
        b.operators.insert(random.randrange(len(b.operators) + 1), copied)

    def data() -> None:
        buffer = bytearray(b.buffers[random.randrange(len(b.buffers))])
        if buffer and random.random() < 0.5:
            buffer[random.randrange(len(buffer))] = random.randrange(256)
        elif buffer:
            del buffer[random.randrange(len(buffer)) :]
        b.buffers.append(bytes(buffer))
        b.tensors[tensor].buffer = len(b.buffers) - 1

    changes: list[Callable[[], Any]] = [
        lambda: setattr(b.tensors[tensor], "shape", shape(b.tensors[tensor].shape)),
        lambda: setattr(b.tensors[tensor], "shape", shape(b.tensors[tensor].shape)),
        lambda: setattr(b.tensors[operator.outputs[0] % len(b.tensors)], "shape", ()),
        lambda: setattr(b.tensors[tensor], "type_name", random.choice(TYPES)),
        lambda: setattr(b.tensors[tensor], "buffer", random.randrange(len(b.buffers) + 2)),
        lambda: setattr(
            b.tensors[tensor], "scale", random.choice(([], [0.5], [0.1] * 4, [-1.0], [0.0], [float("inf")]))
        ),
        lambda: setattr(b.tensors[tensor], "zero_point", random.choice(([], [0], [3], [0] * 8, [2**40], [-129]))),
        lambda: setattr(b.tensors[tensor], "axis", random.choice((0, 3, 1, -1))),
        lambda: setattr(operator, "kind", random.choice(KINDS)),
        lambda: setattr(operator, "inputs", [index() if random.random() < 0.4 else i for i in operator.inputs]),
        lambda: setattr(operator, "inputs", list(operator.inputs)[: random.randrange(3)]),
        lambda: setattr(operator, "outputs", [index()]),
        option,
        option,
        data,
        duplicate,
        lambda: setattr(b, "operators", [o for o in b.operators if o is not operator] or b.operators),
        lambda: random.shuffle(b.operators),
        lambda: outputs.append(index()),
        lambda: b.inputs.append(index()),
    ]
    random.choice(changes)()


def mutant(random: Random) -> bytes:
    from mutation import mutate

    b, outputs = base(random)
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        change(b, outputs, random)
    data = b.finish(*outputs)
    if random.random() < 0.3:
        data = mutate(
            data, [data], [b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"], len(data) + 99, random
        )
    return data


# --- What is asked of each


def try_one(path: Path) -> str:
    """right, large, or refused; AssertionError for a wrong result, other errors as they come."""
    try:
        model = sepconv.load(path)
        assert isinstance(model, sepconv.Model)
    except (ModelFormatError, UnsupportedError):
        return "refused"
    shapes = graph.infer_shapes(model.layers)
    most = max(4 * int(np.prod(shape)) for shape in shapes.values())
    if model.cost().macs > MAX_MACS or most > MAX_ACTIVATIONS or model._plan.arena_bytes > MAX_ACTIVATIONS:
        return "large"
    pools = [layer for layer in model.layers if isinstance(layer, graph.Pool2d)]
    if sum(math.prod(layer.kernel) * math.prod(shapes[layer.name]) for layer in pools) > MAX_MACS:
        return "large"
    generator = np.random.default_rng(0)
    batches = [layer.shape for layer in model.layers if isinstance(layer, graph.Input)]
    inputs = [generator.standard_normal((1, *shape), dtype=np.float32) for shape in batches]
    model(*inputs, threads=1)
    return "right"


def check(path: Path) -> None:
    """Every layer against the oracle; what float32 cannot hold is left out."""
    model = sepconv.load(path)
    assert isinstance(model, sepconv.Model)
    generator = np.random.default_rng(0)
    shapes = [layer.shape for layer in model.layers if isinstance(layer, graph.Input)]
    inputs = [generator.standard_normal((1, *shape), dtype=np.float32) for shape in shapes]
    found = model.verify(*inputs)
    require(found.fused_matches, "the fused plan gives other bits")
    result = model(*inputs)
    if all(np.isfinite(r).all() for r in (result if isinstance(result, tuple) else (result,))):
        require(found.ok, f"a layer is beyond its bound:\n{found}")


def attempt(path: Path, data: bytes) -> tuple[str, float, float]:
    """The verdict, and what it took to load and run: seconds, and MB over four times the file."""
    path.write_bytes(data)
    reset_peak()
    before, start = resident("VmRSS"), time.process_time()
    verdict = try_one(path)
    seconds = time.process_time() - start
    memory = (resident("VmHWM") - before - 4 * len(data)) / 2**20
    require_modest(seconds, memory)
    if verdict == "right":
        check(path)
    return verdict, seconds, memory


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        main(mutant, partial(attempt, Path(folder) / "mutant.tflite"))
