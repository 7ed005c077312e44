"""What TensorFlow Lite's published CVEs did, as files made anew: each is refused, with a message that says why.

The files are ours, written after the advisories' texts. Where one fault concerns several operators, each has a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tflite", reason="writing the files needs the packages of the extra [tflite]")
pytest.importorskip("flatbuffers", reason="writing the files needs the packages of the extra [tflite]")

from tflite_builder import CONV, DEPTHWISE, POOL

import sepconv
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.export.tflite_builder import TfliteBuilder
from sepconv.io import _tflite_schema as schema
from sepconv.io.flatbuffer import Table, _follow

IMAGE = (1, 4, 3, 2)
Make = Callable[[], bytes]
CASES: dict[str, tuple[str, Make, str]] = {}


def case(number: str, name: str, message: str, make: Make) -> None:
    assert name not in CASES
    CASES[name] = (number, make, message)


def one(
    kind: str,
    constants: Sequence[Any] = (),
    options: str = "",
    *,
    image: Sequence[int] = IMAGE,
    output: Sequence[int] = (),
    **fields: Any,
) -> bytes:
    """A network of one operator, whose output may have any shape."""
    b = TfliteBuilder()
    x = b.input(image)
    inputs = [x, *(b.tensor(f"c{i}", *c) if isinstance(c, tuple) else c for i, c in enumerate(constants))]
    return b.finish(b.operator(kind, inputs, output, options, **fields))


def constant(values: Any, dtype: str = "FLOAT32", shape: Sequence[int] | None = None) -> tuple[Any, ...]:
    """Arguments of a tensor: its data may differ from what its shape and type claim."""
    array = np.asarray(values, np.dtype(dtype.lower()))
    return (array.shape if shape is None else shape, dtype, array.tobytes())


def weights(*shape: int) -> tuple[Any, ...]:
    """Of a shape that may hold zeros: the data are then as many as if it were 1."""
    return constant(np.ones([max(n, 1) for n in shape], np.float32), shape=shape)


def conv(shape: Sequence[int] = (3, 1, 1, 2), bias: Any = None, image: Sequence[int] = IMAGE, **fields: Any) -> bytes:
    return one("CONV_2D", [weights(*shape), *([] if bias is None else [bias])], image=image, **{**CONV, **fields})


def depthwise(shape: Sequence[int] = (1, 3, 3, 2), image: Sequence[int] = IMAGE, **fields: Any) -> bytes:
    return one("DEPTHWISE_CONV_2D", [weights(*shape)], image=image, **{**DEPTHWISE, **fields})


def pool(kind: str, **fields: Any) -> bytes:
    return one(kind, **{**POOL, **fields})


def reshape(target: Any, shape: Sequence[int] | None = None) -> bytes:
    return one("RESHAPE", [constant(target, "INT32", shape)], "ReshapeOptions")


def built(make: Callable[[TfliteBuilder, int], int]) -> Make:
    def data() -> bytes:
        b = TfliteBuilder()
        return b.finish(make(b, b.input(IMAGE)))

    return data


# --- Division by zero: strides, dilations, kernels, channels
for side, other in (("W", "H"), ("H", "W")):
    for kind, make in (("conv", conv), ("depthwise", depthwise)):
        number = "CVE-2022-21741" if kind == "depthwise" else "CVE-2021-29585"
        fields: dict[str, Any] = {f"Stride{side}": 0, f"Stride{other}": 1}
        case(number, f"{kind} stride {side} 0", "the stride is .* at least 1", lambda m=make, f=fields: m(**f))  # type: ignore[misc]
        fields = {f"Dilation{side}Factor": 0}
        case(number, f"{kind} dilation {side} 0", "the dilation is .* at least 1", lambda m=make, f=fields: m(**f))  # type: ignore[misc]
    for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        fields = {f"Stride{side}": 0}
        case("CVE-2021-29586", f"{kind} stride {side} 0", "the stride is", lambda k=kind, f=fields: pool(k, **f))  # type: ignore[misc]
        fields = {"FilterWidth" if side == "W" else "FilterHeight": 0}
        case("CVE-2021-37684", f"{kind} kernel {side} 0", "the kernel is", lambda k=kind, f=fields: pool(k, **f))  # type: ignore[misc]
case("CVE-2021-29585", "conv stride negative", "the stride is .* at least 1", lambda: conv(StrideW=-1))
case("CVE-2021-29586", "pool kernel negative", "the kernel is", lambda: pool("MAX_POOL_2D", FilterHeight=-2))
case("CVE-2021-29602", "depthwise of no channels", "each dimension must be", lambda: depthwise(image=(1, 4, 3, 0)))
case("CVE-2021-29602", "depthwise weights of no channels", "each dimension must be", lambda: depthwise((1, 3, 3, 0)))
case("CVE-2021-29602", "depthwise multiplier that lies", "depth multiplier 3", lambda: depthwise(DepthMultiplier=3))
case("CVE-2021-29602", "depthwise multiplier negative", "depth multiplier -1", lambda: depthwise(DepthMultiplier=-1))
case("CVE-2023-27579", "conv weights of no input channels", "each dimension must be", lambda: conv((3, 1, 1, 0)))
case("CVE-2021-29594", "conv weights of no height", "each dimension must be", lambda: conv((3, 0, 1, 2)))
case("CVE-2022-23557", "conv weights of no outputs", "each dimension must be", lambda: conv((0, 1, 1, 2)))
case(
    "CVE-2022-23557",
    "conv bias of no elements",
    "each dimension must be",
    lambda: conv(bias=constant([1.0], shape=(0,))),
)
case("CVE-2022-23557", "conv bias too short", "the bias has 2 elements; it must have 3", lambda: conv(bias=weights(2)))
case("CVE-2021-37680", "fully connected of no outputs", "each dimension must be",
     lambda: one("FULLY_CONNECTED", [weights(0, 24)], "FullyConnectedOptions"))  # fmt: skip
case("CVE-2021-37680", "fully connected of no inputs", "each dimension must be",
     lambda: one("FULLY_CONNECTED", [weights(5, 0)], "FullyConnectedOptions"))  # fmt: skip
case("CVE-2021-37680", "fully connected of rank 1", r"it must be \[n, k\]",
     lambda: one("FULLY_CONNECTED", [weights(24)], "FullyConnectedOptions"))  # fmt: skip

# --- Sizes that overflow, and windows without end
case(
    "CVE-2022-23558",
    "input of 2**62 elements",
    "elements are possible|can be at most",
    lambda: conv(image=(1, 2**30, 2**30, 4)),
)
case("CVE-2021-29605", "input of rank 9", "at most 8 are possible", lambda: conv(image=(1,) * 9))
case("CVE-2021-29605", "input of negative size", "each dimension must be", lambda: conv(image=(1, -4, 3, 2)))
case("CVE-2021-29605", "input of negative batch", "each dimension must be", lambda: conv(image=(-1, 4, 3, 2)))
case("CVE-2021-29585", "conv stride of 2**31 - 1", "both can be at most", lambda: conv(StrideH=2**31 - 1))
case("CVE-2021-29585", "conv dilation of 2**31 - 1", "both can be at most", lambda: conv(DilationHFactor=2**31 - 1))
case(
    "CVE-2021-37684",
    "pool window of 2**31 - 1",
    "both can be at most",
    lambda: pool("MAX_POOL_2D", FilterWidth=2**31 - 1),
)
case("CVE-2021-37684", "pool window over the image", "the input has only 4",
     lambda: pool("AVERAGE_POOL_2D", FilterHeight=9, Padding=1))  # fmt: skip
case("CVE-2021-29605", "pad to 2**40 elements", "elements are possible|at most",
     lambda: one("PAD", [constant([[0, 0], [2**20, 0], [2**20, 0], [0, 0]], "INT32")], "PadOptions"))  # fmt: skip

case("CVE-2021-29605", "input of 16 million channels", "each extent can be at most",
     lambda: one("RELU", image=(1, 9, 1, 16515080)))  # fmt: skip

# --- Reshape and its kin
case("CVE-2021-29592", "reshape to a shape that is nowhere", "must be constant",
     lambda: one("RESHAPE", [((2,), "INT32")], "ReshapeOptions"))  # fmt: skip
case("CVE-2021-29592", "reshape to a shape with two unknowns", "does not fit", lambda: reshape([-1, -1]))
case("CVE-2021-29592", "reshape to nothing", "does not fit", lambda: reshape([0, 24]))
case("CVE-2021-29592", "reshape to -2", "does not fit", lambda: reshape([-2, 24]))
case(
    "CVE-2021-29605",
    "reshape to 2**62 elements",
    "does not fit|number of elements",
    lambda: reshape([2**31 - 1, 2**31 - 1]),
)
case("CVE-2021-29592", "reshape to a shape of 40 numbers", "it must have at most", lambda: reshape([1] * 40))
case(
    "CVE-2021-29592",
    "reshape to a shape whose bytes are missing",
    "bytes of data",
    lambda: reshape([1, 24], shape=(3,)),
)
case("CVE-2021-37685", "squeeze of dimension 9", "not all of size 1",
     lambda: one("SQUEEZE", (), "SqueezeOptions", SqueezeDims=[9]))  # fmt: skip
case("CVE-2020-15207", "mean over the axis -7", "they must be 1 and 2",
     lambda: one("MEAN", [constant([1, -7], "INT32")], "ReducerOptions"))  # fmt: skip
case("CVE-2020-15207", "mean over 2**31 - 1", "they must be 1 and 2",
     lambda: one("MEAN", [constant([1, 2**31 - 1], "INT32")], "ReducerOptions"))  # fmt: skip
case("CVE-2020-15207", "pad by a negative number", "not below 0",
     lambda: one("PAD", [constant([[0, 0], [-1, 0], [0, 0], [0, 0]], "INT32")], "PadOptions"))  # fmt: skip


def two_shapes() -> bytes:
    b = TfliteBuilder()
    x, axes = b.input(IMAGE), b.constant("axes", np.array([1, 2], np.int32))
    mean = b.operator("MEAN", [x, axes], (1, 1, 1, 2), "ReducerOptions", KeepDims=True)
    return b.finish(b.operator("ADD", [x, mean], ()))


case("CVE-2020-15208", "summands of two shapes", "not the same", two_shapes)

# --- Indices, and values that nothing writes
for index in (-1, -2, 99, 2**31 - 1):
    case("CVE-2020-15211", f"operator input {index}", "is missing|does not exist",
         built(lambda b, x, i=index: b.operator("RELU", [i], IMAGE)))  # type: ignore[misc]  # fmt: skip
    case("CVE-2020-15211", f"operator output {index}", "does not exist",
         built(lambda b, x, i=index: b.operator("RELU", [x], i)))  # type: ignore[misc]  # fmt: skip
    case("CVE-2020-15211", f"network output {index}", "does not exist",
         built(lambda b, x, i=index: i if b.operator("RELU", [x], IMAGE) else 0))  # type: ignore[misc]  # fmt: skip
case("CVE-2020-15210", "an operator that writes its input", "is written to twice",
     built(lambda b, x: b.operator("RELU", [x], x)))  # fmt: skip
case("CVE-2020-15209", "an output that nothing writes", "is read before anything writes it",
     built(lambda b, x: b.tensor("y", IMAGE)))  # fmt: skip
case("CVE-2020-15209", "weights without data", "must be constant", lambda: one("CONV_2D", [((3, 1, 1, 2),)], **CONV))
case("CVE-2020-15209", "weights of too few bytes", "bytes of data; its shape",
     lambda: one("CONV_2D", [constant([1.0], shape=(3, 1, 1, 2))], **CONV))  # fmt: skip
case("CVE-2020-15209", "a constant that is written to", "is constant and is written to",
     built(lambda b, x: b.operator("RELU", [x], b.constant("c", np.ones(IMAGE, np.float32)))))  # fmt: skip


def cycle() -> bytes:
    b = TfliteBuilder()
    b.input(IMAGE)
    y, z = b.tensor("y", IMAGE), b.tensor("z", IMAGE)
    b.operator("RELU", [y], z)
    return b.finish(b.operator("RELU", [z], y))


case("CVE-2021-29591", "operators in a circle", "is read before anything writes it", cycle)
case("CVE-2021-29591", "subgraphs that call each other", "there must be exactly one",
     lambda: TfliteBuilder(subgraphs=2).finish())  # fmt: skip


def buffer_of(index: int) -> bytes:
    b = TfliteBuilder()
    x, y = b.input(IMAGE), b.tensor("y", IMAGE)
    b.tensors[y].buffer = index
    return b.finish(b.operator("RELU", [x], y))


case("CVE-2020-15211", "buffer 77 of 1", "buffer 77 does not exist", lambda: buffer_of(77))
case("CVE-2020-15211", "buffer 2**32 - 1", "does not exist", lambda: buffer_of(2**32 - 1))

# --- Quantisation


def quantised(**parameters: Any) -> bytes:
    b = TfliteBuilder()
    x = b.input(IMAGE)
    weight = b.constant("w", np.ones((3, 1, 1, 2), np.int8), **parameters)
    return b.finish(b.operator("CONV_2D", [x, weight], (1, 4, 3, 3), **CONV))


case("CVE-2021-37682", "weights without quantisation", "carries no quantisation", quantised)
case("CVE-2021-37682", "two scales for three channels", "2 quantisation scales", lambda: quantised(scale=[1.0, 2.0]))
case("CVE-2021-37682", "a scale that is no number", "not finite", lambda: quantised(scale=float("nan")))
case(
    "CVE-2021-37682", "a zero point out of range", "zero point outside", lambda: quantised(scale=1.0, zero_point=2**40)
)

# --- Operators that crashed and that sepconv lacks: the name in the message
for number, kind in (
    ("CVE-2021-29587", "SPACE_TO_DEPTH"),
    ("CVE-2021-29589", "GATHER_ND"),
    ("CVE-2021-29591", "WHILE"),
    ("CVE-2021-29593", "BATCH_TO_SPACE_ND"),
    ("CVE-2021-29595", "DEPTH_TO_SPACE"),
    ("CVE-2021-29596", "EMBEDDING_LOOKUP"),
    ("CVE-2021-29597", "SPACE_TO_BATCH_ND"),
    ("CVE-2021-29598", "SVDF"),
    ("CVE-2021-29604", "HASHTABLE_LOOKUP"),
    ("CVE-2021-37683", "DIV"),
    ("CVE-2020-15212", "SEGMENT_SUM"),
    ("CVE-2022-23560", "SPARSE_TO_DENSE"),
):
    case(number, f"the operator {kind}", f"operator 0, {kind}: this operator is not supported",
         lambda k=kind: one(k, output=IMAGE))  # type: ignore[misc]  # fmt: skip

# --- The container: references that point nowhere, to themselves, or to more than there is


def patched(field: int, value: int, *, count: bool = False) -> bytes:
    """A network in whose root table the reference ``field``, or its vector's count, is another number."""
    data = bytearray(one("RELU", output=IMAGE))
    root = Table.root(memoryview(data))
    position = root._field(field, 4)
    assert position is not None
    if count:
        position = _follow(memoryview(data), position)
    data[position : position + 4] = value.to_bytes(4, "little")
    return bytes(data)


def patched_root(value: int) -> bytes:
    return value.to_bytes(4, "little") + one("RELU", output=IMAGE)[4:]


case(
    "CVE-2021-29605",
    "4 thousand million tensors",
    "passes the end",
    lambda: patched(schema.Model.BUFFERS, 2**32 - 1, count=True),
)
case("CVE-2021-29605", "a subgraph at no place", "outside the file", lambda: patched(schema.Model.SUBGRAPHS, 2**31))
case("CVE-2021-29591", "a root that is its own reference", "impossible size|outside|version", lambda: patched_root(0))
case("CVE-2021-29605", "a root after the end", "outside the file", lambda: patched_root(2**32 - 1))


def test_enough_of_them() -> None:
    assert len(CASES) >= 40
    assert len({number for number, _, _ in CASES.values()}) >= 20


@pytest.mark.parametrize("name", CASES)
def test_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    _, make, message = CASES[name]
    path = tmp_path / "network.tflite"
    path.write_bytes(make())
    with pytest.raises((ModelFormatError, UnsupportedError), match=message) as caught:
        sepconv.load(path)
    assert "network.tflite" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_what_they_are_made_from_is_fine(tmp_path: Path) -> None:
    """Without the fault the same files load and run: it is the fault that was refused."""
    good = {
        "conv": conv(bias=weights(3)),
        "depthwise": depthwise(DepthMultiplier=1),
        "average": pool("AVERAGE_POOL_2D"),
        "max": pool("MAX_POOL_2D"),
        "fully connected": one("FULLY_CONNECTED", [weights(5, 24)], "FullyConnectedOptions"),
        "reshape": reshape([-1, 24]),
        "mean": one("MEAN", [constant([1, 2], "INT32")], "ReducerOptions"),
        "pad": one("PAD", [constant([[0, 0], [1, 0], [0, 0], [0, 0]], "INT32")], "PadOptions"),
        "relu": one("RELU", output=IMAGE),
        "quantised": quantised(scale=0.5),
    }
    for name, data in good.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(data)
        assert np.isfinite(sepconv.load(path)(np.ones(IMAGE, np.float32))).all(), name
