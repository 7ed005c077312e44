"""``sepconv info``: what runs on this machine."""

from __future__ import annotations

import argparse
import platform
from typing import TYPE_CHECKING

from sepconv._version import __version__
from sepconv.cli import engine

if TYPE_CHECKING:
    from sepconv.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "info",
        help="version, instruction set and threads",
        description="The version, and the instruction set and threads that networks run on here.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(f"sepconv {__version__}")
    print(f"isa     {engine.isa()} on {platform.machine()}")
    print(f"threads {engine.num_threads()}")
    return 0
