"""The grid text × framework × precision × track × batch × device as data, and how its cells come home.

A cell of a grid is measured alone: nothing took turns with it, so no ratio joins it to another, not even to one of the
same machine. What came home becomes one result document a machine, text, precision, track, batch and device, as
`compare` writes them, with `grid` saying so; it is written anew with each cell that comes home, so that what has come
home is kept whatever happens to this program. A journal has each home-coming too: with it a grid whose driver was
killed goes on, and its documents grow on. Machines are numbers, in order of who was heard of first.

Nothing here knows how cells get to machines: `on_ray` does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from dlrosetta import client, compare, frameworks, gpus, paths, texts
from dlrosetta.client import one_line
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework
from dlrosetta.journal import Journal
from dlrosetta.proof import FINE, run
from dlrosetta.proof.cell import scope
from dlrosetta.texts import Text


@dataclass(frozen=True)
class Cell:
    """One point of the grid. `batch` is set over the text's own; `device` is "cpu" or "cuda"."""

    text: str
    framework: str
    dtype: str = "float32"
    track: str = "default"
    batch: int | None = None
    device: str = "cpu"

    def __str__(self) -> str:
        apart = [self.dtype, *(["tuned"] if self.track == "tuned" else []), self.device]
        return " ".join([self.text, self.framework, *apart, *([f"batch {self.batch}"] if self.batch else [])])


@dataclass(frozen=True)
class Terms:
    """How each cell is measured: as the options of `compare` say, `budget` being seconds of rounds for one cell."""

    profile: str = "quick"
    budget: float = 60.0
    patience: float = 600.0


@dataclass(frozen=True)
class Grant:
    """What of a machine a cell may use: threads, and bytes of memory."""

    threads: int
    memory: int


def cells(
    known: Iterable[Text],
    wanted: Iterable[Framework],
    dtypes: Iterable[str],
    tracks: Iterable[str],
    batches: Iterable[int | None],
    devices: Iterable[str],
) -> list[Cell]:
    """Every cell of the grid that there is a version for; what a framework lacks needs no machine to say so."""
    rest = list(product(dtypes, tracks, batches, devices))
    return [
        Cell(text.name, framework.slug, *values)
        for text, framework in product(known, wanted)
        if run.why_not(text, framework, 1) is None
        for values in rest
    ]


def proofs(known: Iterable[Text], wanted: Iterable[Framework], cells: Iterable[Cell]) -> dict[Cell, str]:
    """Of each cell what exactly is proven and measured: a hash of its version, adapter, lock and text."""
    by_name, by_slug = {one.name: one for one in known}, {one.slug: one for one in wanted}
    cache: dict[tuple[str, ...], str] = {}
    found = {}
    for cell in cells:
        what = (cell.text, cell.framework, cell.track, cell.dtype)
        if what not in cache:
            text = by_name[cell.text]
            cache[what] = run.key(text, text.on_track(by_slug[cell.framework], cell.track), cell.dtype)
        found[cell] = cache[what]
    return found


def journal_key(cells: Iterable[Cell], terms: Terms) -> str:
    """What must be the same for a grid to go on: its cells, how they are measured, and the program. Of which of them
    the version has changed meanwhile, `Results` finds out.
    """
    told = [asdict(terms), sorted(map(str, cells)), program_hash()]
    return f"grid-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}"


class Queue:
    """Cells that wait for a machine. A machine gets the framework that it had last, whose environment it has made, and
    within that the same text, which is proven there; else the framework of which most cells wait.
    """

    def __init__(self, cells: Iterable[Cell]):
        self._waiting: dict[tuple[str, str], list[tuple[Cell, int]]] = {}
        self._last: dict[str, str] = {}
        for cell in cells:
            self.put(cell, 1)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, cell: Cell, attempt: int) -> None:
        group = self._waiting.setdefault((cell.device, cell.framework), [])
        group.append((cell, attempt))
        group.sort(key=lambda one: one[0].text)

    def take(self, node: str, devices: Iterable[str]) -> tuple[Cell, int] | None:
        """The next cell for this machine, which has `devices`, and its attempt's number; None where none fits."""
        fitting = [key for key, group in self._waiting.items() if group and key[0] in devices]
        if not fitting:
            return None
        key = max(fitting, key=lambda one: (one[0] != "cpu", one[1] == self._last.get(node), len(self._waiting[one])))
        self._last[node] = key[1]
        return self._waiting[key].pop(0)


def program_hash() -> str:
    """Of everything in the program, which must be the same on a node as where it is asked from. (Texts and frameworks,
    which are shipped within it, are told apart by their proofs.)
    """
    digest = hashlib.sha256()
    for path in sorted(paths.PACKAGE.rglob("*.py")):
        if "_shipped" in path.relative_to(paths.PACKAGE).parts:
            continue
        digest.update(str(path.relative_to(paths.PACKAGE)).encode() + path.read_bytes())
    return digest.hexdigest()


def measure(cell: Cell, terms: Terms, grant: Grant, program: str) -> str:
    """Measure one cell on this machine, making its environment and its proof first where they are not here; return the
    document of `compare` as JSON. `program` is the `program_hash()` of who asks. A cell's own fault is in its document.
    """
    from dlrosetta import commands

    if program_hash() != program:
        raise RosettaError(
            f"Expected the dlrosetta of the one who asks on this node. Received: {paths.PACKAGE}, which differs.",
            "remove PYTHONPATH from the environment of `ray start`",
        )
    text = texts.select(cell.text, texts.find(paths.stone_dirs()))[0]
    framework = frameworks.select(cell.framework, frameworks.find())[0]
    hidden = gpus.HIDDEN if cell.device == "cpu" else {}
    limits = {"ROSETTA_THREADS": str(grant.threads), "ROSETTA_MEMORY_GB": str(grant.memory / 2**30)}
    with client.environment({**hidden, **limits}):
        try:
            commands.obtain(text)
            commands.obtain_weights(text)
            found = compare.compare(
                text, [framework], terms.profile, terms.budget, terms.patience, dtype=cell.dtype, track=cell.track,
                batch=cell.batch,
            )  # fmt: skip
        except Exception as error:  # a damaged data set, a text without its golden: not the node's fault
            found = _failed(text, text.on_track(framework, cell.track), cell, terms, error)
    if found.journal:
        found.journal.remove()
    (timed,) = found.cells
    if cell.device != "cpu" and str(timed.facts.get("device", cell.device)).startswith("cpu"):
        timed.fail(f"expected it on {cell.device}, it ran on {timed.facts['device']}")
    return json.dumps(found.document(), allow_nan=False)


def _failed(text: Text, framework: Framework, cell: Cell, terms: Terms, error: Exception) -> compare.Comparison:
    import datetime

    said = f"{error.message} {error.hint or ''}".strip() if isinstance(error, RosettaError) else one_line(error)
    reason = said if isinstance(error, RosettaError) else f"{type(error).__name__}: {said}"
    timed = compare.Timed(framework, "failed", reason, cell.dtype, scope=scope(text, framework))
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    at = compare.commit()
    return compare.Comparison(
        text, terms.profile, "none", [timed], date, cell.dtype, track=cell.track, batch=cell.batch, commit=at
    )


class Results:
    """What has come home, by machine and text; each document is saved whenever it grows. What a resumed journal holds
    is `home` from the start, but of cells whose version is another now (`proofs`).
    """

    def __init__(self, journal: Journal | None = None, proofs: dict[Cell, str] | None = None) -> None:
        self.documents: list[dict[str, Any]] = []
        self.paths: list[Any] = []  # beside them; None where a document could not be saved
        self.unsaved: RosettaError | None = None
        self.home: set[Cell] = set()
        self._journal, self._proofs = journal or Journal(None), proofs or {}
        self._names: list[str] = []  # of files
        self._numbers: dict[str, int] = {}
        self._places: dict[tuple, int] = {}
        for line in self._journal.of("home"):
            cell = Cell(**line["home"])
            if line["proof"] == self._proofs.get(cell):
                self._numbers[line["node"]] = line["number"]
                self._put(cell, line["node"], line["attempt"], line["document"], line["file"])
        for place in range(len(self.documents)):
            self._save(place)  # the kill may have come before it

    def number(self, node: str) -> int:
        """By what number a machine goes by here: its own name stays with it."""
        return self._numbers.setdefault(node, max(self._numbers.values(), default=0) + 1)

    def add(self, cell: Cell, node: str, attempt: int, document: dict[str, Any]) -> dict[str, Any]:
        """Put a cell's document, which holds it alone, with what came from the same machine; return its cell there."""
        number, proof = self.number(node), self._proofs.get(cell)
        place, home = self._put(cell, node, attempt, document)
        told = {"node": node, "number": number, "attempt": attempt, "proof": proof, "file": self._names[place]}
        self._journal.add(home=asdict(cell), **told, document=document)  # first: from it the file can be made again
        self._save(place)
        return home

    def _put(
        self, cell: Cell, node: str, attempt: int, document: dict[str, Any], file: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """The place of its document, and its cell there; a new document's file is called `file`."""
        (home,) = document["cells"]
        home["grid"] = {"attempt": attempt, "date": document["date"], "load": document["machine"]["load"]}
        apart = (node, cell.text, cell.dtype, cell.track, cell.batch, cell.device)
        if apart not in self._places:
            self._places[apart] = len(self.documents)
            document["grid"] = {"node": self.number(node), "device": cell.device, "measured": "alone"}
            self.documents.append({**document, "cells": [], "pairs": [], "agreement": []})
            self.paths.append(None)
            self._names.append(file or compare.file_name(self.documents[-1]))
        place = self._places[apart]
        whole = self.documents[place]
        whole["cells"] = sorted([*whole["cells"], home], key=lambda one: one["framework"])
        self.home.add(cell)
        return place, home

    def _save(self, place: int) -> None:
        try:
            self.paths[place] = compare.save(self.documents[place], self._names[place])
        except RosettaError as error:  # what was measured is shown all the same
            self.unsaved = error

    def done(self) -> None:
        """All is home and saved: nobody needs to resume."""
        self._journal.remove()

    def good(self) -> bool:
        """Whether every cell that came home holds, or cannot be."""
        every = [cell for document in self.documents for cell in document["cells"]]
        return all(cell["verdict"] in FINE for cell in every)


def lost(cell: Cell, attempts: int, reason: str) -> dict[str, Any]:
    """What is said of a cell that never came home: of no machine, so in no document."""
    return {**asdict(cell), "verdict": "failed", "reason": reason, "attempts": attempts}
