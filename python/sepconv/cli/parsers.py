"""What the subcommands' parsers share."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def positive(text: str) -> int:
    """An argparse type: a whole number, 1 or more."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}, must be a whole number, 1 or more")
    return number


def names(text: str) -> list[str]:
    """An argparse type: words with commas between."""
    found = text.split(",")
    if not all(found):
        raise argparse.ArgumentTypeError(f"is {text!r}, must be names with commas between")
    return found


def numbers(text: str) -> list[int]:
    """An argparse type: whole numbers of 1 or more, with commas between."""
    return [positive(word) for word in text.split(",")]


def pair(text: str) -> tuple[int, int]:
    """An argparse type: one whole number, 1 or more, for both directions, or two."""
    found = numbers(text)
    if len(found) > 2:
        raise argparse.ArgumentTypeError(f"is {text!r}, must be one number or two")
    return found[0], found[-1]
