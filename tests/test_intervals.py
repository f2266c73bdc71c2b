"""An interval covers the truth as often as it says, and a claim that two differ is seldom made in error."""

import numpy as np
import pytest

from dlrosetta import intervals
from dlrosetta.rounds import LEAST_ROUNDS

REPEATS = 400  # of which a share of 0.95 has a standard error of 0.011


def noise(random, count):
    """Speeds as they are measured: most alike, now and then a slow round."""
    speeds = 1000 * np.exp(0.02 * random.standard_normal(count))
    return np.where(random.random(count) < 0.1, speeds * 0.8, speeds)


def coverage(count, truth, samples):
    random = np.random.default_rng(count)
    found = [intervals.of_median(samples(random, count)) for _ in range(REPEATS)]
    return np.mean([one.low <= truth <= one.high for one in found])


@pytest.mark.parametrize("count", [6, LEAST_ROUNDS, 30, 99])
@pytest.mark.parametrize("kind", ["normal", "skewed", "speeds"])
def test_the_interval_of_a_median_covers_it(count, kind):
    draw, truth = {
        "normal": (lambda random, n: random.normal(10, 1, n), 10.0),
        "skewed": (lambda random, n: random.exponential(1.0, n), np.log(2)),
        "speeds": (noise, float(np.median(noise(np.random.default_rng(1), 10**6)))),
    }[kind]
    assert 0.93 <= coverage(count, truth, draw) <= 0.995


@pytest.mark.parametrize(("count", "width"), [(LEAST_ROUNDS, 0.1), (30, 0.03)])
def test_what_is_as_fast_is_seldom_said_to_differ_though_the_machine_drifts(count, width):
    """Rounds are paired: what slows the machine down slows both."""
    random = np.random.default_rng(0)
    wrong, widths = 0, []
    for _ in range(REPEATS):
        drift = np.linspace(1, random.uniform(0.5, 2), count)
        found = intervals.ratio(noise(random, count) * drift, noise(random, count) * drift)
        wrong += not found.low <= 1 <= found.high
        widths.append(found.half_width)
    assert wrong / REPEATS < 0.07
    assert np.median(widths) < width  # which a drift to twice or half the speed would be far beyond


def test_what_is_a_tenth_slower_is_found_slower():
    random = np.random.default_rng(0)
    found = [intervals.ratio(0.9 * noise(random, 20), noise(random, 20)) for _ in range(50)]
    assert sum(one.high < 1 for one in found) >= 48
    assert np.mean([one.median for one in found]) == pytest.approx(0.9, abs=0.01)


def test_a_ratio_and_its_inverse_say_the_same():
    random = np.random.default_rng(3)
    a, b = noise(random, 21), noise(random, 21)
    one, other = intervals.ratio(a, b), intervals.ratio(b, a)
    assert one.median == pytest.approx(1 / other.median)
    assert (one.low, one.high) == pytest.approx((1 / other.high, 1 / other.low), rel=0.01)


def test_the_same_samples_give_the_same_interval_in_whatever_unit():
    samples = noise(np.random.default_rng(4), 30)
    one, again, scaled = (intervals.of_median(values) for values in (samples, list(samples), samples * 1e-6))
    assert one == again
    assert (scaled.low, scaled.high) == pytest.approx((one.low * 1e-6, one.high * 1e-6))
    assert scaled.half_width == pytest.approx(one.half_width)


def test_a_single_sample_and_none_of_any_width():
    one = intervals.of_median([3.0])
    assert (one.median, one.low, one.high, one.half_width) == (3.0, 3.0, 3.0, 0.0)
    assert intervals.Interval(0.0, 0.0, 1.0).half_width == float("inf")
    assert intervals.Interval(2.0, 1.0, 2.5).half_width == 0.5


def test_its_ends_are_samples():
    """Of ten tosses at most one is heads, or at most one tails, in 2.1 % of cases; at most two in 10.9 %."""
    found = intervals.of_median([3, 1, 10, 5, 4, 7, 2, 9, 8, 6])
    assert (found.low, found.median, found.high) == (2, 5.5, 9)
    assert intervals.of_median([2, 1, 3, 4, 5]) == intervals.Interval(3, 1, 5)


def test_more_rounds_make_it_narrower():
    random = np.random.default_rng(5)
    widths = [np.mean([intervals.of_median(noise(random, n)).half_width for _ in range(30)]) for n in (10, 40, 160)]
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]
