"""Plain-text tables, for ``repr(model)``, costs, explanations and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def format_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, align: str = "") -> str:
    """Rows under headers in columns as wide as they need to be, without a newline at the end.

    ``align`` holds a character a column, "<" or ">"; columns that it does not reach are aligned right. A row may be
    shorter than the headers; an empty one draws a rule. ValueError for a row that is longer, or for another character.
    """
    columns = len(headers)
    if len(align) > columns or set(align) - set("<>"):
        raise ValueError(f"align was {align!r}, must be at most {columns} of '<' and '>'")
    align = align.ljust(columns, ">")
    cells: list[list[str]] = []
    for row in ([*headers], [], *rows):
        if len(row) > columns:
            raise ValueError(f"a row had {len(row)} cells, must have at most {columns}, as the headers have")
        cells.append([printable(cell) for cell in row] + [""] * (columns - len(row)) if row else [])
    widths = [max(len(row[column]) for row in cells if row) for column in range(columns)]
    lines = (
        [f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)]
        if row
        else ["-" * width for width in widths]
        for row in cells
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def printable(cell: object) -> str:
    """A cell's text, characters escaped that are not seen, or do something to a terminal: names come from files."""
    text = str(cell)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def format_shape(shape: Sequence[int]) -> str:
    """(112, 112, 32) as 112x112x32."""
    return "x".join(str(size) for size in shape)


def format_threads(count: int) -> str:
    """1 as "1 thread", 2 as "2 threads"."""
    return "1 thread" if count == 1 else f"{count} threads"


def format_batch(size: int) -> str:
    """8 as ", batch 8", 1 as nothing."""
    return "" if size == 1 else f", batch {size}"


def format_run(threads: int, batch: int) -> str:
    """How a network runs: "2 threads", or "2 threads, batch 8"."""
    return format_threads(threads) + format_batch(batch)
