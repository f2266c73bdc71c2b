"""The sections of a version, in any language, and the line to blame for a layer, a constant or a section.

A section opens with a comment that begins with `%%`: `# %% Model`, `// %% Model`. Lines are found by name within the
section, not by parsing: versions are written in many languages, and layer names are the same in all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

NAMES = ("Imports", "Configuration", "Data", "Model", "Loss", "Optimizer", "Train step", "Evaluation", "Run")
OF_TRAINING = ("Loss", "Optimizer", "Train step")  # where the text, or the framework, does not train there are none
_MARK = re.compile(r"^\s*(?:#|//|--|%|;)\s*%%\s*(.+?)\s*$")
_COMMENT = re.compile(r"^\s*(?:#|//|--|%|;)")  # names a layer, but does not make it
# The function whose line stands for its section.
_FUNCTIONS = {
    "Data": "batches", "Model": "build_model", "Loss": "loss_fn", "Optimizer": "make_optimizer",
    "Train step": "train_step", "Evaluation": "evaluate", "Run": "main",
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """`lines` are the section's lines without the mark; `start` is the number of the first of them, counted from 1."""

    name: str
    start: int
    lines: tuple[str, ...]


def split(source: str) -> list[Section]:
    """Cut a version's source into its sections; what stands before the first mark (a docstring) is called ""."""
    cut: list[tuple[str, int, list[str]]] = [("", 1, [])]
    for number, line in enumerate(source.splitlines(), 1):
        mark = _MARK.match(line)
        if mark:
            cut.append((mark.group(1), number + 1, []))
        else:
            cut[-1][2].append(line)
    return [Section(name, start, tuple(lines)) for name, start, lines in cut]


def section_of(path: Path, line: int | None) -> str:
    """Name of the section in which a line stands, "" where it stands in none."""
    if line is None:
        return ""
    name = ""
    for section in split(path.read_text(encoding="utf-8", errors="replace")):
        if section.start <= line:
            name = section.name
    return name


def locate(path: Path, section: str, word: str | None = None, use: bool = False) -> int:
    """Line of `word` in a section: where it is first named, or with `use` where it is last named (a layer is called
    after it is made).

    Falls back to the section's function and then to its first line, so that there is always a line to look at; 0 if the
    section is missing.
    """
    for part in split(path.read_text(encoding="utf-8", errors="replace")):
        if part.name != section:
            continue
        # Of `blocks.0.qkv`, made in a loop, only the last part stands in the file.
        for wanted in (word, (word or "").rpartition(".")[2], _FUNCTIONS.get(section)):
            if wanted:
                hits = [
                    number
                    for number, line in enumerate(part.lines, part.start)
                    if re.search(rf"\b{re.escape(wanted)}\b", line)
                ]
                hits = [number for number in hits if not _COMMENT.match(part.lines[number - part.start])] or hits
                if hits:
                    return hits[-1] if use and wanted != _FUNCTIONS.get(section) else hits[0]
        return part.start
    return 0
