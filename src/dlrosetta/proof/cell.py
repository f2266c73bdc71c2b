"""Questions one cell: which requests a worker gets, in which order, and what its answers are compared with.

The order is that of blame. What comes earlier explains what comes later, so the first check that fails is where to look: constants,
parameters, activations in order of computation, loss, gradients, the optimizer alone, whole steps, evaluation, dropout,
initialisation, data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from dlrosetta import draws, reference
from dlrosetta.client import Worker, WorkerFailed
from dlrosetta.frameworks import Framework
from dlrosetta.golden import Golden
from dlrosetta.proof import checks, statistics
from dlrosetta.proof.checks import Check, Judge
from dlrosetta.sections import locate, section_of
from dlrosetta.texts import Text


@dataclass
class Cell:
    """The outcome of one proof. `document()` is a cell of `prove --json`."""

    framework: str
    dtype: str
    verdict: str
    checks: list[Check] = field(default_factory=list)
    first_departure: dict[str, Any] | None = None
    reason: str | None = None
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "framework": self.framework,
            "dtype": self.dtype,
            "verdict": self.verdict,
            "checks": [check.document() for check in self.checks],
            "first_departure": self.first_departure,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Given:
    """What every cell of a text is given, made once: full arrays from the seed, and the golden."""

    golden: Golden
    parameters: dict[str, np.ndarray]
    train: dict[str, np.ndarray]
    evaluation: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    data: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, text: Text, golden: Golden, data: tuple[np.ndarray, np.ndarray]) -> Given:
        return cls(
            golden,
            draws.initial_parameters(text),
            draws.training_batches(text),
            reference.evaluation_batch(text, golden.labels),
            reference.optimizer_gradients(text),
            data,
        )


def examine(
    worker: Worker, text: Text, framework: Framework, version: Path, given: Given, dtypes: list[str]
) -> Iterator[Cell]:
    """Prove one version in each dtype, with one worker. What goes wrong becomes a cell's verdict, never an exception."""
    try:
        facts = worker.ask("hello", layout=dict(framework.layout))
    except WorkerFailed as error:
        for dtype in dtypes:
            yield failure(text, framework, version, dtype, error)
        return
    dead: WorkerFailed | None = None
    for dtype in dtypes:
        if dtype not in framework.dtypes:
            yield Cell(
                framework.slug, dtype, "cannot", reason=f"{framework.title} does not train in {dtype} (framework.toml)"
            )
            continue
        found: list[Check] = []
        try:
            if dead is not None:
                raise dead
            for group in _questions(worker, text, version, given, dtype):
                found.extend(group)
            cell = _judged(text, framework, version, dtype, found)
        except WorkerFailed as error:
            dead = None if worker.alive() else error
            cell = failure(text, framework, version, dtype, error, found)
        cell.facts = facts
        yield cell


def failure(
    text: Text, framework: Framework, version: Path, dtype: str, error: WorkerFailed, found: list[Check] | None = None
) -> Cell:
    """A cell that could not be questioned to the end. What it had already got wrong is still told first."""
    if found and any(check.verdict == "differs" for check in found):
        cell = _judged(text, framework, version, dtype, found)
        if cell.verdict == "differs":
            cell.reason = f"{cell.reason}; then {error.message}" if cell.reason else error.message
            return cell
    where = None
    if error.line:
        where = {"layer": None, "section": section_of(version, error.line), "line": error.line}
    return Cell(framework.slug, dtype, "failed", found or [], where, error.message, error.detail)


def _questions(worker: Worker, text: Text, version: Path, given: Given, dtype: str) -> Iterator[list[Check]]:
    """Ask in order of blame; yield the checks of each answer. Ends early where the parameters do not match."""
    judge = Judge(text, given.golden, dtype)
    ask = _Asker(worker, given)
    constants = ask.plain(
        "open", version=str(version), dtype=dtype, layers=text.layers, constants=list(text.hyperparameters)
    )["constants"]
    yield checks.configuration(text, constants)

    still = {one["constant"]: 0.0 for one in text.dropout}
    small = {"BATCH_SIZE": text.proof["batch"]}
    shapes = checks.shapes(text, ask.create({**small, **still})["shapes"])
    yield shapes
    if any(check.verdict == "differs" for check in shapes):
        return
    yield [checks.round_trip(given.parameters, ask.arrays("parameters"))]
    yield judge.trace(ask.arrays("trace", batch="batch"))
    yield judge.group(
        "optimizer", ask.arrays("apply", gradients="gradients", times=reference.APPLICATIONS), "Optimizer"
    )

    ask.create({**small, **still})
    yield judge.group("step 1", ask.arrays("train", batches="first"), "Train step")
    rest = ask.arrays("train", batches="rest")
    yield judge.group(f"step {text.proof['steps']}", rest, "Train step")
    trained = ask.arrays("predict", batch="evaluation")
    yield [judge.tensor("trained logits", trained.get("logits"), "Train step")]

    yield _dropout(ask, text, {**small, **still})
    ask.create(small)  # dropout as the version has it: evaluation must not show it
    yield [judge.tensor("evaluation logits", ask.arrays("predict", batch="evaluation").get("logits"), "Model", None)]
    metric = ask.plain("evaluate", batch=ask.file("evaluation"))["metric"]
    yield [Check("evaluate", abs(metric - given.golden.metric), 1e-6, "Evaluation")]
    ask.create({}, parameters=False)
    yield statistics.initialisation(text, ask.arrays("parameters"))
    images, labels = given.data
    size = int(text.hyperparameters["BATCH_SIZE"])
    yield statistics.plain_batches(images, labels, size, ask.arrays("batches", shuffle=False, epochs=1, seed=1))
    yield statistics.shuffled_batches(images, labels, ask.arrays("batches", shuffle=True, epochs=2, seed=1))


def _dropout(ask: _Asker, text: Text, still: dict[str, Any]) -> list[Check]:
    """Each dropout layer with the others off: in training against its rate, in evaluation against nothing at all."""
    if not text.dropout:
        return []
    found = []
    feeds = [one["feeds"] for one in text.dropout]
    ask.create(still)
    base = {
        training: ask.arrays("activations", batch="evaluation", layers=feeds, training=training)
        for training in (True, False)
    }
    for one in text.dropout:
        name, key = one["name"], f"input/{one['feeds']}"
        ask.create({constant: value for constant, value in still.items() if constant != one["constant"]})
        seen = {
            training: ask.arrays("activations", batch="evaluation", layers=feeds, training=training)
            for training in (True, False)
        }
        rate = float(text.hyperparameters[one["constant"]])
        found += statistics.dropout(name, rate, base[True].get(key), seen[True].get(key), name)
        error = float("inf")
        if key in seen[False] and key in base[False]:
            error = float(np.linalg.norm(seen[False][key] - base[False][key]) / np.linalg.norm(base[False][key]))
        found.append(Check(f"{name} absent in evaluation", error, 1e-5, "Model", name))
    return found


class _Asker:
    """Requests with arrays in and out, as files in the worker's scratch folder, each written once."""

    def __init__(self, worker: Worker, given: Given):
        self.worker, self.given = worker, given
        train = given.train
        self._contents = {
            "parameters": given.parameters,
            "batch": {key: array[0] for key, array in train.items()},
            "first": {key: array[:1] for key, array in train.items()},
            "rest": {key: array[1:] for key, array in train.items()},
            "evaluation": given.evaluation,
            "gradients": given.gradients,
        }

    def plain(self, op: str, **args: Any) -> dict[str, Any]:
        return self.worker.ask(op, **args)

    def create(self, constants: dict[str, Any], parameters: bool = True) -> dict[str, Any]:
        return self.worker.ask(
            "create", seed=1, constants=constants, parameters=self.file("parameters") if parameters else None
        )

    def arrays(self, op: str, **args: Any) -> dict[str, np.ndarray]:
        """Ask for arrays; arguments that name given contents are replaced by their files."""
        out = Path(self.worker.path("out.safetensors"))
        known: dict[str, Any] = {
            key: self.file(value) if isinstance(value, str) and value in self._contents else value
            for key, value in args.items()
        }
        self.worker.ask(op, out=str(out), **known)
        try:
            return load_file(out)
        except Exception as error:
            raise WorkerFailed(f"expected a safetensors file from '{op}', received {error}") from error
        finally:
            out.unlink(missing_ok=True)

    def file(self, name: str) -> str:
        path = Path(self.worker.path(f"{name}.safetensors"))
        if not path.exists():
            save_file({key: np.ascontiguousarray(array) for key, array in self._contents[name].items()}, path)
        return str(path)


def _judged(text: Text, framework: Framework, version: Path, dtype: str, found: list[Check]) -> Cell:
    """Sum up: waive what text.toml waives within its own bound, and find the first departure."""
    reasons = []
    for check in found:
        waiver = _waiver(text, framework, dtype, check) if check.verdict == "differs" else None
        if waiver:
            check.verdict, check.bound = "waived", waiver["bound"]
            reasons.append(waiver["reason"])
    wrong = next((check for check in found if check.verdict == "differs"), None)
    if wrong is None:
        return Cell(
            framework.slug, dtype, "waived" if reasons else "proven", found, None, reasons[0] if reasons else None
        )
    line = locate(version, wrong.section, wrong.word or wrong.layer, wrong.use)
    where = {"layer": wrong.layer, "section": wrong.section, "line": line}
    return Cell(
        framework.slug,
        dtype,
        "differs",
        found,
        where,
        f"{wrong.name}: error {wrong.error:.2g}, bound {wrong.bound:.2g}",
    )


def _waiver(text: Text, framework: Framework, dtype: str, check: Check) -> dict[str, Any] | None:
    from fnmatch import fnmatch

    for waiver in text.waivers:
        fits = framework.slug in waiver["frameworks"] and waiver["dtype"] == dtype and check.error <= waiver["bound"]
        if fits and any(fnmatch(check.name, pattern) for pattern in waiver["checks"]):
            return waiver
    return None
