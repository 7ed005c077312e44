"""``sepconv cost``: what the MobileNets cost, over width and resolution."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sepconv.cli.parsers import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "cost",
        help="multiply-adds and parameters of MobileNet V1",
        description="Multiply-adds and parameters of MobileNet V1 over width and resolution, and by type of layer.",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from sepconv.cost_tables import format_cost_tables

    print(format_cost_tables())
    return 0
