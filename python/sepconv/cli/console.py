"""Tables and progress on a terminal: by rich where it is installed, else as plain text."""

from __future__ import annotations

import codecs
import importlib.util
import io
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from sepconv.table import format_table, printable

_PLAIN = dict(zip("█▏·×µ÷²–→…│─┼", "#|-xu/2->~|-+", strict=True))
_TEXT_WIDTH = 12  # of a column of words at least, where there is little room


def print_table(
    title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], *, align: str = "<", marked: Sequence[int] = ()
) -> None:
    """Print rows under headers; an empty row is a rule. ``align`` as for :func:`sepconv.table.format_table`.

    ``marked``: indices of rows to stand out.
    """
    title = printable(title)
    if not _rich():
        print(f"{title}\n{format_table(headers, rows, align=align)}\n")
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [[printable(cell) for cell in row] for row in rows]
    table = Table(show_edge=False, pad_edge=False)
    least = 3 * (len(headers) - 1)  # what stands between columns
    for column, header in enumerate(headers):
        cells = [header, *(row[column] for row in rows if column < len(row))]
        text = align[column : column + 1] == "<"
        # Nothing is cut: text goes on in the next line, and where the numbers do not fit, the terminal breaks lines.
        width = max(map(cell_len, cells))
        width = min(_TEXT_WIDTH, width) if text else width
        table.add_column(
            header, justify="left" if text else "right", no_wrap=not text, min_width=width, overflow="fold"
        )
        least += width
    for index, row in enumerate(rows):
        if row:
            table.add_row(*map(Text, row), style="bold green" if index in marked else None)
        else:
            table.add_section()
    # Without a terminal there is no width to fit into: nothing is cut. For TERM=dumb rich needs a height, too.
    columns, lines = shutil.get_terminal_size()
    console = Console(width=max(columns, least) if sys.stdout.isatty() else 400, height=lines)
    console.on_broken_pipe = _raise  # rich would end the process with 1
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(table)
    console.print()


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on the error stream, where that is a terminal; call what it gives once a step, with what is being done."""
    if not (_rich() and sys.stderr.isatty()):
        yield lambda doing: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda doing: bar.update(task, advance=1, description=printable(doing))


def replace_characters(stream: TextIO) -> None:
    """From now on what the stream's encoding lacks is written as something alike, or as a question mark."""
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error("sepconv", _plain)
        stream.reconfigure(errors="sepconv")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter, "?") for letter in letters), error.end


def _raise() -> None:
    raise  # noqa: PLE0704 - rich calls it where it has caught the error


def _rich() -> bool:
    return importlib.util.find_spec("rich") is not None
