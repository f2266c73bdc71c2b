"""The catalogue of planted faults: one TOML file a framework and text in this folder, found by listing it.

`torch.toml` is of the framework torch and of the text that it names; a file of any other name, as `torch_gru.toml`,
names its `framework` too.

A fault is a small edit of a version that changes what it computes, trains or measures; `section` and `layer` are what
the proof must name. Where the framework itself stops at the fault, `verdict` is "failed". A `same` is an edit that
changes nothing of the kind: it must stay proven, or the prover cries wolf.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dlrosetta.toml import read_toml

FOLDER = Path(__file__).parent
KEYS = {"name", "old", "new", "section", "layer", "verdict"}


@dataclass(frozen=True)
class Edit:
    """`changes` are pairs (old, new); each old text stands exactly once in the version. A `same` has no section."""

    framework: str
    text: str
    name: str
    changes: tuple[tuple[str, str], ...]
    section: str | None = None
    layer: str | None = None
    verdict: str = "differs"

    def __str__(self) -> str:
        return f"{self.text}-{self.framework}-{self.name.replace(' ', '_')}"

    def apply(self, source: str) -> str:
        """The edited source. Raises ValueError where an old text is not there exactly once, or nothing changes."""
        for old, new in self.changes:
            if source.count(old) != 1 or old == new:
                raise ValueError(
                    f"{self}: expected to change exactly one place. Received: {source.count(old)} of {old!r}"
                )
            source = source.replace(old, new)
        return source


def load() -> list[Edit]:
    """Every edit of every framework, framework by framework and text by text, in the order of the files."""
    tables = [(path, read_toml(path)) for path in FOLDER.glob("*.toml")]
    return [
        _edit(path, framework, text, entry)
        for framework, text, path, table in sorted(
            ((table.get("framework", path.stem), table["text"], path, table) for path, table in tables),
            key=lambda one: one[:3],
        )
        for entry in (*table["fault"], *table["same"])
    ]


def _edit(path: Path, framework: str, text: str, entry: dict) -> Edit:
    if set(entry) - KEYS:
        raise ValueError(f"{path}: expected {', '.join(sorted(KEYS))}. Received: {', '.join(sorted(entry))}")
    old, new = ([one] if isinstance(one, str) else one for one in (entry["old"], entry["new"]))
    changes = tuple(zip(old, new, strict=True))
    found = {key: entry[key] for key in ("section", "layer", "verdict") if key in entry}
    return Edit(framework, text, entry["name"], changes, **found)
