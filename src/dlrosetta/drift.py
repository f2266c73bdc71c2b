"""Did the machine change while it measured? Pettitt's test for one change of level in a series, by permutation.

A. N. Pettitt, A Non-Parametric Approach to the Change-Point Problem, Applied Statistics 28 (1979) 126-135. His p-value
is an approximation for long series; of ten rounds it is computed here by shuffling them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHUFFLES = 2000
LEAST = 0.05  # relative change of level below which nobody cares
CHANCE = 0.01  # share of steady series in which an alarm is false


@dataclass(frozen=True)
class Drift:
    """The likeliest change: before round `round` (from 1) and from it on, speeds differ by `factor`."""

    alarm: bool
    round: int
    factor: float
    p: float


def of_rounds(speeds: Sequence[Sequence[float]]) -> Drift | None:
    """The change that all cells share: `speeds` has a row a cell, a column a round. None of fewer than six rounds.

    Each cell counts relative to its own median, so that the series is the machine's, not the cells'.
    """
    table = np.asarray(speeds, dtype=float)
    if table.size == 0 or table.shape[1] < 6:
        return None
    series = np.exp(np.mean(np.log(table / np.median(table, axis=1, keepdims=True)), axis=0))
    largest, split = _statistic(_ranks(series)[None])
    random = np.random.default_rng(0)
    shuffled = random.permuted(np.tile(_ranks(series), (SHUFFLES, 1)), axis=1)
    p = float(np.mean(_statistic(shuffled)[0] >= largest[0] - 1e-9))
    after = int(split[0])
    factor = float(np.median(series[after:]) / np.median(series[:after]))
    alarm = bool(p <= CHANCE and abs(np.log(factor)) >= np.log1p(LEAST))
    return Drift(alarm, after + 1, factor, p)


def _ranks(series: np.ndarray) -> np.ndarray:
    """Ranks from 1, of equals the mean."""
    return np.array([np.sum(series < one) + (np.sum(series == one) + 1) / 2 for one in series])


def _statistic(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pettitt's K of each row, and after how many values its change lies."""
    count = ranks.shape[1]
    steps = np.arange(1, count)
    sums = np.abs(2 * np.cumsum(ranks, axis=1)[:, :-1] - steps * (count + 1))
    return sums.max(axis=1), sums.argmax(axis=1) + 1
