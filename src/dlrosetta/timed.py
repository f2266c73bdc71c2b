"""One cell of a comparison: its proof, its worker, and what is asked of that beside the rounds (rounds.py).

A worker that fails costs its own cell and no other. What was asked for (batch, precision, threads) is looked for in the
worker, not assumed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlrosetta import intervals, rounds, weights
from dlrosetta.client import Worker, WorkerFailed, one_line
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework
from dlrosetta.journal import Journal
from dlrosetta.proof import HOLDING, apart, run
from dlrosetta.proof.cell import scope
from dlrosetta.proof.checks import finite
from dlrosetta.texts import Text

BATCHES = 16  # full batches kept in memory and used in turn;
FEW_BATCHES = 2  # where nothing is trained, and nothing depends on what is in them
TOO_BUSY = 0.1  # threads that a worker may keep busy beyond those that it was given: a clock's error, not a thread

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
    batch: int | None = None  # set over the version's own
    batch_size: int = 0
    steps: int = 1
    import_s: float | None = None
    first_call_s: float | None = None
    second_call_s: float | None = None
    peak_memory: int | None = None
    peak_device_memory: int | None = None  # of a GPU, where the framework counts it
    accuracy: float | None = None
    training: dict[str, Any] | None = None
    scope: str = "all"  # what was proven, and what is timed: train steps, or "evaluation"
    facts: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in rounds.KINDS})
    device: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in rounds.KINDS})
    cores: list[float] = field(default_factory=list)
    reads: list[tuple[float, float]] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    given_threads: int = 0
    gpu: bool | None = None  # whether it is to run on one; None: on what its framework finds
    found: dict[str, Any] = field(default_factory=dict)  # what the worker itself says of precision, threads and batch
    features: Path | None = None  # of a text without training: what the version makes of the data, (N, D)

    @property
    def slug(self) -> str:
        return self.framework.slug

    def fail(self, reason: str) -> None:
        """Say why it failed; of what was measured so far nothing counts."""
        self.verdict, self.reason = "failed", reason
        self.samples = {kind: [] for kind in rounds.KINDS}
        self.device = {kind: [] for kind in rounds.KINDS}
        self.cores, self.reads, self.joules = [], [], []

    def speed(self, kind: str = "steps") -> dict[str, Any] | None:
        """Items a second: the median of the rounds of a kind, its interval, and every sample, where a GPU's own clock
        is read by that too; None without any.
        """
        if not self.samples[kind]:
            return None
        found = intervals.of_median(self.samples[kind])
        told = {"median": found.median, "low": found.low, "high": found.high, "samples": self.samples[kind]}
        return {**told, **({"device_samples": self.device[kind]} if self.device[kind] else {})}

    def document(self) -> dict[str, Any]:
        return {
            "framework": self.framework.slug,
            "verdict": self.verdict,
            "scope": self.scope,
            "switches": list(self.framework.switches),
            "items_per_second": self.speed(),
            "input": {kind: self.speed(kind) for kind in rounds.KINDS[1:]},
            "import_s": self.import_s,
            "first_call_s": self.first_call_s,
            "second_call_s": self.second_call_s,
            "peak_memory_bytes": self.peak_memory,
            **({"peak_device_memory_bytes": self.peak_device_memory} if self.peak_device_memory else {}),
            "accuracy": self.accuracy,
            "training": self.training,
            "reason": self.reason,
            "batch_size": self.batch_size or None,
            "steps_per_round": self.steps,
            "cores_busy": float(np.median(self.cores)) if self.cores else None,
            "joules_per_item": float(np.median(self.joules)) if self.joules else None,
            "restarts": self.restarts,
            "found": self.found,
            "facts": self.facts,
            "hashes": self.hashes,
        }


def proven(text: Text, framework: Framework, dtype: str, pythons: run.Pythons, patience: float, say: Say) -> Timed:
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
        remembered = apart.prove(text, framework, dtype, patience, pythons)
    return remembered


def guard(cell: Timed, action: Callable[[], None]) -> None:
    """Do something with a cell's worker; its failure is the cell's alone, and so is an answer that makes no sense."""
    try:
        action()
    except Exception as error:
        told = isinstance(error, (WorkerFailed, OSError))
        reason = str(error) if told else f"an answer could not be used: {type(error).__name__}: {one_line(error)}"
        cell.fail(reason)
        if cell.worker:
            cell.worker.close()
        cell.worker = None


def open_worker(
    cell: Timed,
    text: Text,
    python: Path | RosettaError,
    patience: float,
    stack: ExitStack,
    given: weights.Weights | None,
    threads: int,
) -> None:
    if isinstance(python, RosettaError):
        raise WorkerFailed(python.message)
    if cell.worker:
        cell.worker.close()
    cell.worker = stack.enter_context(run.start(cell.framework, python, threads, patience=patience))
    ask = cell.worker.ask
    cell.facts = ask("hello", layout=dict(cell.framework.layout))
    cell.import_s = cell.facts.pop("import_s")
    version = run.version_of(text, cell.framework)
    cell.hashes = {**run.hashes(text, cell.framework), "proof": cell.proof}
    names = text.names_for(cell.framework.slug, cell.framework.version)
    constants = list(text.hyperparameters)
    facts: dict[str, Any] = {"files": text.files, "layers": text.full_layers, "constants": constants, "names": names}
    trains = cell.framework.trains(text.trains)
    facts["switches"] = list(cell.framework.switches)
    ask("open", version=str(version), dtype=cell.dtype, trains=trains, labels=text.trains, **facts)
    if run.key(text, cell.framework, cell.dtype) != cell.proof:
        raise WorkerFailed(f"{version} or what belongs to it was changed after it was proven; compare again")
    parameters = str(given.path) if given else None
    over = {"BATCH_SIZE": cell.batch} if cell.batch else None
    ask("create", seed=int(text.hyperparameters.get("SEED", 0)), parameters=parameters, constants=over)
    cell.found = ask("prepare", count=BATCHES if text.trains else FEW_BATCHES)
    cell.found["threads"] = cell.facts.get("threads")
    cell.batch_size = cell.found["batch_size"]
    check_found(cell, text, threads)
    cell.first_call_s = ask("steps", count=1)["seconds"]
    cell.second_call_s = ask("steps", count=1)["seconds"]


def check_found(cell: Timed, text: Text, threads: int) -> None:
    """The same batch, precision and threads everywhere: not as they were asked for, but as the worker finds them. TF32
    is no float32, unless a switch of the tuned track is called so.
    """
    wanted = cell.batch or int(text.hyperparameters["BATCH_SIZE"])
    if cell.batch_size != wanted:
        raise WorkerFailed(f"expected batches of {wanted}, found {cell.batch_size}")
    ran = str(cell.facts.get("device", "cpu")).lower()
    if cell.gpu is not None and cell.gpu == ran.startswith("cpu"):
        raise WorkerFailed(f"expected it on {'a GPU' if cell.gpu else 'the CPU'}, it ran on {ran}")
    if cell.found["parameters"] != ["float32"]:  # in mixed precision too
        raise WorkerFailed(f"expected parameters in float32, found {', '.join(cell.found['parameters'])}")
    if not (cell.found["inputs"] == "float32" or "int" in cell.found["inputs"].lower()):
        raise WorkerFailed(f"expected inputs in float32 or integers, found {cell.found['inputs']}")
    if (cell.found.get("arithmetic") or {}).get("tf32") and "tf32" not in cell.framework.switches:
        raise WorkerFailed("expected float32 products in float32, found that the framework may take TF32")
    if isinstance(cell.found["threads"], int) and cell.found["threads"] > threads:
        raise WorkerFailed(f"expected {threads} threads, the framework says {cell.found['threads']}")


def check_turns(cell: Timed) -> None:
    """Who keeps more processors busy than it was given threads, or whose fence does not wait, has not been timed at the
    same.
    """
    busy, threads = float(np.median(cell.cores)) if cell.cores else 0.0, cell.given_threads
    if busy > threads + TOO_BUSY:
        raise WorkerFailed(f"expected at most {threads} threads, {busy:.1f} processors were kept busy")
    if rounds.unfinished(cell.reads):
        read, seconds = (float(np.median(column)) for column in zip(*cell.reads, strict=True))
        raise WorkerFailed(
            f"returned before it was done: a turn took {seconds:.2g} s, and reading its last loss {read:.2g} s more; "
            "`synchronize` of its adapter must wait for all submitted work"
        )


def train(cell: Timed, say: Say, journal: Journal) -> None:
    """Profile full: train and evaluate a fresh model as the version's main does."""
    assert cell.worker is not None

    def on_event(event: dict[str, Any]) -> None:
        say(f"training {cell.framework.slug}: epoch {event['epoch']} of {event['epochs']}, loss {event['loss']:.3f}")

    done = next((line for line in journal.of("trained") if line["trained"] == cell.slug), None)
    if done is None:
        cell.worker.ask("create", seed=0)
        done = cell.worker.ask("fit", on_event=on_event, patience=24 * 3600.0)
        done["metric"], done["losses"] = finite(done["metric"]), [finite(loss) for loss in done["losses"]]
        journal.add(trained=cell.slug, **done)
    cell.accuracy = done["metric"]
    cell.training = {"seconds": done["seconds"], "losses": done["losses"]}


def features(cell: Timed, say: Say, journal: Journal) -> None:
    """Profile full of a text without training: what the version makes of all examples."""
    assert cell.worker is not None
    done = next((line for line in journal.of("made") if line["made"] == cell.slug), None)
    kept = journal.files / Path(done["file"]).name if done else None
    if done and kept and kept.is_file():
        cell.features = kept
    else:
        say(f"features of {cell.framework.slug}")
        out = Path(cell.worker.path("features.safetensors"))
        done = cell.worker.ask("features", out=str(out), patience=24 * 3600.0)
        cell.features = journal.keep(out, made=cell.slug, seconds=done["seconds"], items=done["items"])
    cell.training = {"seconds": done["seconds"], "items": done["items"], "losses": []}


def measure_memory(cell: Timed) -> None:
    assert cell.worker is not None
    told = cell.worker.ask("memory")
    cell.peak_memory = max(told["peak_bytes"], cell.worker.peak_memory)
    cell.peak_device_memory = told.get("device_peak_bytes")
