"""Damaged and hostile TFLite files: an exception of ours or a valid network, quickly and in little memory."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tflite", reason="writing the files needs the packages of the extra [tflite]")
pytest.importorskip("flatbuffers", reason="writing the files needs the packages of the extra [tflite]")

from tflite_builder import CONV, normal, shared_weights, small_network

from sepconv import graph
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.export.tflite_builder import TfliteBuilder
from sepconv.io import _tflite_schema as schema
from sepconv.io import read_tflite
from sepconv.io.flatbuffer import Table

SMALL_MUTATIONS = 8500
REAL_MUTATIONS = 1500
_WORDS = (0, 1, 2, 3, 4, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def structure(data: bytes) -> list[int]:
    """Offsets of the bytes that are not weights: where damage does more than to change a value."""
    buffers = Table.root(memoryview(data)).tables(schema.Model.BUFFERS)
    outside = np.ones(len(data), bool)
    for index in range(len(buffers)):
        start, octets = buffers.get(index, "buffer").octets(schema.Buffer.DATA)
        if len(octets) > 64:
            outside[start : start + len(octets)] = False
    return [int(offset) for offset in np.flatnonzero(outside)]


def mutate(data: bytes, offsets: list[int], rng: random.Random) -> bytes:
    """One to four changes: bits, bytes, 16 and 32 bit fields set to edge values or nudged, copies, truncation."""
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.choice(offsets) if rng.random() < 0.9 else rng.randrange(len(mutant))
        kind = rng.randrange(7)
        at = min(at, len(mutant) - 4)
        if kind == 0:
            mutant[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            mutant[at] = rng.randrange(256)
        elif kind == 2:
            word = rng.choice((*_WORDS, len(data), len(data) - at, rng.getrandbits(32)))
            mutant[at & ~3 : (at & ~3) + 4] = word.to_bytes(4, "little")
        elif kind == 3:
            word = int.from_bytes(mutant[at & ~3 : (at & ~3) + 4], "little") + rng.choice((-8, -4, -2, -1, 1, 2, 4, 8))
            mutant[at & ~3 : (at & ~3) + 4] = (word % 2**32).to_bytes(4, "little")
        elif kind == 4:
            mutant[at & ~1 : (at & ~1) + 2] = rng.randrange(64).to_bytes(2, "little")
        elif kind == 5:
            other, size = rng.choice(offsets), rng.choice((2, 4, 8, 32))
            mutant[at : at + size] = data[other : other + size]
        elif rng.random() < 0.2:
            del mutant[rng.randrange(8, len(mutant)) :]
            offsets = [offset for offset in offsets if offset < len(mutant)]
        if not offsets or len(mutant) < 8:
            break
    return bytes(mutant)


def read_or_refuse(data: bytes) -> bool:
    """Whether ``data`` gives a network, which must then be one that can be compiled."""
    try:
        layers = read_tflite(data)
    except (ModelFormatError, UnsupportedError):
        return False
    graph.infer_shapes(layers)
    for layer in layers:
        for array in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
            if array is not None:
                assert np.asarray(array).dtype == np.float32
    return True


def run_mutations(data: bytes, count: int, seed: int) -> int:
    offsets = structure(data)
    rng = random.Random(seed)
    valid = 0
    for _ in range(count):
        mutant = mutate(data, offsets, rng)
        start = time.process_time()
        with np.errstate(all="ignore"):
            valid += read_or_refuse(mutant)
        assert time.process_time() - start < 1, "reading took more than a second"
    return valid


@pytest.mark.slow
def test_mutations_of_a_small_network() -> None:
    valid = run_mutations(small_network(families=True), SMALL_MUTATIONS, seed=1)
    assert 0 < valid < SMALL_MUTATIONS  # mutations of both kinds: harmless ones, and damage


@pytest.mark.slow
def test_mutations_of_a_real_network(shared_data: Path) -> None:
    data = (shared_data / "models" / "mobilenet_v1_0.25_128_quant.tflite").read_bytes()
    assert 0 < run_mutations(data, REAL_MUTATIONS, seed=2) < REAL_MUTATIONS


def test_every_truncation_is_refused() -> None:
    data = small_network(families=True)
    for size in range(len(data)):
        assert not read_or_refuse(data[:size]) or not any(data[size:])


@pytest.mark.parametrize("offset", [2, 1 << 32, (1 << 32) + 1])
def test_buffers_outside_the_flatbuffer(offset: int) -> None:
    class Builder(TfliteBuilder):
        def _buffer(self, builder: Any, data: bytes) -> int:
            return self._table(builder, "Buffer", {"Offset": offset, "Size": len(data)} if data else {})

    b = Builder()
    x = b.input((1, 4, 4, 2))
    data = b.finish(b.operator("CONV_2D", [x, b.constant("w", normal(3, 1, 1, 2))], (1, 4, 4, 3), **CONV))
    with pytest.raises(UnsupportedError, match="buffer 1 lies outside the FlatBuffer"):
        read_tflite(data)


_LIMITED = """
import resource, sys
from pathlib import Path
from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.io import read_tflite
files = sorted(Path(sys.argv[1]).iterdir())
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for file in files:
    limit = used + 4 * file.stat().st_size + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        read_tflite(file)
    except (ModelFormatError, UnsupportedError):
        pass
print("read", len(files))
"""


@pytest.mark.memory
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space by Linux's means")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """4 times the file and 64 MiB, as address space of a process that has read nothing yet."""
    data = small_network()
    offsets = structure(data)
    rng = random.Random(3)
    for index in range(300):
        (tmp_path / f"mutant{index}").write_bytes(mutate(data, offsets, rng))
    (tmp_path / "shared").write_bytes(shared_weights(2000))
    for index, offset in enumerate(offset for offset in offsets if offset % 4 == 0):
        huge = bytearray(data)
        huge[offset : offset + 4] = (0x7FFFFFFF).to_bytes(4, "little")
        (tmp_path / f"huge{index}").write_bytes(huge)
    result = subprocess.run([sys.executable, "-c", _LIMITED, tmp_path], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("read ")
