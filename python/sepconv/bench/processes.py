"""The parent's end: a process a contender, stopped whenever it is not its turn.

A runtime's idle threads spin for a while, and would take time from the contender that follows; SIGSTOP holds them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from sepconv.errors import SepconvError

# With the parent's path, which need not have the current folder: a file there may be called as a module is.
COMMAND = ("-c", "import sys; sys.path[:] = sys.argv[1:]; from sepconv.bench.worker import main; main()")
TIME_LIMIT = 300.0  # seconds for one answer
PYTHON_ERROR = 1  # the status after an exception, which is what was written last


class WorkerError(SepconvError):
    """A contender's process failed; the message is the end of what it wrote."""


class Worker:
    """A running ``sepconv.bench.worker``; a context manager that ends it."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *COMMAND, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for the parent
            )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Let it go on, and stop it again when it has answered. Raises WorkerError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._kill()

        timer = threading.Timer(TIME_LIMIT, stop)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.send_signal(signal.SIGCONT)
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line.endswith("\n"):  # nothing, or what was written when it ended
            raise WorkerError(f"it gave no answer in {TIME_LIMIT:g} s" if late.is_set() else self._last_words())
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def _kill(self) -> None:
        """It and what it started, which would hold its pipes open."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # already gone
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        if self.running:
            self._kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()

    def _last_words(self) -> str:
        status = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        words = lines[-1][:300] if lines else ""
        if words and status == PYTHON_ERROR:
            return words
        ended = f"its process ended {f'with status {status}' if status >= 0 else f'by {signal.Signals(-status).name}'}"
        return f"{ended}; it wrote {words!r}" if words else ended


class Workers:
    """Processes that go from one comparison to the next, so that each contender is imported once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[tuple[str, tuple[tuple[str, str], ...]], Worker] = {}

    def get(self, name: str, environment: dict[str, str]) -> Worker:
        """The one of this name and environment; a new one where there is none, or it has died."""
        key = name, tuple(sorted(environment.items()))
        worker = self._running.get(key)
        if worker is None or not worker.running:
            worker = self._running[key] = Worker(environment, self._folder / f"{name}.log")
        return worker

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._running.values():
            worker.end()
