"""Medians with exact intervals, and paired ratios: what a comparison may claim from its samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A median and its interval at `LEVEL` or just above."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """The larger distance from the median to an end, relative to the median."""
        return max(self.high - self.median, self.median - self.low) / self.median if self.median else float("inf")


def of_median(samples: Sequence[float]) -> Interval:
    """Interval of the median, from the k-th smallest sample to the k-th largest, k as large as `LEVEL` allows.

    This is the sign test turned round (Conover, Practical Nonparametric Statistics, 1999, 3.2): it holds for any
    distribution and any number of samples, where the bootstrap, which tends to it, is too sure of few. Five samples or
    fewer cannot reach `LEVEL`: their interval spans them all.
    """
    values = np.sort(np.asarray(samples, dtype=float))
    count = len(values)
    skipped, tail = 0, 0.5**count  # chance that more than count - skipped - 1 samples lie on one side of the median
    while tail + math.comb(count, skipped + 1) * 0.5**count <= (1 - LEVEL) / 2:
        skipped += 1
        tail += math.comb(count, skipped) * 0.5**count
    return Interval(float(np.median(values)), float(values[skipped]), float(values[count - 1 - skipped]))


def ratio(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Interval of the median of a/b, round by round: both were measured within the same minute, so drift cancels; and
    where the turns of a round are shuffled, two of the same speed are ahead by the toss of a coin, drift or not.
    """
    return of_median(np.asarray(a, dtype=float) / np.asarray(b, dtype=float))
