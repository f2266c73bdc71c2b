"""What versions were proven to agree on, concept by concept: the table of `agreement.toml`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from dlrosetta.toml import read_toml


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return read_toml(Path(__file__).with_name("agreement.toml"))


def _entry(concept: str) -> tuple[dict[str, Any], str]:
    """The entry that a concept has, and the name that stands in its patterns."""
    kind, _, name = concept.partition(":")
    table = _table()
    if kind == "layer":
        block = name.rpartition(".")[2].startswith(("N", "block", "layer", "transition"))
        kind = "layer:dropout" if name.startswith("dropout") else "block" if block else "layer"
        folded = ".".join("*" if part == "N" else part for part in name.split("."))
        name = folded.replace("N.", "*.").removesuffix("N") + ("*" if folded.endswith("N") else "")
    return table.get(concept, table.get(kind, {})), name


def proven(concept: str) -> tuple[str, ...]:
    """Patterns (as `fnmatch` has them) of the checks in a proof's document that cover a concept; none where nothing was
    proven of it, as of printing.

    "layer:blocks.N.qkv" is covered by "*gradient/blocks.*.qkv.*", "constant:MOMENTUM" by "configuration/MOMENTUM". A
    proof has those of them that its text has: one that is not trained has no gradients.
    """
    entry, name = _entry(concept)
    return tuple(pattern.replace("{}", name) for pattern in entry.get("checks", ()))


def words(concept: str, language: str = "en") -> str:
    """What that is, in a phrase; "" where nothing was proven of it."""
    return str(_entry(concept)[0].get(language, ""))
