"""From times to numbers that hold on a noisy machine: minimum and quartile, never a mean; ratios with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUARTILE = 25
RESAMPLES = 400
CONFIDENCE = 95


@dataclass(frozen=True)
class Times:
    """Milliseconds of many runs."""

    minimum: float
    p25: float
    median: float
    runs: int


@dataclass(frozen=True)
class Ratio:
    """How many times slower than the reference, quartile against quartile, and where it lies with 95 % confidence.

    Which one burst does not tell: then ``low`` and ``high`` are None.
    """

    value: float
    low: float | None
    high: float | None


def summarise(bursts: Sequence[Sequence[float]]) -> Times:
    """``bursts``: seconds of the runs of each burst."""
    times = 1e3 * np.concatenate([np.asarray(burst) for burst in bursts])
    quartile, median = np.percentile(times, [QUARTILE, 50])
    return Times(float(times.min()), float(quartile), float(median), len(times))


def ratio(bursts: Sequence[Sequence[float]], reference: Sequence[Sequence[float]], seed: int = 0) -> Ratio:
    """Bursts are resampled, not runs: what disturbs one run of a burst disturbs its neighbours too."""
    value = summarise(bursts).p25 / summarise(reference).p25
    if min(len(bursts), len(reference)) < 2:
        return Ratio(value, None, None)
    random = np.random.default_rng(seed)
    theirs, ours = _resampled(bursts, random), _resampled(reference, random)
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(theirs / ours, [tail, 100 - tail])
    return Ratio(value, float(low), float(high))


def _resampled(bursts: Sequence[Sequence[float]], random: np.random.Generator) -> NDArray[np.float64]:
    arrays = [np.asarray(burst) for burst in bursts]
    picks = random.integers(0, len(arrays), (RESAMPLES, len(arrays)))
    return np.array([np.percentile(np.concatenate([arrays[i] for i in pick]), QUARTILE) for pick in picks])


def typical_rate(rates: Sequence[float]) -> float:
    """The rate that goes with a quartile of times: three quarters of the rates are below."""
    return float(np.percentile(np.asarray(rates), 100 - QUARTILE))
