"""What the rows share: how long they run, how they say what they found, and where the other tests are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "trust"
sys.path.insert(1, str(ROOT / "tests" / "python"))  # for their oracle and writers of files


class RowError(AssertionError):
    """What a row promises does not hold."""


@dataclass(frozen=True)
class Settings:
    """``full``: the figures of docs/testing.md; else a minute at most. ``build``: folder for what a row builds."""

    full: bool
    build: Path

    def count(self, short: int, full: int) -> int:
        return full if self.full else short


def require(holds: bool, message: str) -> None:
    if not holds:
        raise RowError(message)


def run(
    command: Sequence[str | Path], *, timeout: float | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Output of a program, standard error included; RowError with its end where the program fails."""
    try:
        result = subprocess.run(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise RowError(f"{command[0]} did not end within {timeout} s") from None
    require(result.returncode == 0, f"{command[0]} ended with {result.returncode}:\n{result.stdout[-6000:]}")
    return result.stdout


def run_worker(script: Path, *arguments: str, timeout: float | None = None) -> str:
    """Output of one of our scripts in a process of its own."""
    return run([sys.executable, script, *arguments], timeout=timeout)


def compiled(settings: Settings, name: str, target: str, *options: str) -> Path:
    """The program ``target``, built (again, where sources changed) in a folder of its own."""
    folder = settings.build / name
    run(["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", *options])
    run(["cmake", "--build", folder, "--target", target, "-j", str(os.cpu_count() or 1)])
    return folder / target  # of a library: only its folder is right
