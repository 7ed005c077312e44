"""Zip archives as views of their file: only what torch and NumPy write, and every offset checked."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

from sepconv.errors import ModelFormatError, UnsupportedError
from sepconv.io.arrays import MemoryBudget

MAX_MEMBERS = 100_000

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_MAX_COMMENT = 0xFFFF
_MAX_EXTRA = 1024  # bytes, of a directory entry; torch pads the members' own headers instead
_IN_ZIP64 = 0xFFFFFFFF  # a 32 bit field that stands in the entry's zip64 extra field instead
_ENCRYPTED = 1
_STORED, _DEFLATED = 0, 8


def called(name: str) -> str:
    """A member in messages: its name may have 64 KB."""
    return f"the member {name[:80]!r}"


@dataclass(frozen=True)
class Member:
    name: str
    method: int
    size: int
    crc: int
    stored: memoryview

    def view(self) -> memoryview:
        """The content of an uncompressed member, as a view of the file. torch may leave out its CRC-32."""
        if self.method != _STORED:
            raise UnsupportedError(f"{called(self.name)} is compressed; torch stores without compression")
        return self.stored

    def content(self, budget: MemoryBudget) -> memoryview:
        """The content, decompressed where that is needed, and with the CRC-32 that the directory states.

        The budget bounds what comes out.
        """
        content = self.stored if self.method == _STORED else self._decompressed(budget)
        if zlib.crc32(content) != self.crc:
            raise ModelFormatError(f"{called(self.name)} is damaged: its CRC-32 is not what the directory states")
        return content

    def _decompressed(self, budget: MemoryBudget) -> memoryview:
        if self.method != _DEFLATED:
            raise UnsupportedError(f"{called(self.name)} is compressed by method {self.method}; only 8 is known")
        budget.charge(self.size, called(self.name))
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(self.stored, self.size + 1)
        except zlib.error as error:
            raise ModelFormatError(f"{called(self.name)} cannot be decompressed: {error}") from None
        if len(content) != self.size:
            raise ModelFormatError(f"{called(self.name)} does not decompress to its {self.size} bytes")
        return memoryview(content)


def read_members(data: memoryview) -> dict[str, Member]:
    """The members by name. Duplicate names, overlapping or encrypted members raise ModelFormatError."""
    start, end, count = _find_directory(data)
    if count > MAX_MEMBERS:
        raise UnsupportedError(f"the archive has {count} members; at most {MAX_MEMBERS} are possible")
    members: dict[str, Member] = {}
    spans: list[tuple[int, int]] = []
    position = start
    for _ in range(count):
        member, span, position = _read_entry(data, position, start, end)
        if member.name in members:
            raise ModelFormatError(f"the archive has {called(member.name)} twice")
        members[member.name] = member
        spans.append(span)
    spans.sort()
    if any(start < end_before for (_, end_before), (start, _) in pairwise(spans)):
        raise ModelFormatError("members of the archive overlap")
    return members


def _unpack(codec: struct.Struct, data: memoryview, position: int, end: int, signature: bytes) -> tuple[int, ...]:
    if not 0 <= position <= end - codec.size:
        raise ModelFormatError("the archive is truncated")
    found, *values = codec.unpack_from(data, position)
    if found != signature:
        raise ModelFormatError(f"the archive has no {signature!r} at offset {position}, where it must be")
    return tuple(values)


def _find_directory(data: memoryview) -> tuple[int, int, int]:
    """Start, end and number of entries of the central directory, which the record at the file's end points to."""
    tail_start = max(len(data) - _END.size - _MAX_COMMENT, 0)
    found = bytes(data[tail_start:]).rfind(b"PK\x05\x06")
    if found < 0:
        raise ModelFormatError("the archive has no directory at its end: the file is truncated")
    end = tail_start + found
    _, _, _, count, size, start, _ = _unpack(_END, data, end, len(data), b"PK\x05\x06")
    if _IN_ZIP64 in (size, start) or count == 0xFFFF:
        locator = end - _END64_LOCATOR.size
        _, end, _ = _unpack(_END64_LOCATOR, data, locator, end, b"PK\x06\x07")
        *_, count, size, start = _unpack(_END64, data, end, locator, b"PK\x06\x06")
    if start + size > end or count * _ENTRY.size > size:
        raise ModelFormatError("the archive's directory lies outside the file")
    return start, start + size, count


def _read_entry(data: memoryview, position: int, start: int, end: int) -> tuple[Member, tuple[int, int], int]:
    """A directory entry: the member, the bytes that it takes (its header included), and where the next entry is."""
    fields = _unpack(_ENTRY, data, position, end, b"PK\x01\x02")
    flags, method, crc, packed_size, size, local = fields[2], fields[3], *fields[6:9], fields[15]
    name_end = position + _ENTRY.size + fields[9]
    extra_end = name_end + fields[10]
    next_position = extra_end + fields[11]
    if next_position > end or fields[10] > _MAX_EXTRA:
        raise ModelFormatError("the archive's directory is truncated or malformed")
    name_bytes = bytes(data[position + _ENTRY.size : name_end])
    name = name_bytes.decode("utf-8", errors="replace")
    size, packed_size, local = _resolve_zip64(bytes(data[name_end:extra_end]), (size, packed_size, local))
    if flags & _ENCRYPTED:
        raise UnsupportedError(f"{called(name)} is encrypted")
    header = _unpack(_LOCAL, data, local, start, b"PK\x03\x04")
    content = local + _LOCAL.size + header[8] + header[9]
    if bytes(data[local + _LOCAL.size : local + _LOCAL.size + header[8]]) != name_bytes:
        raise ModelFormatError(f"{called(name)} has another name in its own header")
    if content + packed_size > start or (method == _STORED and size != packed_size):
        raise ModelFormatError(f"{called(name)} has an impossible size")
    member = Member(name, method, size, crc, data[content : content + packed_size])
    return member, (local, content + packed_size), next_position


def _resolve_zip64(extra: bytes, fields: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, packed size and offset, those of them that do not fit 32 bits taken from the zip64 extra field."""
    wide: list[int] = []
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            field = extra[4 : 4 + length]
            wide = list(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
        extra = extra[4 + length :]
    resolved = []
    for field_value in fields:
        if field_value == _IN_ZIP64 and not wide:
            raise ModelFormatError("the archive lacks a 64 bit size")
        resolved.append(wide.pop(0) if field_value == _IN_ZIP64 else field_value)
    size, packed_size, local = resolved
    return size, packed_size, local
