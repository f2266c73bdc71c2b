"""Questions one cell: which requests a worker gets, in which order, and what its answers are compared with.

The order is that of blame. What comes earlier explains what comes later, so the first check that fails is where to
look: constants, parameters, activations in order of computation, loss, gradients, the optimizer alone, whole steps,
dropout, the mode of the steps, steps of a model as built, initialisation, data, evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from traceback import format_exc
from typing import Any

import numpy as np

from dlrosetta import reference
from dlrosetta.client import WorkerFailed, one_line
from dlrosetta.frameworks import Framework
from dlrosetta.proof import checks, modes, parallel, statistics
from dlrosetta.proof.asking import Answering, Asker, Given
from dlrosetta.proof.checks import Check, Judge
from dlrosetta.sections import locate, section_of
from dlrosetta.texts import Text

PHOTOS_BATCH, FILES_BATCH = 3, 5  # of the packaged photos and X-rays: the last batch is a smaller one


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
    scope: str = "all"  # what was asked: all that the text says, or its "evaluation" alone
    hashes: dict[str, str] = field(default_factory=dict)  # of what was asked, unless it was changed meanwhile

    def document(self) -> dict[str, Any]:
        return {
            "framework": self.framework,
            "dtype": self.dtype,
            "verdict": self.verdict,
            "scope": self.scope,
            "checks": [check.document() for check in self.checks],
            "first_departure": self.first_departure,
            "reason": self.reason,
            "hashes": self.hashes,
        }


def examine(
    worker: Answering,
    text: Text,
    framework: Framework,
    version: Path,
    given: Given,
    dtypes: list[str],
    thorough: bool = True,
) -> Iterator[Cell]:
    """Prove one version in each dtype, with one worker, or on several devices with a team. What goes wrong becomes a
    cell's verdict, never an exception.

    Unless `thorough`, the first departure is the end of a cell's questions: it is where to look.
    """
    try:
        facts = worker.ask("hello", layout=dict(framework.layout))
    except WorkerFailed as error:
        for dtype in dtypes:
            yield failure(text, framework, version, dtype, error)
        return
    text = replace(text, waivers=[one for one in text.waivers if one.get("devices", 1) in (1, given.devices)])
    dead: WorkerFailed | None = None
    able = [dtype for dtype in dtypes if dtype in framework.dtypes]
    questions = _questions if given.devices == 1 else parallel.questions
    for dtype in dtypes:
        if dtype not in framework.dtypes:
            reason = framework.cannot.get(dtype, f"{framework.title} does not train in {dtype} (framework.toml)")
            yield Cell(framework.slug, dtype, "cannot", reason=reason)
            continue
        vague = checks.vague(given.goldens[None]) if dtype == "bfloat16" else None
        if vague:
            yield Cell(framework.slug, dtype, "cannot", reason=vague)
            continue
        found: list[Check] = []
        try:
            if dead is not None:
                raise dead
            behaviour = dtype == able[0] and dtype != "bfloat16"  # which could not tell dropout's scale from rounding
            for group in questions(worker, text, framework, version, given, dtype, behaviour):
                found.extend(group)
                if not thorough and any(_departs(text, framework, dtype, check) for check in group):
                    break
            cell = _judged(text, framework, version, dtype, found, given.devices)
        except WorkerFailed as error:
            dead = None if worker.alive() else error
            cell = failure(text, framework, version, dtype, error, found)
        except Exception as error:  # whatever a worker answers is its own cell's affair
            told = WorkerFailed(
                f"an answer could not be used: {type(error).__name__}: {one_line(error)}", detail=format_exc()
            )
            cell = failure(text, framework, version, dtype, told, found)
        cell.facts = facts
        cell.scope = scope(text, framework)
        yield cell


def scope(text: Text, framework: Framework) -> str:
    """How much of a text a framework can be asked: "all", or of one that trains, where it does not, "evaluation"."""
    return "evaluation" if text.trains and not framework.trains(text.trains) else "all"


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


def _questions(
    worker: Answering, text: Text, framework: Framework, version: Path, given: Given, dtype: str, behaviour: bool
) -> Iterator[list[Check]]:
    """Ask in order of blame; yield the checks of each answer. Ends early where the parameters do not match.

    Behaviour has no precision of its own: it is asked about in the first precision only, and never in bfloat16.
    """
    golden = given.golden(text, framework)
    trains = framework.trains(text.trains)
    judge = Judge(text, golden, dtype, lambda check: _waiver(text, framework, dtype, check) is not None, trains)
    ask = Asker(worker, given, text)
    constants = ask.open(version, dtype, framework, trains)
    yield checks.configuration(text, constants, trains)

    small = {"BATCH_SIZE": text.proof["batch"]}
    still = {**small, **{one["constant"]: 0.0 for one in text.dropout}}
    # A batch smaller than BATCH_SIZE, as an epoch's last may be: its loss is its own average.
    shapes = checks.shapes(text.parameters, ask.create({**still, "BATCH_SIZE": small["BATCH_SIZE"] + 1})["shapes"])
    yield shapes
    if any(check.verdict == "differs" for check in shapes):
        return
    yield [checks.round_trip(given.parameters, ask.arrays("parameters"))]
    # Without training a trace is of evaluation mode, which running statistics make another.
    kind = "" if trains or not (text.trains and text.statistics) else "evaluation "
    yield judge.trace(ask.arrays("trace", batch="evaluation" if kind else "batch"), kind)
    # More examples than the trace has: a rare case (a bright border) is to be the model's fault, not the train step's.
    logits = judge.tensor("evaluation logits", ask.arrays("predict", batch="evaluation").get("logits"), "Model")
    if judge.suspect:
        logits.layer, logits.use = judge.suspect.layer, judge.suspect.use
    if not trains and logits.verdict == "differs":  # `predict` is the version's own: is it that, or the model?
        ask.create(still)  # which it may have changed
        seen = judge.tensor("evaluation logits", ask.arrays("trace", batch="evaluation").get("logits"), "Model")
        logits = logits if seen.verdict == "differs" else replace(logits, section="Evaluation", layer=None, use=False)
    yield [logits]
    # Large numbers: an activation or a gradient that is clipped where small ones never come.
    if not text.loud:
        ask.create(still, "loud parameters")
    yield judge.trace(ask.arrays("trace", batch="loud" if text.loud else "batch"), f"loud {kind}")
    if not text.loud:
        ask.create(still)
    if trains:
        yield from _training(ask, text, judge, still)
    if behaviour:
        yield from _behaviour(ask, text, given, judge, small, trains)


def _training(ask: Asker, text: Text, judge: Judge, still: dict[str, Any]) -> Iterator[list[Check]]:
    """The optimizer alone, then the version's own train steps."""
    kinds = ["", "loud ", *(["quiet "] if reference.quiet(text) else [])]
    for kind in kinds:
        applied = {"gradients": f"{kind}gradients", "times": reference.APPLICATIONS}
        yield judge.group(f"{kind}optimizer", ask.arrays("apply", **applied), "Optimizer")
        ask.create(still)

    last = {**still, "BATCH_SIZE": text.proof["batch"] + 1}  # every batch as an epoch's last: an average is its own
    ask.create(last)
    found, first = _trained(ask, judge, "step 1", "first")
    yield found
    found, rest = _trained(ask, judge, f"step {text.proof['steps']}", "rest")
    yield found
    losses = np.concatenate([first, rest])
    trained = ask.arrays("predict", batch="evaluation").get("logits")
    yield judge.asked(
        [judge.tensor("losses", losses, "Train step"), judge.tensor("trained logits", trained, "Train step")]
    )
    if text.loud:
        ask.create(last)
        yield _trained(ask, judge, "loud step 1", "loud first")[0]


def _trained(ask: Asker, judge: Judge, name: str, batches: str) -> tuple[list[Check], np.ndarray]:
    """The checks of what train steps made of parameters and optimizer, and the losses; the rest is let go of."""
    arrays = ask.arrays("train", batches=batches)
    return judge.group(name, arrays, "Train step"), arrays["losses"]


def _behaviour(
    ask: Asker, text: Text, given: Given, judge: Judge, small: dict[str, Any], trains: bool
) -> Iterator[list[Check]]:
    """What a version does beside arithmetic: dropout, modes, initialisation, data, evaluation."""
    if trains:
        yield from modes.dropout(ask, text, small)
        yield modes.steps(ask, text, small, given.parameters, float(judge.golden.tensors["loss"].samples[0]))
        yield modes.alone(ask, text, small)
        yield modes.built(ask, text, small)
    if not text.trains:
        yield from _photos(ask, text, judge)
        return
    inputs, labels = given.data[0]
    if text.files:
        yield from _files(ask, text, judge, list(inputs), labels, trains)
    else:
        yield from _data(ask, text, inputs, labels, trains)
    ask.create(small)  # dropout as the version has it: evaluation must not show it
    logits = judge.tensor("evaluation logits", ask.arrays("predict", batch="evaluation").get("logits"), "Model")
    yield [replace(logits, name="evaluation logits beside dropout")]
    yield modes.causal(ask, text)
    if ask.evaluates:
        ask.create(small, "telling")
        yield modes.evaluation(ask, judge.golden.metric)
    known = not text.files  # of files, `evaluate` has been asked about the test data already
    if known and judge.dtype == "float32" and "EPOCHS" in text.hyperparameters:  # loaders yield float32
        ask.create_telling({"EPOCHS": 0, **{one["constant"]: 0.0 for one in text.dropout}})
        metric = ask.evaluate("test")
        own = ask.plain("fit")["metric"] if trains else ask.evaluate(None)
        yield [Check("test data", abs(own - metric) / max(1.0, abs(metric)), 1e-6, "Data", word="load_data")]


def _photos(ask: Asker, text: Text, judge: Judge) -> Iterator[list[Check]]:
    """The packaged photos as the version's loader yields them, and what its own `evaluate` makes of them in full size;
    in batches that do not come out even.
    """
    shapes = checks.shapes(text.full_parameters, ask.create_full({})["shapes"], "full size ")
    yield shapes
    if any(check.verdict == "differs" for check in shapes) or judge.dtype != "float32":  # loaders yield float32
        return
    ask.create_telling({"BATCH_SIZE": PHOTOS_BATCH})
    received = ask.arrays("batches", shuffle=False, epochs=1, seed=1)
    names = reference.photo_names()
    yield [statistics.batch_sizes(len(names), PHOTOS_BATCH, received["sizes"])]
    images = dict(zip(names, received["inputs"], strict=False))
    yield [judge.tensor(f"photo/{name}", images.get(name), "Data") for name in names]
    yield [judge.tensor("features", ask.arrays("features").get("features"), "Evaluation")]


def _files(
    ask: Asker, text: Text, judge: Judge, paths: list[Path], labels: np.ndarray, trains: bool
) -> Iterator[list[Check]]:
    """The same where examples are image files: as evaluation sees them, in batches that do not come out even, and
    as training does, if any, each cut out anywhere and every other one flipped.
    """
    odd = {"BATCH_SIZE": FILES_BATCH}
    shapes = checks.shapes(text.full_parameters, ask.create_full(odd)["shapes"], "full size ")
    yield shapes
    if any(check.verdict == "differs" for check in shapes) or judge.dtype != "float32":  # loaders yield float32
        return
    yield statistics.initialisation(text.full_parameters, ask.arrays("parameters"))
    plain = ask.arrays("batches", shuffle=False, epochs=1, seed=1)
    yield [
        statistics.batch_sizes(len(labels), FILES_BATCH, plain["sizes/0"]),
        judge.tensor("train images", plain["inputs/0"], "Data"),
        Check("labels", float(not np.array_equal(plain["labels/0"], labels)), 0.0, "Data"),
    ]
    if not trains:
        return
    wholes = reference.images(text, paths, np.float64)
    received = ask.arrays("batches", shuffle=True, epochs=statistics.EPOCHS, seed=1)
    yield statistics.augmented_batches(wholes, labels, received)


def _data(ask: Asker, text: Text, inputs: np.ndarray, labels: np.ndarray, trains: bool) -> Iterator[list[Check]]:
    """Everything as the version has it, in full size: what it draws at the start, and what its loader yields."""
    received = ask.create_full({})["shapes"]
    if text.constants != text.hyperparameters:
        shapes = checks.shapes(text.full_parameters, received, "full size ")
        yield shapes
        if any(check.verdict == "differs" for check in shapes):
            return
    yield statistics.initialisation(text.full_parameters, ask.arrays("parameters"))
    size = int(text.hyperparameters["BATCH_SIZE"])
    plain = ask.arrays("batches", shuffle=False, epochs=1, seed=1)
    yield statistics.plain_batches(text.input, inputs, labels, size, plain)
    if trains:
        yield statistics.shuffled_batches(inputs, labels, ask.arrays("batches", shuffle=True, epochs=2, seed=1))


def _judged(text: Text, framework: Framework, version: Path, dtype: str, found: list[Check], devices: int = 1) -> Cell:
    """Sum up: waive what text.toml waives within its own bound, and find the first departure."""
    reasons = []
    for check in found:
        waiver = _waiver(text, framework, dtype, check) if check.verdict == "differs" else None
        if waiver:
            check.verdict, check.bound = "waived", waiver["bound"]
            reasons.append(waiver["reason"])
    wrong = next((check for check in found if check.verdict == "differs"), None)
    variant = text.variant_for(framework.slug, devices)
    if variant and variant["constants"]:
        reasons.insert(0, variant["reason"])
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


def _departs(text: Text, framework: Framework, dtype: str, check: Check) -> bool:
    return check.verdict == "differs" and _waiver(text, framework, dtype, check) is None


def _waiver(text: Text, framework: Framework, dtype: str, check: Check) -> dict[str, Any] | None:
    from fnmatch import fnmatch

    for waiver in text.waivers:
        fits = framework.slug in waiver["frameworks"] and waiver["dtype"] == dtype and check.error <= waiver["bound"]
        if fits and any(fnmatch(check.name, pattern) for pattern in waiver["checks"]):
            return waiver
    return None
