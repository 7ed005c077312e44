"""The safetensors and .npz readers, and how :func:`sepconv.io.read_weights` tells formats apart."""

from __future__ import annotations

import io
import json
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.io import read_safetensors, read_weights

VALUES = np.arange(6, dtype=np.float32)


def safetensors(header: Any, content: bytes = b"", header_size: int | None = None) -> bytes:
    octets = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(octets) if header_size is None else header_size) + octets + content


def entry(dtype: str = "F32", shape: Any = (2, 3), start: Any = 0, end: Any = 24) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize("shift", range(4))
def test_tensors_of_every_alignment(tmp_path: Path, shift: int) -> None:
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": entry(), "s": entry("F32", (), 24, 28)}).encode()
    path = tmp_path / "weights"
    path.write_bytes(safetensors(header + b" " * ((-len(header) + shift) % 4), VALUES.tobytes() + b"\0\0\x80\x3f"))
    weights = read_weights(path)
    assert list(weights) == ["a", "s"]
    np.testing.assert_array_equal(weights["a"], VALUES.reshape(2, 3))
    assert weights["s"] == 1
    for array in weights.values():
        assert not array.flags.writeable
    assert weights["a"].base is not None


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        ("F64", np.array([1.5, -2]), np.float64),
        ("F16", np.array([1.5, -2], np.float16), np.float32),
        ("BF16", np.array([0x3FC0, 0xC000], np.uint16), np.float32),
        ("I8", np.array([1, -2], np.int8), np.int8),
        ("U16", np.array([1, 2], np.uint16), np.uint16),
        ("I64", np.array([1, -2]), np.int64),
        ("BOOL", np.array([True, False]), np.bool_),
    ],
)
def test_types(dtype: str, stored: np.ndarray[Any, Any], expected: type) -> None:
    weight = read_safetensors(safetensors({"w": entry(dtype, (2,), 0, stored.nbytes)}, stored.tobytes()))["w"]
    assert weight.dtype == expected
    np.testing.assert_array_equal(weight, [1.5, -2] if dtype == "BF16" else stored)


def test_empty_tensors() -> None:
    header = {"a": entry("F32", (0, 3), 0, 0), "b": entry(), "c": entry("F32", (0,), 24, 24)}
    assert [array.shape for array in read_safetensors(safetensors(header, bytes(24))).values()] == [
        (0, 3),
        (2, 3),
        (0,),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header's size"),
        (b"\0\0\0", "header's size"),
        (safetensors({}, header_size=2**63), "header's size"),
        (safetensors({}, header_size=3), "header's size"),
        (safetensors(b" " * (9 << 20)), "header's size"),
        (safetensors([]), "not a JSON object"),
        (safetensors(b"{"), "not valid JSON"),
        (safetensors(b"{\xff}"), "not valid JSON"),
        (safetensors(b'{"a":' + b"[" * 100_000), "not valid JSON"),
        (safetensors(b'{"a":' * 100_000), "not valid JSON"),
        (safetensors(b'{"a":' + b"1" * 5000 + b"}"), "JSON|must have exactly"),
        (safetensors(b'{"a":{},"a":{}}'), "a key twice"),
        (safetensors(b'{"a":{"dtype":"F32","dtype":"F32"}}'), "a key twice"),
        (safetensors({"a": 3}), "must have exactly"),
        (safetensors({"a": {"dtype": "F32", "shape": [1]}}), "must have exactly"),
        (safetensors({"a": {**entry(), "more": 1}}, bytes(24)), "must have exactly"),
        (safetensors({"a": {**entry(), "dtype": 3}}, bytes(24)), "malformed dtype"),
        (safetensors({"a": {**entry(), "dtype": ["F32"]}}, bytes(24)), "malformed dtype"),
        (safetensors({"a": {**entry(), "shape": 6}}, bytes(24)), "malformed dtype or shape"),
        (safetensors({"a": entry(shape=(2.0, 3.0))}, bytes(24)), "malformed dtype or shape"),
        (safetensors({"a": entry(shape=(True, 6))}, bytes(24)), "malformed dtype or shape"),
        (safetensors({"a": entry(shape=(-2, -3))}, bytes(24)), "malformed dtype or shape"),
        (safetensors({"a": entry(shape=[1] * 40 + [6])}, bytes(24)), "impossible shape"),
        (safetensors({"a": entry(shape=(0, 2**63), end=0)}, bytes(24)), "impossible shape"),
        (safetensors({"a": entry(shape=(2**32, 2**32), end=0)}, bytes(24)), "impossible shape"),
        (safetensors({"a": entry(shape=(2, 4))}, bytes(24)), "24 bytes; its type F32 and shape need 32"),
        (safetensors({"a": entry(start=-24, end=0)}, bytes(24)), "malformed data_offsets"),
        (safetensors({"a": entry(start=24, end=0)}, bytes(24)), "malformed data_offsets"),
        (safetensors({"a": entry()}, bytes(23)), "malformed data_offsets"),
        (safetensors({"a": entry(start=0.0)}, bytes(24)), "malformed data_offsets"),
        (safetensors({"a": {**entry(), "data_offsets": [0, 24, 24]}}, bytes(24)), "malformed data_offsets"),
        (safetensors({"a": entry(), "b": entry(start=20, end=44)}, bytes(44)), "tensors overlap"),
        (safetensors({"a": entry(), "b": entry()}, bytes(24)), "tensors overlap"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_files(data: bytes, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        read_safetensors(data)


@pytest.mark.parametrize("size", [2 << 20, 8 << 20])
def test_a_header_takes_no_more_than_64_megabytes(size: int) -> None:
    data = safetensors(b'{"a":[' + b"[]," * ((size - 10) // 3) + b"[]]}")
    tracemalloc.start()
    with pytest.raises(ModelFormatError):
        read_safetensors(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 64 << 20


def test_unknown_types_are_named() -> None:
    with pytest.raises(UnsupportedError, match="of type 'F8_E4M3'"):
        read_safetensors(safetensors({"a": entry("F8_E4M3", (24,))}, bytes(24)))


@pytest.mark.slow
def test_mutations() -> None:
    data = safetensors({"a": entry(), "b": entry("BF16", (3,), 24, 30)}, bytes(30))
    rng = random.Random(5)
    for _ in range(4000):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 2, 4))):
            mutant[rng.randrange(len(mutant))] = rng.choice((rng.randrange(256), *b'0123456789[]{},:"-e '))
        if rng.random() < 0.1:
            del mutant[rng.randrange(len(mutant)) :]
        try:
            read_safetensors(bytes(mutant))
        except (ModelFormatError, UnsupportedError):
            continue


def test_a_real_file(shared_data: Path) -> None:
    weights = read_weights(shared_data / "models" / "mobilenet_v2_torchvision.safetensors")
    assert len(weights) == 314
    assert weights["classifier.1.weight"].shape == (1000, 1280)


# NumPy archives


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Any) -> None:
    arrays = {
        "a": VALUES.reshape(2, 3),
        "f": np.asfortranarray(VALUES.reshape(2, 3)),
        "half": VALUES.astype(np.float16),
        "n": np.array(3),
        "empty": np.zeros((0, 2)),
    }
    save(tmp_path / "w.npz", **arrays)
    weights = read_weights(tmp_path / "w.npz")
    assert set(weights) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights[name], array)
    assert weights["half"].dtype == np.float32


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_numbers_in_an_npz(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "w.npz"
    save(path, a=VALUES)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") - 5] ^= 4  # the last bytes of what the only member holds
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=r"the member 'a\.npy' (is damaged|cannot be decompressed)"):
        read_weights(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2])
def test_messages_are_short_where_names_are_long(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w", method) as archive:
        archive.writestr("x" * 60_000 + ".npy", b"junk")
    with pytest.raises((ModelFormatError, UnsupportedError), match=r"the member 'x{80}' is ") as caught:
        read_weights(tmp_path / "w.npz")
    assert len(str(caught.value)) < 100 + len(str(tmp_path)) + 80


def npy(header: str, content: bytes = b"", version: int = 1) -> bytes:
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header)) + header.encode() + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a NumPy array"),
        (b"\x93NUMPY\x01\x00\xff\xff", "not an array of plain"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n."), "not an array of plain"),
        (npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", bytes(4)), "not an array of plain"),
        (npy("__import__('os').system('true')"), "not an array of plain"),
        (npy("{'descr': '<f1', 'fortran_order': False, 'shape': (1,), }", bytes(1)), "unknown type"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,), }", bytes(4)), "does not fit"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 300 + ",), }"), "impossible shape"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2 3), }", bytes(4)), "does not fit"),
    ],
)
def test_hostile_npz(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ModelFormatError, match=message):
        read_weights(path)


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(200 << 20))
    with pytest.raises(ModelFormatError, match="too many for a file of this size"):
        read_weights(path)
    lying = bytearray(path.read_bytes())
    directory = lying.index(b"PK\x01\x02")
    lying[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    path.write_bytes(lying)
    with pytest.raises(ModelFormatError, match="does not decompress to its 1000 bytes"):
        read_weights(path)


def test_what_holds_no_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w"
    for content, message in (
        (b"\x1c\0\0\0TFL3" + bytes(40), "sepconv.load reads it"),
        (b"weights, honestly", "a text file"),
        (io.BytesIO(b"").getvalue(), "is empty"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelFormatError, match=message):
            read_weights(path)
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        read_weights(tmp_path)
