"""Pictures as files, and the one that ``classify --save`` draws: the photograph and what the network sees in it."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sepconv import extras
from sepconv.paths import check_writable, write_files
from sepconv.table import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
_HEIGHT = 4.0
_MARGIN = 0.35
_GUTTER = 0.55
_BARS_WIDTH = 4.6
_CAPTION_HEIGHT = 0.45
_NARROWEST, _WIDEST = 1.6, 6.0  # of the photograph

_LABEL_WIDTH = 40  # characters
_MOST_ROWS = 10

_INK, _GREY, _TRACK, _ACCENT, _OTHER = "#1c2430", "#6b7684", "#edf0f3", "#0f766e", "#9fb3c1"


def check_path(path: str | os.PathLike[str], argument: str, extra: str) -> None:
    """Raise ValueError for a suffix of which matplotlib makes no picture here, OSError where none can be written.

    ``argument``: what the message calls the path. MissingExtraError without matplotlib, which is of ``extra``.
    """
    figures = extras.require("matplotlib.figure", package="matplotlib", extra=extra, purpose="drawing a picture")
    figure: Figure = figures.Figure(figsize=(1, 1))
    known = figure.canvas.get_supported_filetypes()
    suffix = _format(path)
    if suffix not in known:
        raise ValueError(f"{argument} is {os.fspath(path)!r}, must end in one of .{', .'.join(sorted(known))}")
    check_writable(path)
    figure.text(0, 0, "tried out")  # some formats need other programs: .pgf has LaTeX measure all text
    try:
        figure.savefig(io.BytesIO(), format=suffix)
    except Exception as error:  # that program's
        raise ValueError(f"{argument} is {os.fspath(path)!r}, which matplotlib cannot draw here: {error}") from error


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: int) -> None:
    """As ``figure.savefig``, but what was there is kept where drawing or writing fails."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi, format=_format(path))
    write_files({Path(path): drawn.getvalue()})


def _format(path: str | os.PathLike[str]) -> str:
    return Path(path).suffix.removeprefix(".").lower()


def save_result(
    path: str | os.PathLike[str],
    photograph: NDArray[np.uint8],
    labels: Sequence[str],
    probabilities: Sequence[float],
    caption: str,
) -> None:
    """Draw ``photograph`` ``[h, w, 3]``, a bar for each of the first ten labels, and a caption.

    ``path`` is a .png, .svg, .pdf or other file that matplotlib writes. Raises ValueError for a suffix that
    matplotlib does not know, OSError where the file cannot be written, MissingExtraError without matplotlib.
    """
    figures = extras.require("matplotlib.figure", package="matplotlib", extra="demo", purpose="drawing a picture")
    import matplotlib as mpl

    photo_height = _HEIGHT - 2 * _MARGIN
    photo_width = min(_WIDEST, max(_NARROWEST, photo_height * photograph.shape[1] / photograph.shape[0]))
    width = _MARGIN + photo_width + _GUTTER + _BARS_WIDTH + _MARGIN

    def box(left: float, bottom: float, w: float, h: float) -> tuple[float, float, float, float]:
        return (left / width, bottom / _HEIGHT, w / width, h / _HEIGHT)

    with mpl.rc_context({"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "svg.fonttype": "path"}):
        figure = figures.Figure(figsize=(width, _HEIGHT), facecolor="white")
        photo_axes: Axes = figure.add_axes(box(_MARGIN, _MARGIN, photo_width, photo_height))
        photo_axes.imshow(photograph, interpolation="antialiased")
        photo_axes.set_anchor("C")
        photo_axes.set_axis_off()

        left = _MARGIN + photo_width + _GUTTER
        bars_bottom = _MARGIN + _CAPTION_HEIGHT
        bars_axes: Axes = figure.add_axes(box(left, bars_bottom, _BARS_WIDTH, _HEIGHT - _MARGIN - bars_bottom))
        _draw_bars(bars_axes, labels, probabilities)
        line = printable(caption)
        figure.text(left / width, _MARGIN / _HEIGHT, line, color=_GREY, fontsize=8, va="bottom", parse_math=False)
        save_figure(figure, path, dpi=200)


def _draw_bars(axes: Axes, labels: Sequence[str], probabilities: Sequence[float]) -> None:
    """A row a label: the name and the probability, and under them a bar on its track."""
    labels, probabilities = labels[:_MOST_ROWS], probabilities[:_MOST_ROWS]
    count = len(labels)
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(count, 0)
    font = min(11.0, 80.0 / count)
    for row, (label, probability) in enumerate(zip(labels, probabilities, strict=True)):
        first = row == 0
        weight = "bold" if first else "normal"
        ink = _INK if first else _GREY
        short = textwrap.shorten(label, _LABEL_WIDTH, placeholder=" …")
        axes.text(0, row + 0.42, short, color=ink, fontsize=font, fontweight=weight, va="bottom", parse_math=False)
        percent = f"{100 * probability:.1f} %"
        axes.text(1, row + 0.42, percent, color=ink, fontsize=font, fontweight=weight, ha="right", va="bottom")
        axes.barh(row + 0.60, 1, height=0.18, color=_TRACK)
        axes.barh(row + 0.60, probability, height=0.18, color=_ACCENT if first else _OTHER)
