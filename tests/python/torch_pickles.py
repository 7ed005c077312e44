"""Assembles torch checkpoints for tests from single pickle opcodes, without torch: right ones and wrong ones."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    octets = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(octets)]) + octets


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def many(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def integers(values: Sequence[int]) -> bytes:
    return many(*map(integer, values))


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + many(*arguments) + b"R"


def dictionary(items: Mapping[str, bytes], ordered: bool = False) -> bytes:
    start = call(name("collections", "OrderedDict")) if ordered else b"}"
    return start + b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(key: str, size: int, kind: str = "FloatStorage", legacy: bool = False) -> bytes:
    fields = [text("storage"), name("torch", kind), text(key), text("cpu"), integer(size)]
    return many(*fields, *([NONE] if legacy else [])) + b"Q"


def tensor(
    source: bytes,
    shape: Sequence[int],
    strides: Sequence[int],
    offset: int = 0,
    metadata: Mapping[str, bytes] | None = None,
) -> bytes:
    hooks = call(name("collections", "OrderedDict"))
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    more = [] if metadata is None else [dictionary(metadata)]
    return call(rebuild, source, integer(offset), integers(shape), integers(strides), FALSE, hooks, *more)


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def zip_checkpoint(
    body: bytes,
    storages: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
    byte_order: str = "little",
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program(body))
        archive.writestr("archive/byteorder", byte_order)
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def legacy_checkpoint(
    body: bytes, storages: Mapping[str, tuple[int, bytes]] | None = None, little_endian: bytes = TRUE
) -> bytes:
    """``storages``: element count and bytes by key."""
    given = storages or {}
    system = dictionary({"protocol_version": integer(1001), "little_endian": little_endian})
    keys = b"](" + b"".join(map(text, given)) + b"e"
    contents = b"".join(struct.pack("<q", count) + content for count, content in given.values())
    return MAGIC + b"".join(map(program, (integer(1001), system, body, keys))) + contents
