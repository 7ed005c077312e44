"""Files as read-only byte views, and what format they are by their content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.mapping import map_file
from sepconv.paths import regular_file

FileFormat = Literal["tflite", "onnx", "safetensors", "zip", "pickle", "unknown"]

TFLITE_IDENTIFIER = b"TFL3"
# An ONNX file has no signature. It begins with its IR version (field 1, a small number), and goes on with one of the
# other fields of a ModelProto that have a length: 2 to 4, 6 to 8, 14, 20, 25.
ONNX_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72, 0xA2, 0xCA)
ZIP_SIGNATURE = b"PK\x03\x04"

# First bytes of formats that are often handed over by mistake; they only make the error message better.
_KNOWN_BEGINNINGS = (
    (b"\x89HDF", "an HDF5 file (Keras .h5), which sepconv does not read"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"\x93NUMPY", "a single NumPy array; a set of weights is an .npz"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GGUF", "a GGUF file, which sepconv does not read"),
)


@dataclass(frozen=True)
class Source:
    """The bytes of one file (``data``, read-only) and the name by which error messages call it."""

    data: memoryview
    name: str


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Puts ``what`` before the messages of this package's errors."""
    try:
        yield
    except (ModelFormatError, UnsupportedError) as error:
        raise type(error)(f"{what}: {error}") from None


def open_source(source: str | os.PathLike[str] | bytes) -> Source:
    """A file by its path, as :func:`open_file`, or bytes. TypeError for neither."""
    if isinstance(source, bytes):
        return Source(memoryview(source), "<bytes>")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"source was a {type(source).__name__}, must be a path or bytes")
    return open_file(source)


def open_file(source: str | os.PathLike[str]) -> Source:
    """Maps a file read-only. Nothing is copied: arrays made from ``data`` are views of the file.

    The file must not be shortened while views of it live: the operating system would end the process.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: the path cannot be opened.
        ModelFormatError: the file is empty, or not a regular file.
        TypeError, ValueError: the path is none.
    """
    path = regular_file(source)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ModelFormatError(f"{str(path)!r} is empty")
        mapped = map_file(file.fileno())
    return Source(memoryview(mapped), repr(str(path)))


def identify(data: memoryview) -> FileFormat:
    """The format that the first bytes announce. Whether the rest keeps the promise is for the format's reader."""
    if bytes(data[4:8]) == TFLITE_IDENTIFIER:
        return "tflite"
    if bytes(data[:4]) == ZIP_SIGNATURE:
        return "zip"
    if len(data) > 8 and data[8] == ord("{") and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return "safetensors"
    if len(data) > 2 and data[0] == 0x80 and 2 <= data[1] <= 5:
        return "pickle"
    if len(data) > 8 and data[0] == 0x08 and 1 <= data[1] < 64 and data[2] in ONNX_FIELDS:
        return "onnx"
    return "unknown"


def describe(data: memoryview) -> str:
    """What a file of unknown format seems to be, as the end of a sentence "it is ..."."""
    head = bytes(data[:64])
    for beginning, description in _KNOWN_BEGINNINGS:
        if head.startswith(beginning):
            return description
    if len(head) < 8:
        return f"only {len(data)} bytes long"
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        return f"a text file that begins with {head[:24].decode('ascii')!r}"
    return f"of an unknown format; its first bytes are {head[:8].hex(' ')}"
