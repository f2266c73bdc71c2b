"""Errors that people read: what was expected, what was received, and the next command to type."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RosettaError(Exception):
    """Something went wrong that the user can act on. `hint` is the next command to type or thing to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(RosettaError):
    """The call itself is wrong: exit status 2."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or "" where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
