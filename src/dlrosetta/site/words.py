"""The interface's words, one file a language in words/: a table a page, a text a key.

Every language has the keys of English, with the same fields in braces; a test compares them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from dlrosetta import paths
from dlrosetta.toml import read_toml

FOLDER = paths.PACKAGE / "site" / "words"
LANGUAGES = ("en", "zh")  # the first stands at the root of the site
Words = dict[str, Any]


class Table:
    """Words as templates ask for them: `w.text.copy` is a word, which of a dict it would not be."""

    def __init__(self, words: Words):
        self._words = {key: Table(value) if isinstance(value, dict) else value for key, value in words.items()}

    def __getattr__(self, key: str) -> Any:
        try:
            return self._words[key]
        except KeyError:
            raise AttributeError(key) from None

    def __getitem__(self, key: str) -> Any:
        return self._words[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self._words.get(key, default)


@cache
def load(language: str) -> Words:
    """Table to key to text. Raises RosettaError where the file cannot be read."""
    return read_toml(FOLDER / f"{language}.toml")


def keys(words: Words, prefix: str = "") -> dict[str, str]:
    """All texts by dotted key."""
    found: dict[str, str] = {}
    for name, value in words.items():
        found |= keys(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
