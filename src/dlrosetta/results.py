"""What was measured before: the result files that `rosetta compare` writes, and what has changed since.

Nothing that a file holds is trusted: one that is broken or foreign costs a line. `tables.py` has the rest: all files as
tables that DuckDB is asked about.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from dlrosetta import paths
from dlrosetta.errors import RosettaError, UsageError

MOST_BYTES = 64 << 20  # of one file: the largest that a comparison could write has a thousandth of it


@dataclass(frozen=True)
class Result:
    """One run: its document, valid by the schema, and the file that it was found in."""

    path: Path
    document: dict[str, Any]

    def identity(self) -> str:
        """The same for a run and its published copy, which may lack a reason or a fact."""
        keys = ("text", "profile", "track", "dtype", "date")
        speeds = [(cell["framework"], cell["items_per_second"], cell["accuracy"]) for cell in self.document["cells"]]
        told = [*(self.document.get(key) for key in keys), speeds]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Filters:
    """Which cells are asked about; empty: all. `since` and `until` are UTC, the latter is the first moment beyond."""

    texts: tuple[str, ...] = ()
    frameworks: tuple[str, ...] = ()
    machine: str | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None


@dataclass
class Found:
    """All that folders hold: runs, each once, and for each file that is none the reason."""

    results: list[Result] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


# -- files -------------------------------------------------------------------------------------------------------------


def folders(named: Sequence[str] = ()) -> list[Path]:
    """Where results are looked for: the folders named, else the user's own and those of this checkout."""
    for one in named:
        if not Path(one).is_dir():
            raise UsageError(f"Expected a folder of results. Received: {one}, which is not a folder")
    ours = [paths.results_dir(), paths.project_results()]
    return [Path(one).resolve() for one in named] or [one for one in ours if one is not None and one.is_dir()]


def find(where: Iterable[Path]) -> Found:
    """Read every `*.json` of the folders, in order of name; a run that lies in two of them counts once."""
    from dlrosetta.tables import rows_of

    found, seen = Found(), set()
    for path in [path for folder in where for path in sorted(folder.glob("*.json"))]:
        try:
            read_ones = read(path)
            for one in read_ones:
                rows_of(one, 0)  # what tables cannot hold shows here, at the cost of this file alone
        except RosettaError as error:
            found.unreadable.append((path, error.message))
            continue
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            found.unreadable.append(
                (path, f"Expected a result file. Received: {type(error).__name__}: {_short(str(error))}")
            )
            continue
        for one in read_ones:
            if one.identity() not in seen:
                seen.add(one.identity())
                found.results.append(one)
    return found


def read(path: Path) -> list[Result]:
    """The runs of one file: one, or with `compare all --json` several. Raises RosettaError where it is no such file."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RosettaError(f"Expected a result file. Received: {path.stat().st_size >> 20} MB.")
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise RosettaError(f"The file cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise RosettaError(f"Expected JSON. Received: {_short(str(error))}") from error
    several = document.get("texts") if isinstance(document, dict) and "texts" in document else [document]
    for one in several if isinstance(several, list) else [None]:
        _complete(one)
        check(one)
    return [Result(path, one) for one in several]  # type: ignore[union-attr]


def _complete(document: Any) -> None:
    """Fill in what results of before 29 November 2026 did not say, for it was always the same: the scope of a cell."""
    cells = document.get("cells") if isinstance(document, dict) else None
    for cell in cells if isinstance(cells, list) else []:
        if isinstance(cell, dict):
            cell.setdefault("scope", "all")


def check(document: Any) -> None:
    """Raise RosettaError unless a document is valid by the schema, with a date."""
    from jsonschema.exceptions import best_match

    wrong = best_match(_validator().iter_errors(document))
    if wrong is not None:
        raise RosettaError(
            f"Expected a result of `rosetta compare`. Received: at {wrong.json_path}, {_short(wrong.message)}"
        )
    try:
        moment(document.get("date", ""))
    except ValueError as error:
        raise RosettaError(f"Expected a date. Received: at $.date, {document.get('date')!r}") from error


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    schema = json.loads(paths.schema("compare").read_text(encoding="utf-8"))
    return Draft202012Validator({"$ref": "#/$defs/document", "$defs": schema["$defs"]})


def _no_number(word: str) -> float:
    raise ValueError(f"{word}, which is not JSON")


def _short(message: str) -> str:
    message = " ".join(message.split())
    return message if len(message) <= 160 else f"{message[:80]} … {message[-70:]}"


def moment(date: str) -> datetime.datetime:
    """The moment, UTC without a zone, of an ISO 8601 date. Raises ValueError."""
    found = datetime.datetime.fromisoformat(date.replace("Z", "+00:00"))
    return found.astimezone(datetime.timezone.utc).replace(tzinfo=None) if found.tzinfo else found


# -- what has changed since --------------------------------------------------------------------------------------------


class Today:
    """Texts and frameworks as they are now, to hold old results against."""

    def __init__(self, stone: tuple[str, ...] = (), frameworks_dir: tuple[str, ...] = ()):
        from dlrosetta import frameworks, texts

        self._folders = texts.find(paths.stone_dirs(stone))
        self.frameworks = frameworks.find(frameworks_dir)
        self._texts: dict[str, Any] = {}

    def text(self, name: str) -> Any:
        """The text of a name; None where there is none, or its text.toml is wrong now."""
        from dlrosetta import texts

        if name not in self._texts:
            try:
                self._texts[name] = texts.load(self._folders[name]) if name in self._folders else None
            except RosettaError:
                self._texts[name] = None
        return self._texts[name]

    def changed(self, document: dict[str, Any], cell: dict[str, Any]) -> list[str] | None:
        """What a cell was measured with and is otherwise now: version, adapter (its folder's files), lock, switches;
        "all" where text, framework or version are no longer there. None where nothing ran, or nothing was written down.
        """
        from dlrosetta.proof import run

        then = cell.get("hashes") or {}
        if not {"version", "framework", "lock"} <= set(then):
            return None
        text, framework = self.text(document["text"]), self.frameworks.get(cell["framework"])
        if text is None or framework is None or not run.has_version(text, framework):
            return ["all"]
        lock = framework.lock.read_bytes() if framework.lock.is_file() else b""
        found = ["version"] if then["version"] != run.version_hash(text, framework) else []
        if then["lock"] != hashlib.sha256(lock).hexdigest():
            found.append("lock")
        elif then["framework"] != framework.content_hash():  # which covers the lock: of a changed one no more is known
            found.append("adapter")
        if list(text.on_track(framework, document["track"]).switches) != list(cell.get("switches") or []):
            found.append("switches")
        return found


def changes(changed: str | None) -> str:
    """What people read of the column `changed`."""
    return {None: "unknown", "": "nothing", "all": "no longer there"}.get(changed, changed or "")
