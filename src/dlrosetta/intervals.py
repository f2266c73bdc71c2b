"""Medians with bootstrap intervals, and paired ratios: what a comparison may claim from its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A median and its percentile bootstrap interval at `LEVEL`."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """The larger distance from the median to an end, relative to the median."""
        return max(self.high - self.median, self.median - self.low) / self.median if self.median else float("inf")


def of_median(samples: Sequence[float]) -> Interval:
    """Interval of the median (Efron's percentile bootstrap, fixed seed: the same samples give the same interval)."""
    values = np.asarray(samples, dtype=float)
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    medians = np.median(values[drawn], axis=1)
    tail = (1 - LEVEL) / 2 * 100
    low, high = np.percentile(medians, [tail, 100 - tail])
    return Interval(float(np.median(values)), float(low), float(high))


def ratio(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Interval of the median of a/b, round by round: both were measured within the same minute, so drift cancels."""
    return of_median(np.asarray(a, dtype=float) / np.asarray(b, dtype=float))
