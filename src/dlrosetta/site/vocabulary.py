"""The table of `concepts.toml`: what lines can be about, how frameworks say it, and what pages call it.

A framework may have such a file in its folder, beside its adapter, with words of its own for these concepts:

    [step.update]
    words."Train step" = "optimizer.go"
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from dlrosetta.errors import RosettaError, did_you_mean
from dlrosetta.site.words import LANGUAGES
from dlrosetta.toml import read_toml

FILE = "concepts.toml"
HERE = Path(__file__).with_name(FILE)
# A step without words of its own in a version that trains stands at the line that causes it: new gradients need no
# zeroing, `optimizer.step(loss)` differentiates too, and a loss that is asked for in a train step is in training mode.
CAUSED_BY = (
    ("step:backward", "step:update"),
    ("step:zero-grad", "step:backward"),
    ("mode:training", "step:backward"),
)
# What a layer is, by the role of its parameters: see `texts.ROLES`.
OPS = {"conv": "op:convolution", "dense": "op:dense", "embedding": "op:embedding", "gates": "op:gru"}


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Concepts and their entries: kinds ("step"), and what is of a kind ("step:loss")."""
    for kind, entry in read_toml(path).items():
        yield kind, entry
        for name, inner in entry.items():
            if isinstance(inner, dict) and name != "words":
                yield f"{kind}:{name}", inner


ENTRIES = dict(_entries(HERE))
KINDS = tuple(concept for concept in ENTRIES if ":" not in concept)  # in the order in which keys stand on a line
LABELS = {language: {concept: entry[language] for concept, entry in ENTRIES.items()} for language in LANGUAGES}


def label(concept: str, language: str = "en") -> str:
    """A concept in words: "Layer conv1", "Loss", "Constant BATCH_SIZE"."""
    words = LABELS[language]
    if concept in words:
        return words[concept]
    kind, _, rest = concept.partition(":")
    return f"{words[kind]} {rest}"


def plain(name: str) -> str:
    """A name as it is compared: without case and underscores."""
    return name.lower().replace("_", "")


@lru_cache(maxsize=64)
def _table(folder: Path | None = None) -> dict[str, list[tuple[str, str]]]:
    """Concepts, and the sections in which a word says them, by word; with those of a framework's own file."""
    own = folder / FILE if folder else None
    more = dict(_entries(own)) if own and own.is_file() else {}
    for concept in more:
        if concept not in ENTRIES:
            known = did_you_mean(concept, ENTRIES)
            raise RosettaError(f"{own}: expected a concept of {HERE}. Received: {concept!r}.{known}")
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for concept, entry in (*ENTRIES.items(), *more.items()):
        for section, words in entry.get("words", {}).items():
            for word in words.split():
                found[plain(word)].append((concept, section))
    return dict(found)


def said(words: set[str], section: str, folder: Path | None = None) -> set[str]:
    """The concepts that plain words say in a section, in the versions of the framework in that folder."""
    table = _table(folder)
    return {concept for word in words for concept, where in table.get(word, ()) if where in ("any", section)}
