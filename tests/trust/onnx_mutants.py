"""ONNX models changed as models: dims, types, raw data, attributes, names, order, cycles. Each loads, or is refused.

A mutant that loads is run where that is little work, with all passes and plans, and without any pass: the two must
agree. A run may refuse too, by ValueError or TypeError: sizes can depend on what a model reads.
"""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import numpy as np
from mutant_workers import MAX_SECONDS, NUMBERS, main, require_modest, reset_peak, resident, totals
from row import Settings, require

import sepconv.onnx
from sepconv.errors import ModelFormatError, UnsupportedError

MAX_ELEMENTS = 1 << 16  # of a value, in models that are run
LONG_RUN = 5.0  # seconds, after which a run counts as too large
REFUSALS = (ModelFormatError, UnsupportedError)
OPERATORS = (
    *(
        "Conv",
        "Relu",
        "Add",
        "Mul",
        "Clip",
        "Gemm",
        "MatMul",
        "Concat",
        "Split",
        "Slice",
        "Pad",
        "Reshape",
        "Transpose",
    ),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization", "Softmax", "Resize", "ReduceMean", "Gather"),
    *("Flatten", "Squeeze", "Unsqueeze", "Identity", "Sigmoid", "Expand", "ConvTranspose", "Cast", "Shape", "Where"),
    *("ConstantOfShape", "Range", "Tile", "HardSwish", "DepthToSpace", "If", "Loop", "Dropout", "Constant", "NoSuch"),
)
ATTRIBUTES = (
    "kernel_shape",
    "strides",
    "pads",
    "dilations",
    "group",
    "axis",
    "perm",
    "axes",
    "alpha",
    "auto_pad",
    "to",
)
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("nan"))


def run(settings: Settings) -> str:
    t = totals("onnx_mutants.py", settings.count(1_500, 100_000))
    return (
        f"{t.mutants} mutants: {t.right} ran and agreed, {t.large} too large to run, {t.refused} refused; loading took "
        f"at most {t.seconds:.2f} s and {t.memory:.0f} MB over 4 times the file"
    )


# --- Mutations


def bases() -> list[bytes]:
    """Small models with the operators that networks have."""
    from onnx_models import Builder, small_network

    models = [small_network(), small_network(batch="n")]

    def add(build: Callable[[Any], str], shape: tuple[Any, ...] = (1, 4, 6, 6)) -> None:
        b = Builder(len(models))
        models.append(b.model({"x": shape}, [build(b)]))

    add(lambda b: b.node("Relu", b.batch_norm(b.conv("x", 4, 6, bias=False, strides=[2, 2]), 6)))
    add(lambda b: b.node("Add", b.conv("x", 4, 4, 3, group=4), "x"), ("n", 4, 6, 6))
    add(lambda b: b.node("MaxPool", b.node("Pad", "x", b.integers(0, 0, 1, 1, 0, 0, 1, 1)), kernel_shape=[2, 2]))
    add(lambda b: b.node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]))
    add(lambda b: b.node("Resize", "x", "", b.constant([1, 1, 2, 2]), mode="nearest"))
    add(lambda b: b.node("Reshape", b.node("Transpose", "x", perm=[0, 2, 3, 1]), b.integers(0, -1)))
    add(lambda b: b.node("Concat", *b.node("Split", "x", b.integers(1, 3), axis=1, count=2), axis=1))
    add(lambda b: b.node("Slice", "x", b.integers(1), b.integers(4), b.integers(2), b.integers(2)))
    add(lambda b: b.node("Softmax", b.node("Gemm", "x", b.weight(4, 5), b.weight(5))), (2, 4))
    add(lambda b: b.node("Mul", "x", b.node("Sigmoid", b.conv(b.node("GlobalAveragePool", "x"), 4, 4, 1))))
    add(lambda b: b.node("ConvTranspose", "x", b.weight(4, 2, 3, 3), strides=[2, 2]))
    add(lambda b: b.node("Expand", b.node("ReduceMean", "x", b.integers(1)), b.node("Shape", "x")))
    return [model.SerializeToString() for model in models]


def change(model: Any, random: Random) -> None:
    """One change that a writer of ONNX files could make. Numbers that a field cannot hold are none."""
    import onnx

    graph = model.graph
    node = random.choice(graph.node)
    names = [*(n for each in graph.node for n in each.output), *(t.name for t in graph.initializer), "x", "", "nothing"]
    number = random.choice((*NUMBERS, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, -(2**63)))

    def value() -> Any:
        return random.choice([*graph.input, *graph.output])

    def dims() -> None:
        shape = value().type.tensor_type.shape
        at = random.randrange(len(shape.dim)) if shape.dim else 0
        kind = random.randrange(5)
        if not shape.dim or kind == 0:
            shape.dim.add().dim_value = number
        elif kind == 1:
            shape.dim[at].dim_value = number
        elif kind == 2:
            shape.dim[at].dim_param = random.choice(("n", "", "m"))
        elif kind == 3:
            del shape.dim[at]
        else:
            shape.dim[at].Clear()

    def inferred() -> None:  # what the file says of a value within it
        added = graph.value_info.add()
        added.CopyFrom(value())
        added.name = random.choice(names)

    def tensor() -> None:
        if not graph.initializer:
            return
        t = random.choice(graph.initializer)
        kind = random.randrange(9)
        if kind == 0 and t.dims:
            t.dims[random.randrange(len(t.dims))] = number
        elif kind == 1:
            t.dims.extend([random.choice((0, 1, 2))])
        elif kind == 2 and t.dims:
            del t.dims[random.randrange(len(t.dims)) :]
        elif kind == 3:
            t.data_type = random.randrange(30)
        elif kind == 4:
            t.raw_data = t.raw_data[: random.randrange(len(t.raw_data) + 1)]
        elif kind == 5:
            t.raw_data = t.raw_data + bytes(random.choice((1, 4, 64)))
        elif kind == 6:
            edges = (0, 1, 2, -1, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63))
            t.raw_data = b"".join(random.choice(edges).to_bytes(8, "little", signed=True) for _ in t.raw_data[::8])
        elif kind == 7:
            t.data_location = random.randrange(3)
        else:
            t.name = random.choice(names)

    def attribute() -> None:
        a = random.choice(node.attribute) if node.attribute and random.random() < 0.8 else node.attribute.add()
        if not a.name or random.random() < 0.1:
            a.name = random.choice(ATTRIBUTES)
        kind = random.randrange(7)
        if kind == 0:
            a.type = random.randrange(12)
        elif kind == 1:
            a.i = number
        elif kind == 2 and a.ints:
            a.ints[random.randrange(len(a.ints))] = number
        elif kind == 3:
            a.ints.extend([number])
        elif kind == 4 and a.ints:
            del a.ints[random.randrange(len(a.ints)) :]
        elif kind == 5:
            a.f = random.choice(FLOATS)
        else:
            a.s = random.choice((b"", b"SAME_UPPER", b"VALID", b"linear", b"\xff\0", b"reflect"))

    def inputs() -> None:
        if node.input and random.random() < 0.7:
            node.input[random.randrange(len(node.input))] = random.choice(names)
        elif node.input and random.random() < 0.5:
            del node.input[random.randrange(len(node.input)) :]
        else:
            node.input.append(random.choice(names))

    def outputs() -> None:
        if node.output and random.random() < 0.7:
            node.output[random.randrange(len(node.output))] = random.choice(names)
        else:
            node.output.append(random.choice(("more", "", *names)))

    def nested() -> None:
        a = node.attribute.add()
        a.name, a.type = random.choice(("then_branch", "else_branch", "body")), onnx.AttributeProto.GRAPH
        a.g.MergeFromString(graph.SerializeToString())

    def shuffle() -> None:
        nodes = list(graph.node)
        random.shuffle(nodes)
        copies = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
        del graph.node[:]
        graph.node.extend(copies)

    def function() -> None:
        f = model.functions.add()
        f.name, f.domain = node.op_type, random.choice(("", "own"))
        f.input.extend(node.input)
        f.output.extend(node.output)
        f.node.add().CopyFrom(node)
        node.domain = f.domain

    def opset() -> None:
        model.opset_import[0].version = random.choice((-1, 0, 1, 6, 7, 11, 12, 13, 17, 23, 99, number))

    def types() -> None:
        value().type.tensor_type.elem_type = random.randrange(30)

    changes: list[Callable[[], Any]] = [
        *(dims, dims, inferred, tensor, tensor, attribute, attribute, inputs, inputs, outputs, nested, shuffle),
        *(function, opset, types),
        lambda: setattr(node, "op_type", random.choice(OPERATORS)),
        lambda: setattr(node, "op_type", random.choice(OPERATORS)),
        lambda: graph.node.add().CopyFrom(node),
        lambda: graph.node.remove(node) if len(graph.node) > 1 else None,
        lambda: setattr(node, "domain", random.choice(("ai.onnx.ml", "com.microsoft", "ai.onnx"))),
        lambda: graph.output.add().CopyFrom(value()),
        lambda: graph.input.add().CopyFrom(value()),
        lambda: setattr(value(), "name", random.choice(names)),
        lambda: setattr(model, "ir_version", number),
    ]
    try:
        random.choice(changes)()
    except ValueError:  # the field is of 32 bits, or an enumeration
        return


def mutant(files: list[bytes], random: Random) -> bytes:
    import onnx
    from mutation import mutate

    model = onnx.ModelProto.FromString(random.choice(files))
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        change(model, random)
    data: bytes = model.SerializeToString()
    if random.random() < 0.3:
        data = mutate(
            data, files, [b"\x00", b"\x80\x01", b"\xff" * 9 + b"\x01", b"\x08", b"\x12"], len(data) + 99, random
        )
    return data


# --- What is asked of each


class LongRunError(BaseException):
    """A run took more than LONG_RUN; no Exception, which a reader might take for its own."""


def limit(seconds: float) -> None:
    def end(_number: int, _frame: object) -> None:
        raise LongRunError

    signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def try_run(model: Any, data: bytes) -> str:
    """right, large, or refused; other errors as they come."""
    shapes = [tuple(dim if type(dim) is int else 2 for dim in port.shape) for port in model.inputs]
    known = [info.static for info in model._graph.infos.values() if info.static is not None]
    if any(math.prod(shape) > MAX_ELEMENTS for shape in (*shapes, *known)):
        return "large"
    generator = np.random.default_rng(0)
    inputs = [
        (generator.standard_normal(shape) * 2).astype(port.dtype)
        for port, shape in zip(model.inputs, shapes, strict=True)
    ]
    limit(LONG_RUN)
    try:
        results = model(*inputs, threads=1)
        want = sepconv.onnx.load(data, passes=())(*inputs, threads=1)
    except (*REFUSALS, ValueError, TypeError):
        return "refused"
    except (MemoryError, LongRunError):
        return "large"
    finally:
        limit(0)
    for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (results, want)), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        require(
            a.shape == b.shape and a.dtype == b.dtype, f"{a.dtype}{a.shape} with passes, {b.dtype}{b.shape} without"
        )
        # Where passes fold numbers beyond float32, they fold to others.
        if a.dtype.kind == "f" and np.isfinite(a).all() and np.isfinite(b).all() and np.abs(b).max(initial=0) < 1e6:
            require(np.allclose(a, b, rtol=1e-3, atol=1e-3), "other numbers with passes than without")
    return "right"


def attempt(data: bytes) -> tuple[str, float, float]:
    """The verdict, and what loading took: seconds, and MB over four times the file."""
    reset_peak()
    before, start = resident("VmRSS"), time.process_time()
    limit(10 * MAX_SECONDS)
    try:
        model = sepconv.onnx.load(data)
        verdict = ""
    except REFUSALS:
        verdict = "refused"
    finally:
        limit(0)
    seconds = time.process_time() - start
    memory = (resident("VmHWM") - before - 4 * len(data)) / 2**20
    require_modest(seconds, memory)
    return verdict or try_run(model, data), seconds, memory


if __name__ == "__main__":
    files = bases()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for unchanged in files:
            require(attempt(unchanged)[0] == "right", "a model that nobody changed")
        main(partial(mutant, files), attempt)
