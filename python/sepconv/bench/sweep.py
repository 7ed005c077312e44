"""Time against alpha² and rho²: whether cost grows as the multiply-adds do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ALPHAS = (0.25, 0.5, 0.75, 1.0)
RESOLUTIONS = (128, 160, 192, 224)
FITTED_FROM = 100e6  # multiply-adds; below, what a layer costs besides them shows
MODEL = "mobilenet_v1"


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


def fit(results: Sequence[dict[str, Any]], contender: str) -> Line | None:
    """The line of one contender through the results of a sweep; None where fewer than two networks were timed."""
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
