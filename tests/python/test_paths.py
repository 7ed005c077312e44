"""Files that the caller named: whole or as they were, wherever the path leads."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from sepconv.images import load_image
from sepconv.io import load, read_weights
from sepconv.paths import check_writable, regular_file, write_files
from sepconv.table import format_table

Limit = Callable[[int], AbstractContextManager[None]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_cannot_be_written_whole_leaves_all_as_it_was(tmp_path: Path, small_files: Limit) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"old")
    with pytest.raises(OSError, match=r"File too large: .*second'"), small_files(1 << 14):
        write_files({first: b"new", second: bytes(1 + (1 << 14))})
    assert first.read_bytes() == b"old"
    assert names(tmp_path) == ["first"]


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    first = tmp_path / "first"
    folder, missing, inside = tmp_path / "folder", tmp_path / "none" / "a", first / "a"
    loop, dangling = tmp_path / "loop", tmp_path / "dangling"
    folder.mkdir()
    loop.symlink_to(loop)
    dangling.symlink_to(missing)
    first.write_bytes(b"old")
    for path, message in (
        (folder, "Is a directory"),
        (missing, "No such file"),
        (inside, "Not a directory"),
        (loop, "Too many levels"),
        (dangling, "No such file"),
    ):
        with pytest.raises(OSError, match=f"{message}.*: '{path}'"):
            check_writable(path)
        with pytest.raises(OSError, match=f"{message}.*: '{path}'"):
            write_files({first: b"new", path: b"new"})
        assert first.read_bytes() == b"old"


@contextmanager
def folder_of_no_root() -> Iterator[Path]:
    """A folder, in the hands of a user who may not write everywhere."""
    with TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        nobody = 65534
        os.chown(folder, nobody, -1)
        try:
            os.setresuid(nobody, nobody, 0)
        except (AttributeError, OSError) as error:
            pytest.skip(f"root may write everywhere, and cannot be another here: {error}")
        try:
            if not os.access(folder, os.W_OK):
                pytest.skip("root may write everywhere, and others do not get to temporary files")
            yield Path(folder)
        finally:
            os.setresuid(0, 0, 0)


def test_a_file_that_may_not_be_written() -> None:
    with folder_of_no_root() as folder:
        path = folder / "a"
        path.write_bytes(b"old")
        path.chmod(0o444)
        for refuses in (check_writable, lambda path: write_files({path: b"new"})):
            with pytest.raises(PermissionError, match=r"'.*/a'"):
                refuses(path)
        assert path.read_bytes() == b"old"
        path.chmod(0o644)
        folder.chmod(0o555)  # no new file beside it, so that it is written as it stands
        write_files({path: b"new"})
        with pytest.raises(PermissionError, match=r"'.*/b'"):
            check_writable(folder / "b")
        folder.chmod(0o755)
        assert path.read_bytes() == b"new"


def test_permissions_are_those_of_a_plain_open(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.touch()
    old.chmod(0o604)
    before = os.umask(0o027)
    try:
        write_files({new: b"1", old: b"2"})
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, old)] == [0o640, 0o604]


def test_a_links_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link, target = tmp_path / "link", tmp_path / "folder" / "target"
    link.symlink_to(target)
    for content in (b"made", b"replaced"):
        write_files({link: content})
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert names(tmp_path / "folder") == ["target"]


def test_what_is_no_regular_file_is_written_directly(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_files({pipe: b"through"})
    reader.join()
    assert read == [b"through"]
    assert names(tmp_path) == ["pipe"]
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_files({Path("/dev/full"): b"x"})


def test_what_standard_output_goes_to_keeps_what_it_holds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    script = "import pathlib, sepconv.paths as p; p.write_files({pathlib.Path(%r): b'new\\n'}); print('last')"
    for path in ("/dev/stdout", str(log)):
        with log.open("a") as stream:
            subprocess.run([sys.executable, "-c", script % path], stdout=stream, check=True)
    assert log.read_text() == "old\n" + 2 * "new\nlast\n"


def test_a_file_that_cannot_be_replaced_is_written_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is mounted, as containers do."""

    def fail(self: Path, target: Path) -> Path:
        raise OSError(errno.EBUSY, "Device or resource busy", str(target))

    monkeypatch.setattr(Path, "replace", fail)
    path = tmp_path / "mounted"
    path.write_bytes(b"old")
    write_files({path: b"new"})
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["mounted"]


@pytest.mark.parametrize("read", [regular_file, load_image, load, read_weights])
def test_no_path_at_all(read: Callable[[Any], Any]) -> None:
    for path in ("", "a\0b", "\ud800"):
        with pytest.raises(ValueError, match=re.escape(f"path was {path!r}, must be a path: ")):
            read(path)
    for other in (5, None, b"bytes"):
        with pytest.raises(TypeError, match=f"path must be a str or an os.PathLike, not {type(other).__name__}"):
            read(other)


def test_names_from_files_do_nothing_to_a_terminal() -> None:
    escaped = r"\x1b[2Jstem\u202e"
    table = format_table(["layer"], [["\x1b[2Jstem\u202e"], ["α=½ …"]])
    assert table.splitlines()[2:] == [escaped, "α=½ …".rjust(len(escaped))]
