"""The command ``sepconv``: one module a subcommand, each with ``add_parser`` and ``run``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from sepconv._version import __version__
from sepconv.cli import bench, classify, console, cost, export, info, peaks, profile
from sepconv.errors import SepconvError
from sepconv.table import printable

_SUBCOMMANDS = (classify, cost, info, bench, profile, peaks, export)

EXIT_ERROR = 2  # what argparse exits with, too
EXIT_HUNG_UP = 129  # 128 + SIGHUP, as shells have it
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
EXIT_TERMINATED = 143  # 128 + SIGTERM


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status. Wrong usage raises SystemExit(2), as argparse does."""
    parser = argparse.ArgumentParser(
        prog="sepconv", description="Fast depthwise-separable convolutions, and the networks made of them."
    )
    parser.add_argument("--version", action="version", version=f"sepconv {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for subcommand in _SUBCOMMANDS:
        subcommand.add_parser(subparsers)
    # Python has no streams where who started us closed them (``>&-``).
    sys.stdout, sys.stderr = (stream or _nowhere() for stream in (sys.stdout, sys.stderr))
    console.replace_characters(sys.stdout)
    try:
        try:
            args = parser.parse_args(argv)
        finally:
            sys.stdout.flush()  # what --help wrote
        with _ends_on_signals():
            status: int = args.run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except OSError as error:
        name = error.filename
        try:
            sys.stdout.flush()
        except OSError:  # Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            name = name or "standard output"
        if isinstance(error, BrokenPipeError) and not error.filename:
            return EXIT_BROKEN_PIPE  # the reader left (``sepconv cost | head``)
        return _fail(f"{name}: {error.strerror}" if name and error.strerror else str(error))
    except (SepconvError, ValueError) as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"not enough memory: {error}" if str(error) else "not enough memory")


@contextlib.contextmanager
def _ends_on_signals() -> Iterator[None]:
    """Whatever ``timeout``, a scheduler or a closed terminal ends leaves neither temporary files nor workers behind."""
    main = threading.current_thread() is threading.main_thread()
    status = {signal.SIGTERM: EXIT_TERMINATED}
    if hasattr(signal, "SIGHUP"):  # not on Windows
        status[signal.SIGHUP] = EXIT_HUNG_UP
    ours = [number for number in status if main and signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, lambda got, _: sys.exit(status[signal.Signals(got)]))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _fail(message: str) -> int:
    print("sepconv:", "\n".join(map(printable, message.split("\n"))), file=sys.stderr)
    return EXIT_ERROR
