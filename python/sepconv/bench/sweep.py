"""Time against alpha² and rho²: whether cost grows as the multiply-adds do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sepconv.table import format_threads

ALPHAS = (0.25, 0.5, 0.75, 1.0)
RESOLUTIONS = (128, 160, 192, 224)
FITTED_FROM = 100e6  # multiply-adds; below, what a layer costs besides them shows
MODEL = "mobilenet_v1"

Point = tuple[float, dict[str, Any]]


@dataclass(frozen=True)
class Line:
    """p25 = slope · multiply-adds + offset, fitted to the networks above ``FITTED_FROM``."""

    slope: float  # milliseconds a million multiply-adds
    offset: float  # milliseconds
    of_peak: float  # the slope over that of the measured peak: 1 is the best there is


def names() -> list[str]:
    """MobileNet V1 over the width at 224, then over the resolution at width 1."""
    widths = [f"{MODEL}_{alpha}_{RESOLUTIONS[-1]}" for alpha in ALPHAS]
    return widths + [f"{MODEL}_{ALPHAS[-1]}_{resolution}" for resolution in RESOLUTIONS[:-1]]


def by_threads(results: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The results of each number of threads, which is a sweep of its own."""
    return {n: [r for r in results if r["threads"] == n] for n in dict.fromkeys(r["threads"] for r in results)}


def label(name: str, threads: int, sweeps: Collection[int]) -> str:
    """What one contender's line is called among the ``sweeps``, numbers of threads: without them where one is all."""
    return name if len(sweeps) == 1 else f"{name}, {format_threads(threads)}"


def series(results: Sequence[dict[str, Any]]) -> tuple[list[Point], list[Point]]:
    """(alpha², result) at the full resolution and (rho², result) at the full width, each in order, of ``names()``.

    ``results``: of one number of threads.
    """
    by_name = {result["network"]: result for result in results}
    full = RESOLUTIONS[-1]
    widths = [(alpha**2, by_name[f"{MODEL}_{alpha}_{full}"]) for alpha in ALPHAS]
    resolutions = [((n / full) ** 2, by_name[f"{MODEL}_{ALPHAS[-1]}_{n}"]) for n in RESOLUTIONS]
    return widths, resolutions


def fit(results: Sequence[dict[str, Any]], contender: str) -> Line | None:
    """The line of one contender through the results of one sweep; None where fewer than two networks were timed."""
    points = []
    for result in results:
        for row in result["contenders"]:
            if row["name"] == contender and "milliseconds" in row and result["macs"] >= FITTED_FROM:
                macs, time = 1e-6 * result["macs"] * result["batch"], row["milliseconds"]["p25"]
                points.append((macs, time, time * row["share_of_peak"]))
    if len(points) < 2:
        return None
    macs_of, times, at_peak = np.array(points).T
    slope, offset = np.polyfit(macs_of, times, 1)
    return Line(float(slope), float(offset), float(slope / np.median(at_peak / macs_of)))


def lines(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The line of each contender and number of threads that has one, for ``--json``."""
    contenders = dict.fromkeys(row["name"] for result in results for row in result["contenders"])
    sweeps = by_threads(results)
    fitted = {label(name, n, sweeps): fit(own, name) for n, own in sweeps.items() for name in contenders}
    return {name: asdict(line) for name, line in fitted.items() if line is not None}


def sentences(fitted: dict[str, dict[str, float]]) -> list[str]:
    """The lines in words."""
    return [
        f"{name}: {1e3 * line['slope']:.2f} µs a million multiply-adds above {FITTED_FROM / 1e6:.0f} M, "
        f"{line['of_peak']:.2f} times the peak's; at none {line['offset']:.3f} ms"
        for name, line in fitted.items()
    ]
