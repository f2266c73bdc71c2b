"""The self-test of timing, on this machine, which may be busy: what does not depend on a quiet one must hold."""

import json

import pytest

from dlrosetta import commands
from dlrosetta.selftest import timing


@pytest.mark.parametrize(
    "check",
    [timing.check_fence_costs_nothing, timing.check_early_return, timing.check_five_percent, timing.check_load],
    ids=lambda check: check.__name__,
)
def test_a_claim_holds(check):
    found = check()
    assert found.held, found.seen
    assert json.loads(json.dumps(found.document())) == {"name": found.name, "held": True, "seen": found.seen}


def test_time_grows_with_steps():
    """On a machine that others use, sleepers are woken late: one of five tries must find them in time."""
    for _ in range(5):
        found = timing.check_time_grows_with_steps()
        if found.held:
            break
    assert found.held, found.seen


def test_equals_are_equal():
    """Of twenty comparisons two go wrong by chance in one of fifty; twice in a row that is no chance."""
    found = timing.check_alike()
    again = found if found.held else timing.check_alike()
    assert again.held, (found.seen, again.seen)


def test_a_stopwatch_that_is_wrong_is_found_out(monkeypatch):
    """It forgets a part of each step; it believes who returns early; it sees differences everywhere."""
    real = timing.Planted.seconds
    with monkeypatch.context() as patch:
        patch.setattr(timing.Planted, "seconds", lambda self, steps: real(self, steps) ** 0.9)
        assert not timing.check_time_grows_with_steps().held
    with monkeypatch.context() as patch:
        patch.setattr(timing.rounds, "unfinished", lambda reads: False)
        assert not timing.check_early_return().held
    with monkeypatch.context() as patch:
        patch.setattr(timing.intervals, "LEVEL", 0.5)
        patch.setattr(timing, "REAL", 1)
        assert not timing.check_alike().held


@pytest.mark.parametrize(("held", "status"), [(True, 0), (False, 1)])
def test_the_command_says_what_it_saw(monkeypatch, capsys, held, status):
    def check_it():
        return timing.Check("a claim", held, "what was seen")

    monkeypatch.setattr(timing, "CHECKS", (check_it,))
    assert commands.selftest(as_json=True) == status
    told = json.loads(capsys.readouterr().out)
    assert told == {"schema": 1, "checks": [{"name": "a claim", "held": held, "seen": "what was seen"}]}
    assert commands.selftest(as_json=False) == status
    assert capsys.readouterr().out.split("\n")[:2] == [f"{'✓' if held else '✗'} a claim", "  what was seen"]
