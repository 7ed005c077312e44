"""The pictures of ``bench --plot``, ``bench --sweep --plot`` and ``profile --plot``."""

from __future__ import annotations

import itertools
import math
import os
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sepconv import extras
from sepconv.bench import report, sweep
from sepconv.bench.profile import Profile, StepProfile
from sepconv.plot import save_figure
from sepconv.table import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

Path = str | os.PathLike[str]
Result = dict[str, Any]

_INK, _GREY, _GRID, _ACCENT, _OTHER = "#1c2430", "#6b7684", "#e3e7eb", "#0f766e", "#9fb3c1"
_PALETTE = ("#0f766e", "#b45309", "#4f46e5", "#be185d", "#4d7c0f", "#0369a1", "#7c3aed", "#a16207")
_WIDTH = 8.5  # inches
_BAR_HEIGHT = 0.22
_TITLE_HEIGHT = 0.17  # of a line
_LEAST_TITLE = 8  # characters of a line
_MOST_NAMES = 8
_SLOWEST = 4.0  # a bar of more than this many times sepconv's is cut, and says so


def save_bars(path: Path, results: Sequence[Result], caption: str) -> None:
    """A panel a network and number of threads, a bar a contender: its first quartile, and how many times sepconv's.

    Raises ValueError for a suffix that matplotlib does not know, OSError, MissingExtraError.
    """
    timed = [[row for row in result["contenders"] if "milliseconds" in row] for result in results]
    columns = min(len(results), 2)
    lines = -(-len(results) // columns)
    figure = _figure(lines * (0.5 + _BAR_HEIGHT * max(map(len, timed))) + 0.3)
    panels: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).flat)
    titles = [
        _bars(axes, result, sorted(rows, key=lambda row: float(row["milliseconds"]["p25"])))
        for axes, result, rows in zip(panels, results, timed, strict=False)
    ]
    for axes in panels[len(results) :]:
        axes.set_axis_off()
    _break_titles(figure, panels, titles)
    _save(figure, path, caption)


def _break_titles(figure: Figure, panels: Sequence[Axes], titles: Sequence[Text]) -> None:
    """Titles that are wider than their panels go on in the next line, for which the figure grows."""
    figure.draw_without_rendering()
    most = 1
    for axes, title in zip(panels, titles, strict=False):
        text, room = title.get_text(), axes.bbox.width
        characters = len(text)
        while title.get_window_extent().width > room and characters > _LEAST_TITLE:
            characters = min(characters - 1, int(len(text) * room / title.get_window_extent().width))
            title.set_text(textwrap.fill(text, max(_LEAST_TITLE, characters)))
        most = max(most, 1 + title.get_text().count("\n"))
    rows = -(-len(panels) // 2)
    figure.set_figheight(figure.get_figheight() + rows * (most - 1) * _TITLE_HEIGHT)


def _bars(axes: Axes, result: Result, rows: Sequence[Result]) -> Text:
    """Draw a panel; its title."""
    own = next((row["milliseconds"]["p25"] for row in rows if row["kind"] == "sepconv"), None)
    limit = _SLOWEST * own if own is not None else float("inf")
    for place, row in enumerate(rows):
        time = row["milliseconds"]["p25"]
        axes.barh(place, min(time, limit), height=0.7, color=_ACCENT if row["kind"] == "sepconv" else _OTHER)
        times = "" if row["kind"] == "sepconv" else f"  {row['ratio']['value']:.2f}×"
        cut = " →" if time > limit else ""
        text = f" {report.digits(time)} ms{times}{cut}"
        inside = min(time, limit) > 0.6 * min(limit, rows[-1]["milliseconds"]["p25"])
        axes.text(
            min(time, limit), place, f"{text} " if inside else text, va="center", fontsize=8,
            color="white" if inside and row["kind"] == "sepconv" else _INK, ha="right" if inside else "left",
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [report.label(row) for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, min(limit, rows[-1]["milliseconds"]["p25"]) * 1.02 if rows else 1)
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return axes.set_title(printable(report.headline(result)), fontsize=10, loc="left", color=_INK, parse_math=False)


def save_sweep(path: Path, results: Sequence[Result], caption: str) -> None:
    """Time against alpha² at the full resolution, and against rho² at the full width, beside the measured peak's.

    A curve a contender and number of threads.
    """
    figure = _figure(4.5)
    panels = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(row["name"] for result in results for row in result["contenders"]))
    sweeps = sweep.by_threads(results)
    colors = itertools.cycle(_PALETTE)
    curves = [(next(colors), name, threads) for threads in sweeps for name in names]
    times = f"milliseconds (first quartile){report.conditions(results[0])}"
    for panel, (axes, label) in enumerate(zip(panels, ("α²", "ρ²"), strict=True)):
        series = {threads: sweep.series(own)[panel] for threads, own in sweeps.items()}
        for color, name, threads in curves:
            points = [
                (square, row["milliseconds"]["p25"])
                for square, result in series[threads]
                for row in result["contenders"]
                if row["name"] == name and "milliseconds" in row
            ]
            if points:
                called = sweep.label(name, threads, sweeps)
                axes.plot(*np.array(points).T, marker="o", markersize=4, color=color, label=called)
        for dashes, (threads, own) in zip(itertools.cycle(("--", ":", "-.")), series.items(), strict=False):
            at_peak = [(x, 2e-6 * r["macs"] * r["batch"] / max(r["peak_gflops"].values())) for x, r in own]
            called = sweep.label("the measured peak", threads, sweeps)
            axes.plot(*np.array(at_peak).T, color=_GREY, linestyle=dashes, label=called)
        axes.set_xlim(0, None)
        _label(axes, label, times if axes is panels[0] else "")
    panels[0].set_ylim(0, None)
    panels[0].legend(frameon=False, fontsize=8)
    _save(figure, path, caption)


def save_roofline(path: Path, profiled: Profile, caption: str) -> None:
    """The measured roofs, and each step as a point whose area is its part of the time."""
    figure = _figure(5.5)
    axes = figure.subplots()
    steps = [step for step in profiled.steps if step.macs]
    intensities = [step.intensity for step in steps]  # none where no layer multiplies
    peak = profiled.peaks.flops[profiled.isa] / 1e9
    span = np.geomspace(min([0.5, *intensities]) / 2, max([256, *intensities]) * 2, 200)
    bottom = max(0.25, min((step.gflops for step in steps), default=0) / 2)
    for level, bandwidth in profiled.peaks.bandwidth.items():
        slope = bandwidth / 1e9
        axes.plot(span, np.minimum(span * slope, peak), color=_GREY, linewidth=1)
        start = max(span[0], bottom / slope) * 1.2
        axes.text(
            start, start * slope * 1.08, f"{level} {slope:.0f} GB/s", fontsize=7, color=_GREY,
            rotation=math.degrees(math.atan(slope)), rotation_mode="anchor", transform_rotates_text=True,
        )  # fmt: skip
    axes.text(span[-1], peak * 1.04, f"{peak:.0f} GFLOP/s {profiled.isa}", fontsize=8, color=_GREY, ha="right")
    kinds = list(dict.fromkeys(_kind(step.kernels) for step in steps))
    for color, kind in zip(itertools.cycle(_PALETTE), kinds, strict=False):
        own = [step for step in steps if _kind(step.kernels) == kind]
        axes.scatter(
            [step.intensity for step in own],
            [step.gflops for step in own],
            s=[max(12.0, 900 * step.milliseconds / profiled.milliseconds) for step in own],
            color=color, alpha=0.75, linewidths=0, label=kind,
        )  # fmt: skip
    for step in _apart(steps):
        axes.annotate(
            printable(step.layers[0]), (step.intensity, step.gflops), fontsize=7, color=_INK, xytext=(5, -9),
            textcoords="offset points", parse_math=False,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_ylim(bottom, peak * 1.4)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    _label(axes, "operations a byte", "GFLOP/s")
    if steps:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, path, caption)


def _apart(steps: Sequence[StepProfile]) -> list[StepProfile]:
    """Those that take the most time, as far as their names would not cover each other."""
    named: list[StepProfile] = []
    for step in sorted(steps, key=lambda step: -step.milliseconds):
        distances = (
            max(
                abs(math.log2(step.intensity / other.intensity)) / 2.5, abs(math.log2(step.gflops / other.gflops)) / 0.2
            )
            for other in named
        )
        if all(distance > 1 for distance in distances):
            named.append(step)
    return named[:_MOST_NAMES]


def _kind(kernels: Sequence[str]) -> str:
    """ "depthwise" for depthwise_3x3_s1_f32__avx512, "max pool" for max_pool_f32__avx512, "several, fused"."""
    kinds = {re.split(r"_\d|_f32", kernel)[0].replace("_", " ") for kernel in kernels}
    return kinds.pop() if len(kinds) == 1 else "several, fused"


def _figure(height: float) -> Figure:
    figures = extras.require("matplotlib.figure", package="matplotlib", extra="bench", purpose="drawing a plot")
    figure: Figure = figures.Figure(figsize=(_WIDTH, height), facecolor="white", layout="constrained")
    return figure


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path, caption: str) -> None:
    figure.supxlabel(printable(caption), fontsize=7, color=_GREY, parse_math=False)
    save_figure(figure, path, dpi=160)
