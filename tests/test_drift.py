"""A machine that changes speed half-way raises the alarm; one that is merely noisy does not."""

import numpy as np
import pytest

from dlrosetta import drift


def noise(random, cells, rounds):
    """Speeds as they are measured: cells of different speed, most rounds alike, now and then a slow one."""
    speeds = np.exp(0.02 * random.standard_normal((cells, rounds))) * np.arange(1, cells + 1)[:, None]
    return np.where(random.random(speeds.shape) < 0.1, speeds * 0.8, speeds)


@pytest.mark.parametrize("rounds", [10, 30])
@pytest.mark.parametrize("slower", [0.5, 0.85, 1.3])
def test_a_change_half_way_is_found_where_it_was(rounds, slower):
    random, half, found = np.random.default_rng(rounds), rounds // 2, []
    for _ in range(40):
        speeds = noise(random, 3, rounds)
        speeds[:, half:] *= slower
        found.append(drift.of_rounds(speeds))
    assert np.mean([one.alarm for one in found]) >= 0.9
    assert np.median([one.round for one in found]) == half + 1
    assert np.median([one.factor for one in found]) == pytest.approx(slower, rel=0.03)


@pytest.mark.parametrize("rounds", [10, 30])
def test_noise_alone_seldom_raises_the_alarm(rounds):
    random = np.random.default_rng(rounds)
    alarms = [drift.of_rounds(noise(random, 3, rounds)).alarm for _ in range(200)]
    assert np.mean(alarms) <= 0.02


def test_one_cell_that_changes_is_no_drift_of_the_machine():
    random, alarms = np.random.default_rng(0), 0
    for _ in range(40):
        speeds = noise(random, 8, 20)
        speeds[0, 10:] *= 0.8
        alarms += drift.of_rounds(speeds).alarm
    assert alarms <= 2


def test_a_slight_change_is_no_alarm_however_sure_it_is():
    speeds = np.ones((2, 40))
    speeds[:, 20:] *= 0.97
    found = drift.of_rounds(speeds)
    assert (found.alarm, found.round) == (False, 21) and found.p < 0.01


def test_too_few_rounds_and_none_say_nothing():
    assert drift.of_rounds([]) is None
    assert drift.of_rounds([[1.0, 2.0, 1.0, 2.0, 1.0]]) is None
