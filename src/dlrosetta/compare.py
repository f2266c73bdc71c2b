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
import math
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from dlrosetta import intervals, machine, paths, weights
from dlrosetta.client import Worker, WorkerFailed, one_line
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework
from dlrosetta.proof import run
from dlrosetta.proof.cell import scope
from dlrosetta.texts import Text

ROUND_S = 0.25  # a round lasts at least this long, so that fences and clocks weigh nothing
BATCHES = 16  # full batches kept in memory and used in turn;
FEW_BATCHES = 2  # where nothing is trained, and nothing depends on what is in them
LEAST_ROUNDS, MOST_ROUNDS = 10, 100  # of 8, an interval that says 95 % covers the median in 90 % (test_intervals)
NARROW = 0.02  # rounds go on until every interval is within ±2 % or the budget ends
WARM, WARM_ROUNDS = 0.05, 10  # warm once the last three rounds lie within 5 %, or after ten
HOLDING = ("proven", "waived")

Say = Callable[[str], None]


@dataclass
class Timed:
    """One cell of a comparison; `document()` is a cell of `compare --json`."""

    framework: Framework
    verdict: str
    reason: str | None = None
    dtype: str = "float32"
    proof: str = ""  # what exactly was proven: run.key
    worker: Worker | None = None
    batch_size: int = 0
    steps: int = 1
    import_s: float | None = None
    first_call_s: float | None = None
    second_call_s: float | None = None
    peak_memory: int | None = None
    accuracy: float | None = None
    training: dict[str, Any] | None = None
    scope: str = "all"  # what was proven, and what is timed: train steps, or "evaluation"
    facts: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    samples: list[float] = field(default_factory=list)
    features: np.ndarray | None = None  # of a text without training: what the version makes of the data

    def interval(self) -> intervals.Interval | None:
        return intervals.of_median(self.samples) if self.samples else None

    def document(self) -> dict[str, Any]:
        found = self.interval()
        speed = None
        if found:
            speed = {"median": found.median, "low": found.low, "high": found.high, "samples": self.samples}
        return {
            "framework": self.framework.slug,
            "verdict": self.verdict,
            "scope": self.scope,
            "switches": list(self.framework.switches),
            "items_per_second": speed,
            "import_s": self.import_s,
            "first_call_s": self.first_call_s,
            "second_call_s": self.second_call_s,
            "peak_memory_bytes": self.peak_memory,
            "accuracy": self.accuracy,
            "training": self.training,
            "reason": self.reason,
            "batch_size": self.batch_size or None,
            "steps_per_round": self.steps,
            "facts": self.facts,
            "hashes": self.hashes,
        }


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

    def agreement(self) -> list[dict[str, Any]]:
        """How far apart the features of every two cells are: the largest relative error of an example's, and the share
        of examples of which both find the same nearest neighbour.
        """
        found = []
        told = [(cell.framework.slug, cell.features) for cell in self.cells if cell.features is not None]
        neighbours = {slug: nearest(features) for slug, features in told}
        for (a, one), (b, other) in combinations(told, 2):
            error = np.linalg.norm(one - other, axis=1) / np.linalg.norm(other, axis=1)
            same = float(np.mean(neighbours[a] == neighbours[b]))
            found.append({"a": a, "b": b, "examples": len(one), "error": float(error.max()), "neighbours": same})
        return found

    def pairs(self) -> list[dict[str, Any]]:
        """Paired speed ratios a/b of every two cells that were timed at the same; `differ` is false where the interval
        covers 1.
        """
        found = []
        timed = [cell for cell in self.cells if cell.samples]
        for a, b in combinations(timed, 2):
            if a.scope != b.scope:
                continue
            count = min(len(a.samples), len(b.samples))
            one = intervals.ratio(a.samples[:count], b.samples[:count])
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
            "cells": [cell.document() for cell in self.cells],
            "pairs": self.pairs(),
            "weights": self.weights,
            "agreement": self.agreement(),
        }


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
    patience: float = 120.0,
    say: Say = lambda line: None,
    pythons: run.Pythons | None = None,
    dtype: str = "float32",
    track: str = "default",
) -> Comparison:
    """Prove, then time, every given cell in `dtype` on a track. `budget` is seconds of rounds for all cells together;
    `say` hears what is going on. `pythons` as in `run.prove`.
    """
    wanted = [text.on_track(framework, track) for framework in frameworks]
    if pythons is None:
        pythons = run.interpreters(text, wanted)
    cells = [_proven(text, framework, dtype, pythons, patience, say) for framework in wanted]
    ready = [cell for cell in cells if cell.verdict in HOLDING]
    with ExitStack() as stack:
        given = None
        if not text.trains:
            given = weights.find(text, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        for cell in ready:
            say(f"starting {cell.framework.slug}")
            _guard(cell, lambda cell=cell: _open(cell, text, pythons[cell.framework.slug], patience, stack, given))  # type: ignore[misc]
        _rounds([cell for cell in ready if cell.worker], budget, say)
        for cell in ready:
            if profile == "full" and cell.worker and cell.scope == "all":
                whole = _train if text.trains else _features
                _guard(cell, lambda cell=cell, whole=whole: whole(cell, say))  # type: ignore[misc]
            if cell.worker:
                _guard(cell, lambda cell=cell: _measure_memory(cell))  # type: ignore[misc]
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return Comparison(text, profile, data_name(text), cells, date, dtype, given.title if given else None, track)


def data_name(text: Text) -> str:
    """Which data a comparison here uses: the real set where the data folder has it, else the packaged sample."""
    from dlrosetta import data

    return data.where(text.data).name


def save(document: dict[str, Any]) -> Path:
    """Write a result, beside and renamed, into the user's folder of results."""
    stamp = document["date"].replace(":", "").replace("+0000", "Z")
    usual = ("default", "float32")
    apart = "".join(f"-{document[key]}" for key in ("track", "dtype") if document[key] not in usual)
    path = paths.results_dir() / f"{document['text']}-{document['profile']}{apart}-{stamp}-{os.getpid()}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.write(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise RosettaError(
            f"{path}: the result could not be written: {error.strerror}", "set ROSETTA_RESULTS to a folder with room"
        ) from error
    return path


# -- one cell ----------------------------------------------------------------------------------------------------------


def _proven(text: Text, framework: Framework, dtype: str, pythons: run.Pythons, patience: float, say: Say) -> Timed:
    """The cell's verdict; in mixed precision, of which behaviour is not asked, float32's where that does not hold."""
    proof = run.key(text, framework, dtype)
    found = _verdict(text, framework, "float32", pythons, patience, say)
    if dtype != "float32":
        if found["verdict"] in HOLDING:
            found = _verdict(text, framework, dtype, pythons, patience, say)
        elif found["reason"]:
            found["reason"] = f"in float32, {found['reason']}"
    return Timed(framework, found["verdict"], found["reason"], dtype, proof, scope=scope(text, framework))


def _verdict(
    text: Text, framework: Framework, dtype: str, pythons: run.Pythons, patience: float, say: Say
) -> dict[str, Any]:
    """The proof's cell, remembered if nothing that it depends on has changed, else proven now."""
    remembered = run.recall(text, framework, dtype)
    if remembered is None or remembered["verdict"] not in HOLDING:
        say(f"proving {framework.slug}")
        remembered = run.prove(text, [framework], [dtype], patience, pythons=pythons)[0].document()
    return remembered


def _guard(cell: Timed, action: Callable[[], None]) -> None:
    """Do something with a cell's worker; its failure is the cell's alone, and so is an answer that makes no sense."""
    try:
        action()
    except Exception as error:
        told = isinstance(error, (WorkerFailed, OSError))
        reason = str(error) if told else f"an answer could not be used: {type(error).__name__}: {one_line(error)}"
        cell.verdict, cell.reason, cell.samples = "failed", reason, []
        if cell.worker:
            cell.worker.close()
        cell.worker = None


def _open(
    cell: Timed,
    text: Text,
    python: Path | RosettaError,
    patience: float,
    stack: ExitStack,
    given: weights.Weights | None = None,
) -> None:
    if isinstance(python, RosettaError):
        raise WorkerFailed(python.message)
    cell.worker = stack.enter_context(run.start(cell.framework, python, machine.threads(), patience=patience))
    ask = cell.worker.ask
    cell.facts = ask("hello", layout=dict(cell.framework.layout))
    cell.import_s = cell.facts.pop("import_s")
    version = run.version_of(text, cell.framework)
    cell.hashes = {
        "version": run.version_hash(text, cell.framework),
        "framework": cell.framework.content_hash(),
        "lock": hashlib.sha256(cell.framework.lock.read_bytes()).hexdigest(),
        "proof": cell.proof,
    }
    names = text.names_for(cell.framework.slug, cell.framework.version)
    constants = list(text.hyperparameters)
    facts: dict[str, Any] = {"files": text.files, "layers": text.full_layers, "constants": constants, "names": names}
    trains = cell.framework.trains(text.trains)
    facts["switches"] = list(cell.framework.switches)
    ask("open", version=str(version), dtype=cell.dtype, trains=trains, labels=text.trains, **facts)
    if run.key(text, cell.framework, cell.dtype) != cell.proof:
        raise WorkerFailed(f"{version} or what belongs to it was changed after it was proven; compare again")
    parameters = str(given.path) if given else None
    ask("create", seed=int(text.hyperparameters.get("SEED", 0)), parameters=parameters)
    cell.batch_size = ask("prepare", count=BATCHES if text.trains else FEW_BATCHES)["batch_size"]
    cell.first_call_s = ask("steps", count=1)["seconds"]
    cell.second_call_s = ask("steps", count=1)["seconds"]


def _round(cell: Timed) -> float:
    """Items a second of one round. A step before it wakes threads and caches that slept while others worked."""
    assert cell.worker is not None
    cell.worker.ask("steps", count=1)
    seconds = cell.worker.ask("steps", count=cell.steps)["seconds"]
    return cell.steps * cell.batch_size / seconds


def _warm(cell: Timed) -> None:
    """Run rounds until they agree, then size a round to `ROUND_S`."""
    speeds: list[float] = []
    for _ in range(WARM_ROUNDS):
        speeds.append(_round(cell))
        cell.steps = max(1, math.ceil(ROUND_S * speeds[-1] / cell.batch_size))
        last = speeds[-3:]
        if len(last) == 3 and max(last) <= min(last) * (1 + WARM):
            return


def _rounds(cells: list[Timed], budget: float, say: Say) -> None:
    for cell in cells:
        say(f"warming {cell.framework.slug}")
        _guard(cell, lambda cell=cell: _warm(cell))  # type: ignore[misc]
    order, begin = random.Random(0), time.monotonic()
    for number in range(MOST_ROUNDS):
        turn = [cell for cell in cells if cell.worker]
        order.shuffle(turn)
        say(f"round {number + 1}")
        for cell in turn:
            _guard(cell, lambda cell=cell: cell.samples.append(_round(cell)))  # type: ignore[misc]
        enough = number + 1 >= LEAST_ROUNDS
        narrow = enough and all(intervals.of_median(cell.samples).half_width <= NARROW for cell in turn if cell.samples)
        if narrow or (enough and time.monotonic() - begin > budget):
            return


def _train(cell: Timed, say: Say) -> None:
    """Profile full: train and evaluate a fresh model as the version's main does."""
    assert cell.worker is not None

    def on_event(event: dict[str, Any]) -> None:
        say(f"training {cell.framework.slug}: epoch {event['epoch']} of {event['epochs']}, loss {event['loss']:.3f}")

    cell.worker.ask("create", seed=0)
    done = cell.worker.ask("fit", on_event=on_event, patience=24 * 3600.0)
    cell.accuracy = _finite(done["metric"])
    cell.training = {"seconds": done["seconds"], "losses": [_finite(loss) for loss in done["losses"]]}


def _features(cell: Timed, say: Say) -> None:
    """Profile full of a text without training: what the version makes of all examples."""
    assert cell.worker is not None
    say(f"features of {cell.framework.slug}")
    out = Path(cell.worker.path("features.safetensors"))
    done = cell.worker.ask("features", out=str(out), patience=24 * 3600.0)
    cell.features = load_file(out)["features"]
    cell.training = {"seconds": done["seconds"], "items": done["items"], "losses": []}


def _finite(value: float) -> float | None:
    """JSON has neither infinity nor what is not a number: None."""
    return value if math.isfinite(value) else None


def _measure_memory(cell: Timed) -> None:
    assert cell.worker is not None
    cell.peak_memory = max(cell.worker.ask("memory")["peak_bytes"], cell.worker.peak_memory)
