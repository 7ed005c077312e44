"""The readers as functions of bytes, the files that fuzzing starts from, and what their formats are made of."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import row  # noqa: F401  the path to the other tests
import torch_pickles as pickles

from sepconv import graph
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.io import _read_archive
from sepconv.io.files import Source, identify
from sepconv.io.safetensors import read_safetensors_weights
from sepconv.io.tflite import read_tflite_network
from sepconv.io.torch_checkpoint import read_torch_weights


@dataclass(frozen=True)
class Target:
    """``read`` takes any bytes, and raises nothing but our two errors. ``tokens`` are what mutations put in."""

    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    tokens: Sequence[bytes]
    max_size: int = 2048


def _source(data: bytes) -> Source:
    return Source(memoryview(data), "fuzz")


def _read_tflite(data: bytes) -> None:
    graph.infer_shapes(read_tflite_network(_source(data)).layers)


def _read_weights(data: bytes) -> None:
    source = _source(data)
    arrays = _read_archive(source) if identify(source.data) == "zip" else read_torch_weights(source)
    _sum(arrays)


def _read_safetensors(data: bytes) -> None:
    _sum(read_safetensors_weights(_source(data)))


def _sum(arrays: dict[str, Any]) -> None:
    """Reads every element, so that a view outside of the file would be seen."""
    for array in arrays.values():
        np.bitwise_xor.reduce(np.ascontiguousarray(array).view(np.uint8), axis=None)


def refuses(read: Callable[[bytes], None], data: bytes) -> bool:
    try:
        read(data)
    except (ModelFormatError, UnsupportedError):
        return True
    return False


# --- Seeds


def _tflite_seeds() -> list[bytes]:
    """One network an operator: small, so that mutations meet what matters."""
    import tflite_builder as tflite

    from sepconv.export.tflite_builder import TfliteBuilder

    def network(
        kind: str,
        output: Sequence[int],
        options: str = "",
        constants: Sequence[Any] = (),
        image: Sequence[int] = (1, 4, 3, 2),
        **fields: Any,
    ) -> bytes:
        b = TfliteBuilder()
        x = b.input(image)
        inputs = [x] + [b.constant(f"c{i}", np.asarray(c)) for i, c in enumerate(constants)]
        return b.finish(b.operator(kind, inputs + [x] * (kind == "ADD"), output, options, **fields))

    ones = np.ones
    seeds = [
        network(
            "CONV_2D", (1, 4, 3, 3), constants=[ones((3, 1, 1, 2), np.float32), ones(3, np.float32)], **tflite.CONV
        ),
        network("DEPTHWISE_CONV_2D", (1, 4, 3, 2), constants=[ones((1, 3, 3, 2), np.float32)], **tflite.DEPTHWISE),
        network("FULLY_CONNECTED", (1, 2), "FullyConnectedOptions", [ones((2, 24), np.float32)]),
        network("AVERAGE_POOL_2D", (1, 2, 1, 2), **tflite.POOL, Padding=1),
        network("MAX_POOL_2D", (1, 2, 2, 2), **tflite.POOL),
        network("ADD", (1, 4, 3, 2), "AddOptions", FusedActivationFunction=1),
        network("MEAN", (1, 2), "ReducerOptions", [np.array([1, 2], np.int32)], KeepDims=False),
        network("PAD", (1, 5, 3, 2), "PadOptions", [np.array([[0, 0], [1, 0], [0, 0], [0, 0]], np.int32)]),
        network("RESHAPE", (1, 24), "ReshapeOptions", [np.array([-1, 24], np.int32)]),
        network("SQUEEZE", (1, 3, 2), "SqueezeOptions", image=(1, 1, 3, 2), SqueezeDims=[1]),
        network("SOFTMAX", (1, 4, 3, 2), "SoftmaxOptions", Beta=1.0),
        network("GELU", (1, 4, 3, 2), "GeluOptions", Approximate=True),
        network("LEAKY_RELU", (1, 4, 3, 2), "LeakyReluOptions", Alpha=0.1),
        network("PRELU", (1, 4, 3, 2), "", [ones((1, 1, 2), np.float32)]),
        *(network(kind, (1, 4, 3, 2)) for kind in ("RELU", "RELU6", "LOGISTIC")),
    ]
    for kind in ("QUANTIZE", "DEQUANTIZE"):
        b = TfliteBuilder()
        x = b.operator(kind, [b.input((1, 4, 3, 2))], (1, 4, 3, 2))
        seeds.append(b.finish(b.operator("RELU", [x], (1, 4, 3, 2))))
    b = TfliteBuilder()
    x = b.input((1, 4, 3, 2), "UINT8", scale=0.5, zero_point=3)
    weight = b.constant("w", ones((3, 1, 1, 2), np.uint8), scale=0.1, zero_point=7)
    output = b.tensor("y", (1, 4, 3, 3), "UINT8", scale=0.5, zero_point=0)
    seeds.append(b.finish(b.operator("CONV_2D", [x, weight], output, **tflite.CONV)))
    return seeds


def _checkpoint_seeds() -> list[bytes]:
    p = pickles
    storage = p.storage("0", 6)
    plain = p.dictionary({"w": p.tensor(storage, (2, 3), (3, 1)), "b": p.tensor(storage, (2,), (1,), 4)})
    wrapped = p.dictionary({"state_dict": p.dictionary({"module.w": p.tensor(storage, (6,), (1,))}, ordered=True)})
    half = p.dictionary({"h": p.tensor(p.storage("0", 6, "HalfStorage"), (3, 2), (1, 3))})
    legacy = p.dictionary({"w": p.tensor(p.storage("0", 6, legacy=True), (6,), (1,))})
    archive = io.BytesIO()
    np.savez(archive, w=np.ones((2, 3), np.float32), n=np.arange(3))
    packed = io.BytesIO()
    np.savez_compressed(packed, w=np.zeros((2, 3), np.float16))
    return [
        p.zip_checkpoint(plain, {"0": bytes(24)}),
        p.zip_checkpoint(wrapped, {"0": bytes(24)}),
        p.zip_checkpoint(half, {"0": bytes(12)}),
        p.legacy_checkpoint(legacy, {"0": (6, bytes(24))}),
        archive.getvalue(),
        packed.getvalue(),
    ]


def _safetensors(header: object, content: bytes) -> bytes:
    octets = json.dumps(header).encode()
    return struct.pack("<Q", len(octets)) + octets + content


def _safetensors_seeds() -> list[bytes]:
    def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}

    return [
        _safetensors({"w": entry("F32", [2, 3], 0, 24)}, bytes(24)),
        _safetensors(
            {"__metadata__": {"a": "b"}, "w": entry("BF16", [3], 0, 6), "n": entry("I64", [], 6, 14)}, bytes(14)
        ),
        _safetensors({"e": entry("F16", [0, 4], 0, 0), "b": entry("BOOL", [1, 1, 2], 0, 2)}, bytes(2)),
        _safetensors({}, b""),
    ]


def _words(*values: int) -> list[bytes]:
    return [struct.pack("<I", value) for value in values]


_EDGES = _words(0, 1, 2, 3, 4, 5, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_OPCODES = [
    bytes([code]) for code in b"\x80\x95N\x88\x89KMJ\x8a\x8bGUT\x8cX\x8d)]}(0\x85\x86\x87taesuqr\x94hjc\x93RbQ."
]
_JSON = [
    token.encode()
    for token in (
        *'{}[],:"',
        *('"F32"', '"BF16"', '"I8"', '"shape":', '"dtype":', '"data_offsets":', "\\u0000", "[[[[", "null", "true"),
        *("0", "-1", "1e9", "NaN", "99999999999999999999", "18446744073709551615"),
    )
]
_ZIP = [b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"\x01\x00\x10\x00"]

TARGETS = {
    "tflite": Target(_read_tflite, _tflite_seeds, _EDGES, 1024),
    "checkpoint": Target(_read_weights, _checkpoint_seeds, [*_EDGES, *_OPCODES, *_ZIP]),
    "safetensors": Target(_read_safetensors, _safetensors_seeds, [*_EDGES[:4], *_JSON], 512),
}
