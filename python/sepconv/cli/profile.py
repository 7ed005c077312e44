"""``sepconv profile``: where a network's time goes, and what bounds it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from sepconv.cli import console, engine
from sepconv.cli.parsers import positive
from sepconv.paths import check_no_input
from sepconv.table import format_run

if TYPE_CHECKING:
    from sepconv.cli.parsers import Subparsers

DESCRIPTION = """\
Time each step of a network's plan (a layer, or several that stream their rows to each other) and hold it against the
least time that this machine allows: its multiply-adds at the peak, or its bytes at the bandwidth of the cache that
holds them. Both are measured first."""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("profile", help="where a network's time goes", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="as for bench: mobilenet_v1_1.0_224, or a .tflite or .onnx file")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images a run (default: %(default)s)")
    parser.add_argument("--repeat", type=positive, default=100, metavar="N", help="runs (default: %(default)s)")
    parser.add_argument("--unfused", action="store_true", help="every layer as a step of its own")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the roofline, each step a point, into a .png, .svg or .pdf"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    engine.isa()
    from sepconv.bench import machine, networks, peaks, plot, profile
    from sepconv.plot import check_path

    if args.plot is not None:
        check_path(args.plot, "--plot", extra="bench")  # now rather than after all measuring
        check_no_input(args.plot, "--plot", [args.model])
    network = networks.open_network(args.model)
    with console.progress(args.repeat + 1) as advance:
        measured = peaks.measure(args.threads)
        advance("peaks")
        found = profile.profile(
            network,
            measured,
            threads=args.threads,
            batch=args.batch,
            repeat=args.repeat,
            fused=not args.unfused,
            advance=lambda: advance(network.name),
        )
    peak = f"peak {measured.flops[found.isa] / 1e9:.0f} GFLOP/s"
    runs = "1 run" if args.repeat == 1 else f"{args.repeat} runs"
    title = f"{network.name}, {format_run(args.threads, args.batch)}, {found.isa}, {peak}, {runs}"
    try:
        if args.plot is not None:
            plot.save_roofline(args.plot, found, f"{title} · {machine.processor()} · {machine.now()}")
    finally:  # what was measured is shown, whatever became of the file
        if args.json:
            print(json.dumps(profile.document(found), indent=2))
        else:
            console.print_table(title, profile.HEADERS, profile.rows(found), align="<<<")
            bandwidth = ", ".join(f"{level} {rate / 1e9:.0f}" for level, rate in measured.bandwidth.items())
            print(f"reads, GB/s: {bandwidth}")
    return 0
