"""The bytes of a model, given as such or by path."""

from __future__ import annotations

import os
from pathlib import Path

from sepconv.errors import ModelFormatError
from sepconv.paths import regular_file


def read_source(source: str | os.PathLike[str] | bytes) -> tuple[bytes, str, Path | None]:
    """(bytes, name, folder); a model given as bytes lies in no folder.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: the path cannot be opened.
        ModelFormatError: it is empty, or no regular file. TypeError: it is neither path nor bytes.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), "model", None
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"path must be a str, an os.PathLike or bytes, not {type(source).__name__}")
    path = regular_file(source)
    with path.open("rb") as file:
        # By its size: files of /proc have none, and reading some of them would wait.
        if os.fstat(file.fileno()).st_size == 0:
            raise ModelFormatError(f"{str(path)!r} is empty")
        data = file.read()
    return data, path.stem, path.resolve().parent
