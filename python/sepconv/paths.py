"""Files that the caller named: models, before they are opened, and what is written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sepconv.errors import ModelFormatError


def checked_path(source: Any, argument: str = "path") -> Path:
    """The argument as a path; TypeError, ValueError for what can be none."""
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a str or an os.PathLike, not {type(source).__name__}")
    with contextlib.suppress(UnicodeEncodeError):
        if name and b"\0" not in os.fsencode(name):
            return Path(name)
    raise ValueError(f"{argument} was {name!r}, must be a path: not empty, no null character, no lone surrogate")


def regular_file(source: str | os.PathLike[str]) -> Path:
    """The path of a model, before it is opened: to open a pipe would wait for its writer.

    Raises FileNotFoundError, IsADirectoryError, PermissionError for the path, TypeError, ValueError for what can be
    none, ModelFormatError for what is no regular file.
    """
    path = checked_path(source)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{str(path)!r} is a directory; it must be a file")
    if not stat.S_ISREG(mode):
        raise ModelFormatError(f"{str(path)!r} is not a regular file")
    return path


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OSError where :func:`write_files` could not write: to be told before the work rather than after it."""
    path = Path(path)
    try:
        found = path.stat()
    except FileNotFoundError:
        folder = path.resolve().parent  # of the file that a link leads to, where the path is one
        if not folder.is_dir():
            raise _error(errno.ENOENT, path) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _error(errno.EACCES, path) from None
        return
    if stat.S_ISDIR(found.st_mode):
        raise _error(errno.EISDIR, path)
    if not os.access(path, os.W_OK):
        raise _error(errno.EACCES, path)


def check_no_input(path: str | os.PathLike[str], argument: str, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raise ValueError where the file to write is one of those that are read."""
    if any(Path(read).is_file() and is_same_file(path, read) for read in inputs):
        raise ValueError(f"{argument} is {os.fspath(path)!r}, which is read; must be another file")


def is_same_file(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    """Whether to write one is to write the other; neither need be there."""
    a, b = Path(a), Path(b)
    return a.samefile(b) if a.exists() and b.exists() else a.resolve() == b.resolve()


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write what belongs together; where a file cannot be written, all keep what they held.

    Each goes into a temporary file beside its target, which takes the target's place, owner and permissions when all
    are written; a link's target is replaced, not the link. Written directly are what is no regular file (``/dev/full``,
    a pipe, which waits for its reader), what standard output goes to, from where that is, and a file whose folder takes
    no new one, or that cannot be replaced, as one that is mounted.

    Raises OSError with the path that was given.
    """
    for path in contents:
        check_writable(path)
    temporaries: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            with _naming(path):
                if _is_replaceable(path):
                    temporaries[path] = path.resolve().with_name(f".sepconv-{os.urandom(8).hex()}")
                    _write_temporary(temporaries[path], path, data)
                else:
                    _write_directly(path, data)
        for path, temporary in temporaries.items():
            with _naming(path):
                try:
                    temporary.replace(path.resolve())
                except OSError:
                    _write_directly(path, contents[path])
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def standard_stream(found: os.stat_result) -> int | None:
    """The descriptor of standard output, error or input, whichever is the first that is open on it."""
    for descriptor in (1, 2, 0):
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None


def _is_replaceable(path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    regular = stat.S_ISREG(found.st_mode) and standard_stream(found) is None
    return regular and os.access(path.resolve().parent, os.W_OK | os.X_OK)


def _write_directly(path: Path, data: bytes) -> None:
    """Through the stream that writes to it, if one does: opened anew it would be emptied, and both write over it."""
    descriptor = standard_stream(path.stat())  # 0 is no stream to write to
    with os.fdopen(os.dup(descriptor), "wb") if descriptor else path.open("wb") as file:
        file.write(data)


def _write_temporary(temporary: Path, path: Path, data: bytes) -> None:
    """With the permissions of what ``path`` is now; of a new file, where it is none."""
    with temporary.open("xb") as file:
        if path.exists() and hasattr(os, "fchown"):  # not on Windows
            found = path.stat()
            with contextlib.suppress(PermissionError):  # another user's file becomes ours
                os.fchown(file.fileno(), found.st_uid, found.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
        file.write(data)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of a file's content have no name, those of a temporary file one that nobody knows."""
    try:
        yield
    except OSError as error:
        raise _error(error.errno or errno.EIO, path) from error


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
