"""``sepconv peaks``: what this machine can do at most."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from sepconv.cli import console, engine
from sepconv.cli.parsers import numbers
from sepconv.table import format_threads

if TYPE_CHECKING:
    from sepconv.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "peaks",
        help="multiply-adds and bytes a second of this machine",
        description="Measure multiply-adds a second on each instruction set, and reads from each cache and memory: "
        "on so many threads together, but no more than there are CPUs.",
    )
    parser.add_argument("--threads", type=numbers, metavar="N,...", help="default: 1 and what the machine allows")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    engine.isa()
    from sepconv.bench import machine, peaks
    from sepconv.threads import thread_count

    threads = [thread_count(count) for count in args.threads or sorted({1, engine.num_threads()})]
    measured = []
    with console.progress(len(threads)) as advance:
        for count in threads:
            measured.append(peaks.measure(count))
            advance(format_threads(count))
    if args.json:
        print(json.dumps(peaks.document(measured), indent=2))
        return 0
    headers = ["", *map(format_threads, threads)]
    console.print_table(machine.processor(), headers, peaks.rows(measured))
    return 0
