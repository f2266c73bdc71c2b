"""How fast is each cell, measured side by side?

Only cells whose proof holds are timed. Workers stay alive and take turns in shuffled order, one active at a time, so
that whatever the machine does meets all of them alike; each round is a stretch of the version's own train steps between
two fences. Import, first call (compilation), second call and steady state are four separate figures. Raw samples are
kept.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from dlrosetta import client, console, gpus, intervals, machine, paths, roof, rounds, timed, weights, work
from dlrosetta.errors import RosettaError, UsageError
from dlrosetta.frameworks import Framework
from dlrosetta.journal import Journal
from dlrosetta.proof import HOLDING, run
from dlrosetta.texts import Text
from dlrosetta.timed import Say, Timed


@dataclass(frozen=True)
class Comparison:
    """Everything a comparison found; `document()` is `compare --json` and the result file."""

    text: Text
    profile: str
    data: str
    cells: list[Timed]
    date: str
    dtype: str = "float32"
    weights: str | None = None  # of a text without training: which ones
    track: str = "default"
    batch: int | None = None  # set over the versions' own; None: theirs
    ended: rounds.Ended = field(default_factory=rounds.Ended)
    budget: float = 0.0
    journal: Journal | None = None
    device: str | None = None  # that was asked for, by its name
    roof: dict[str, Any] | None = None  # what each framework reaches of products and copies (roof.py)
    commit: str | None = None  # of the checkout, when it began: hours later there may be another
    agreement: list[dict[str, Any]] = field(default_factory=list)  # of features, by two cells

    def pairs(self) -> list[dict[str, Any]]:
        """Paired speed ratios a/b of every two cells that were timed at the same; `differ` is false where the interval
        covers 1.
        """
        found = []
        timed = [(cell, cell.samples["steps"]) for cell in self.cells if cell.samples["steps"]]
        for (a, first), (b, second) in combinations(timed, 2):
            if a.scope != b.scope:
                continue
            count = min(len(first), len(second))
            one = intervals.ratio(first[:count], second[:count])
            differ = not one.low <= 1 <= one.high
            names = {"a": a.framework.slug, "b": b.framework.slug}
            found.append({**names, "ratio": one.median, "low": one.low, "high": one.high, "differ": differ})
        return found

    def document(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "text": self.text.name,
            "profile": self.profile,
            "track": self.track,
            "data": self.data,
            "unit": self.text.unit,
            "dtype": self.dtype,
            "date": self.date,
            "machine": machine.facts(),
            "commit": self.commit,
            "seed": int(self.text.hyperparameters.get("SEED", 0)),
            "budget_s": self.budget,
            "rounds": self.ended.document(),
            "cells": [cell.document() for cell in self.cells],
            "pairs": self.pairs(),
            "weights": self.weights,
            "agreement": self.agreement,
            **({"batch": self.batch} if self.batch else {}),
            **({"device": self.device} if self.device else {}),
            **({"roof": self.roof} if self.roof else {}),
            **({"work": counted.document()} if (counted := work_of(self.text)) else {}),
        }


def check_batches(known: Iterable[Text], profile: str, batches: Sequence[int]) -> None:
    """Raise UsageError where a text would be trained in other batches than it says."""
    trained = [text.name for text in known if text.trains and batches and profile == "full"]
    if trained:
        raise UsageError(
            f"Expected --batch with --profile quick: {trained[0]} is trained as it says. Received: full.",
            "leave --batch out",
        )


def agreement(cells: Iterable[Timed]) -> list[dict[str, Any]]:
    """How far apart the features of every two cells are: the largest relative error of an example's, and the share of
    examples of which both find the same nearest neighbour. Never more than two cells' features are in memory.
    """
    found = []
    files = [(cell.slug, cell.features) for cell in cells if cell.features and cell.verdict in HOLDING]
    neighbours = {slug: nearest(load_file(file)["features"]) for slug, file in files}
    for number, (a, file) in enumerate(files[:-1]):
        one = load_file(file)["features"]
        for b, second in files[number + 1 :]:
            other = load_file(second)["features"]
            error = np.linalg.norm(one - other, axis=1) / np.linalg.norm(other, axis=1)
            same = float(np.mean(neighbours[a] == neighbours[b]))
            found.append({"a": a, "b": b, "examples": len(one), "error": float(error.max()), "neighbours": same})
    return found


def nearest(features: np.ndarray) -> np.ndarray:
    """Of each row of features (N, D) the number of the other row with the largest cosine, in float64."""
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argmax(likeness, axis=1)


def compare(
    text: Text,
    frameworks: Iterable[Framework],
    profile: str = "quick",
    budget: float = 60.0,
    patience: float = client.PATIENCE,
    say: Say = lambda line: None,
    pythons: run.Pythons | None = None,
    dtype: str = "float32",
    track: str = "default",
    batch: int | None = None,
    resume: bool = False,
    threads: int | None = None,
    device: gpus.Choice | None = None,
) -> Comparison:
    """Prove, then time, every given cell in `dtype` on a track. `budget` is seconds of rounds for all cells together;
    `say` hears what is going on. `pythons` as in `run.prove`. `batch` examples a step, in the place of the text's own.
    With `resume`, rounds, trainings and features that the same comparison had when it was killed are not taken again.
    Each worker gets `threads`, or one a core. On another `device` than the one that was chosen none is timed.
    """
    at = commit()
    wanted = [text.on_track(framework, track) for framework in frameworks]
    if pythons is None:
        pythons = run.interpreters(text, wanted)
    cells = [timed.proven(text, framework, dtype, pythons, patience, say) for framework in wanted]
    for cell in cells:
        cell.batch, cell.gpu = batch, device.gpu if device else None
    ready = [cell for cell in cells if cell.verdict in HOLDING]
    with ExitStack() as stack:
        given = None
        if not text.trains:
            given = weights.find(text, Path(stack.enter_context(tempfile.TemporaryDirectory())))

        def opened(cell: Timed) -> None:
            cell.given_threads = threads or machine.threads()
            timed.open_worker(cell, text, pythons[cell.slug], patience, stack, given, cell.given_threads)

        for cell in ready:
            say(f"starting {cell.framework.slug}")
            timed.guard(cell, lambda cell=cell: opened(cell))  # type: ignore[misc]
        title = given.title if given else None
        key = journal_key(text, ready, profile, threads, batch, device, title) if ready else None
        journal = Journal(key, resume, say)
        ended = rounds.take([cell for cell in ready if cell.worker], budget, timed.guard, opened, say, journal)
        for cell in ready:
            if profile == "full" and cell.worker and cell.scope == "all":
                whole = timed.train if text.trains else timed.features
                timed.guard(cell, lambda cell=cell, whole=whole: whole(cell, say, journal))  # type: ignore[misc]
            if cell.worker:
                timed.guard(cell, lambda cell=cell: timed.measure_memory(cell))  # type: ignore[misc]
                timed.guard(cell, lambda cell=cell: timed.check_turns(cell))  # type: ignore[misc]
        told = agreement(cells)  # before the workers end: features that no journal keeps lie in their folders
        reached = None
        if dtype == "float32":  # last: its arrays stay in the workers
            reached = roof.measure({cell.slug: cell.worker for cell in ready if cell.worker}, say)
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    asked = device.title if device else None
    return Comparison(
        text,
        profile,
        data_name(text),
        cells,
        date,
        dtype,
        weights=title,
        track=track,
        batch=batch,
        ended=ended,
        budget=budget,
        journal=journal,
        device=asked,
        roof=reached,
        commit=at,
        agreement=told,
    )


def journal_key(
    text: Text,
    cells: Iterable[Timed],
    profile: str,
    threads: int | None = None,
    batch: int | None = None,
    device: gpus.Choice | None = None,
    given: str | None = None,
) -> str:
    """What must be the same for a comparison to go on: versions, adapters, locks, data, weights, threads, machine."""
    from dlrosetta import data

    parts = [
        text.name,
        profile,
        str(threads),
        str(batch),
        str(given),
        machine.cpu_model(),
        str(machine.threads()),
        data.where(text.data).kind,
        *(device.environ.values() if device else ()),
    ]
    parts += [f"{cell.slug} {cell.proof}" for cell in cells]
    return f"{text.name}-{profile}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:16]}"


def work_of(text: Text) -> work.Work | None:
    """The text's work, if its reference runs: a proof reads the golden alone, and what was measured is kept."""
    try:
        return work.count(text)
    except Exception as error:  # the reference is its author's code, which may fail in any way
        said = client.one_line(f"{type(error).__name__}: {error}")
        told = f"{text.name}: no share of the roof, for its work cannot be counted: {said}"
        console.err().print(told, markup=False, highlight=False, soft_wrap=True)
        return None


def commit() -> str | None:
    """The commit of the checkout that this runs from, with a + where it was changed; None where it is no checkout of
    ours: an installed program may lie within somebody else's.
    """
    root = paths.PACKAGE.parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return told.stdout.strip() or None if told.returncode == 0 else None


def data_name(text: Text) -> str:
    """Which data a comparison here uses: the real set where the data folder has it, else the packaged sample."""
    from dlrosetta import data

    return data.where(text.data).name


def file_name(document: dict[str, Any]) -> str:
    """What tells a result's file from those of other runs; of the process that names it, too."""
    stamp = document["date"].replace(":", "").replace("+0000", "Z")
    usual = ("default", "float32")
    apart = "".join(f"-{document[key]}" for key in ("track", "dtype") if document[key] not in usual)
    apart += f"-batch{document['batch']}" if "batch" in document else ""
    apart += f"-{document['grid']['device']}-node{document['grid']['node']}" if "grid" in document else ""
    return f"{document['text']}-{document['profile']}{apart}-{stamp}-{os.getpid()}.json"


def save(document: dict[str, Any], name: str | None = None) -> Path:
    """Write a result, beside and renamed, into the user's folder of results; the file is called `name`, or what
    `file_name` says.
    """
    path = paths.results_dir() / (name or file_name(document))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.write(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise RosettaError(
            f"{path}: the result could not be written: {error.strerror}", "set ROSETTA_RESULTS to a folder with room"
        ) from error
    return path
