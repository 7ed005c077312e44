"""Command lines whose standard streams are closed, or take nothing, and that are ended by others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_paths import Limit

pytest.importorskip("sepconv.threads", reason="needs the built engine")

from sepconv import cli
from sepconv.cli import console


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    command = ["sh", "-c", f'exec "$0" -m sepconv info {closed}', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("argument", ["info", "--help"])
def test_standard_output_that_takes_nothing(argument: str) -> None:
    """Which Python finds out when it flushes, and once more at exit."""
    command = [sys.executable, "-m", "sepconv", argument]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (2, "sepconv: standard output: No space left on device\n")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=env)
    os.close(writer)
    assert (done.returncode, done.stderr) == (cli.EXIT_BROKEN_PIPE, "")


def test_progress_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """They come from files: no colours, no pictures for words between colons, nothing that commands the terminal."""
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with console.progress(1) as advance:
        advance("[red]:smile:\x1b[2J")
    assert r"[red]:smile:\x1b[2J" in capsys.readouterr().err


@pytest.mark.parametrize(("room", "file"), [(1 << 10, "input.npy"), (1 << 14, "layers.pickle")])
def test_a_folder_for_temporary_files_that_is_full(
    room: int, file: str, capsys: pytest.CaptureFixture[str], small_files: Limit
) -> None:
    with small_files(room):
        assert cli.main(["bench", "mobilenet_v1_0.25_32"]) == 2
    assert re.fullmatch(rf"sepconv: .*sepconv-bench-.*{file}: File too large\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, cli.EXIT_TERMINATED), (signal.SIGHUP, cli.EXIT_HUNG_UP)]
)
def test_what_is_ended_leaves_nothing_behind(number: signal.Signals, status: int, tmp_path: Path) -> None:
    """As by ``timeout 60 sepconv bench``, and by a terminal that is closed."""
    command = [sys.executable, "-m", "sepconv", "bench", "mobilenet_v1_0.25_128", "--contenders", "sepconv"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([*command, "--rounds", "100000"], stderr=subprocess.PIPE, env=environment) as bench:
        while not list(tmp_path.glob("*/*.log")):  # which a worker writes
            assert bench.poll() is None
            time.sleep(0.01)
        bench.send_signal(number)
        assert bench.stderr is not None
        errors = bench.stderr.read()
    assert (bench.returncode, errors.decode().count("Traceback")) == (status, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_modules_are_imported(ignored: bool, tmp_path: Path) -> None:
    """Nothing is to be cleaned up then, and no traceback is of use; who started us may have Ctrl-C ignored."""
    (tmp_path / "numpy.py").write_text(
        "import os, signal; os.kill(os.getpid(), signal.SIGINT); raise ImportError('on')"
    )
    code = f"import signal, sys; {'signal.signal(signal.SIGINT, signal.SIG_IGN); ' * ignored}sys.argv[1:] = ['info']\n"
    code += "from sepconv.__main__ import main; main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ignored:
        assert done.stderr.endswith("ImportError: on\n")
    else:
        assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
