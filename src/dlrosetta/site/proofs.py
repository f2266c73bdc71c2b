"""Published proofs: `results/proofs/TEXT.json`, each what `rosetta prove TEXT --frameworks all --json` printed, and
`TEXT-bfloat16.json`, with `--dtype bfloat16`.

A cell that no file speaks of is "not proven here": nothing is remembered, guessed or run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrosetta import console, matrix, paths
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework
from dlrosetta.proof import run
from dlrosetta.texts import Text


@dataclass(frozen=True)
class Check:
    """One comparison, as the document has it; `error` is None where it was no finite number."""

    name: str
    error: float | None
    bound: float
    verdict: str

    @property
    def exact(self) -> bool:
        """Whether it had to be equal and is: a large model has a thousand of these, and no more is to say of each."""
        return not self.bound and self.verdict == "proven"


@dataclass(frozen=True)
class Cell:
    """One framework in one precision."""

    framework: str
    dtype: str
    verdict: str
    scope: str
    checks: tuple[Check, ...]
    departure: dict[str, Any] | None
    reason: str | None
    changed: bool  # whether the text, the version or the adapter is another now than the one that was asked

    @property
    def worst(self) -> Check | None:
        """The check to look at: the first that differs, else that which used most of its bound."""
        finite = [check for check in self.checks if check.error is not None or check.verdict != "proven"]
        return console.worst_check(_Finite(self.dtype, finite))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Finite:
    dtype: str
    checks: list[Check]


Proofs = dict[str, dict[str, list[Cell]]]  # framework to cells of a text, one a precision, by text


def find(folder: Path | None, known: Iterable[Text], frameworks: Mapping[str, Framework]) -> Proofs:
    """All proofs of a folder. Raises RosettaError that names a file which is none."""
    by_name = {text.name: text for text in known}
    found: Proofs = {}
    for path in sorted(folder.glob("*.json")) if folder is not None and folder.is_dir() else ():
        for document in _read(path):
            cells = found.setdefault(document["text"], {})
            for one in document["cells"]:
                checks = tuple(Check(**check) for check in one["checks"])
                cell = Cell(
                    one["framework"], one["dtype"], one["verdict"], one["scope"], checks, one["first_departure"],
                    one["reason"], _changed(one, by_name.get(document["text"]), frameworks.get(one["framework"])),
                )  # fmt: skip
                cells.setdefault(cell.framework, []).append(cell)
    for cells in found.values():
        for some in cells.values():
            some.sort(key=lambda cell: run.DTYPES.index(cell.dtype) if cell.dtype in run.DTYPES else len(run.DTYPES))
    return found


def _changed(cell: dict[str, Any], text: Text | None, framework: Framework | None) -> bool:
    if text is None or framework is None:
        return True
    return bool(cell["hashes"] or cell["checks"]) and cell["hashes"] != run.hashes(text, framework)


def _read(path: Path) -> list[dict[str, Any]]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    text, mixed, _ = path.stem.partition(f"-{run.MIXED}")
    again = f"rosetta prove {text} --frameworks all{f' --dtype {run.MIXED}' if mixed else ''} --json > {path}"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RosettaError(
            f"{path}: expected a document of `rosetta prove --json`. Received: {error}", again
        ) from error
    wrong = best_match(Draft202012Validator(json.loads(paths.schema("prove").read_text())).iter_errors(document))
    if wrong is not None:
        message = wrong.message if len(wrong.message) < 200 else f"{wrong.message[:200]}…"
        raise RosettaError(
            f"{path}: expected a document of `rosetta prove --json`. Received: at {wrong.json_path}, {message}", again
        )
    several = document.get("texts", [document])
    # Proofs of several devices or of the tuned track are others than those that the site speaks of.
    return [one for one in several if "devices" not in one and "track" not in one]


def state(text: Text, framework: Framework, cells: Iterable[Cell]) -> str:
    """One word for a cell of the matrix, as `matrix.cell` has it, from published proofs alone."""
    if not run.has_version(text, framework):
        return "cannot" if text.name in framework.lacks else "none"
    full = [cell for cell in cells if cell.dtype in run.DTYPES]
    if not full:
        return "not run"
    if any(cell.changed for cell in full):
        return "changed"
    able = [cell.verdict for cell in full if cell.verdict != "cannot"]
    worst = min(able, key=matrix.ORDER.index, default="cannot")
    return "evaluates" if worst == "proven" and full[0].scope == "evaluation" else worst


def mark(state: str) -> str:
    """The sign of a state or a verdict, so that colour is never all that tells."""
    return matrix.MARKS.get(state) or console.MARKS[state]
