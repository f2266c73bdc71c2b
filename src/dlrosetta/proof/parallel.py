"""Questions one cell on several devices: one process that has them all, or a process a device.

Asked is what spreading a batch over devices can change: the version's own train steps, on the golden's batches as a
whole, of which each device gets its part. All else has been proven on one device.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from dlrosetta.client import Worker, WorkerFailed
from dlrosetta.frameworks import Framework
from dlrosetta.proof import checks
from dlrosetta.proof.asking import Answering, Asker, Given
from dlrosetta.proof.checks import Check, Judge
from dlrosetta.texts import Text


class Team:
    """Workers that make one process group: each request goes to all of them at once, for each may wait for the others.

    What the first answers is the answer. Of the batches of train steps each takes its own part; each writes a file of
    its own (`written`).
    """

    def __init__(self, workers: list[Worker]):
        self.workers = workers

    def ask(self, op: str, **args: Any) -> dict[str, Any]:
        """Raises WorkerFailed where any of them fails, and ends the others, who may wait for it in vain."""
        failed: list[WorkerFailed] = []
        with ThreadPoolExecutor(len(self.workers)) as pool:
            asked = [pool.submit(self._ask, rank, op, args, failed) for rank in range(len(self.workers))]
        if failed:
            raise failed[0]  # which explains the others
        answers = [one.result() for one in asked]
        return answers[0]

    def _ask(self, rank: int, op: str, args: dict[str, Any], failed: list[WorkerFailed]) -> dict[str, Any]:
        mine = dict(args)
        if "out" in args:
            mine["out"] = str(self.written(args["out"], rank))
        if "batches" in args and len(self.workers) > 1:
            mine["part"] = [rank, len(self.workers)]
        try:
            return self.workers[rank].ask(op, **mine)
        except WorkerFailed as error:
            failed.append(error)
            if len(self.workers) > 1:
                for other in self.workers:
                    other.end()
            raise

    def written(self, out: str, rank: int) -> Path:
        """Where the worker of this rank writes what the first writes to `out`."""
        return Path(f"{out}.{rank}" if rank else out)

    def path(self, name: str) -> str:
        """A file in the first worker's scratch folder; the others read it too."""
        return self.workers[0].path(name)

    def alive(self) -> bool:
        return all(worker.alive() for worker in self.workers)


def questions(
    team: Answering, text: Text, framework: Framework, version: Path, given: Given, dtype: str, behaviour: bool
) -> Iterator[list[Check]]:
    """The same train steps as on one device, and whether they were spread at all."""
    assert isinstance(team, Team)
    judge, ask = Judge(text, given.golden(text, framework), dtype), Asker(team, given, text)
    yield checks.configuration(text, ask.open(version, dtype, framework, True))
    still = {"BATCH_SIZE": text.proof["batch"], **{one["constant"]: 0.0 for one in text.dropout}}
    shapes = checks.shapes(text.parameters, ask.create(still)["shapes"])
    yield shapes
    if any(check.verdict == "differs" for check in shapes):
        return
    losses = []
    for number, batches in ((1, "first"), (text.proof["steps"], "rest")):
        out = team.path("out.safetensors")
        arrays = ask.arrays("train", batches=batches)
        others = [_taken(team.written(out, rank)) for rank in range(1, len(team.workers))]
        yield judge.group(f"step {number}", arrays, "Train step")
        yield [_same(rank, arrays, other, text, number) for rank, other in enumerate(others, 1)]
        losses.append(np.mean([one["losses"] for one in (arrays, *others)], axis=0))
    logits = ask.arrays("predict", batch="evaluation").get("logits")
    yield [
        judge.tensor("losses", np.concatenate(losses), "Train step"),
        judge.tensor("trained logits", logits, "Train step"),
    ]
    used = ask.plain("spread", batch=ask.file("batch"))["devices"]
    yield [Check("devices", abs(used - given.devices), 0.0, "Train step")]


def _taken(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    finally:
        path.unlink(missing_ok=True)


def _same(rank: int, arrays: dict[str, np.ndarray], others: dict[str, np.ndarray], text: Text, step: int) -> Check:
    """What gradients move is the same to the last bit in every process: they add up the same parts in the same order.

    Running statistics are each process's own until the first one's are handed round.
    """
    compared = [name for name in arrays if name != "losses" and name.rsplit("/", 1)[-1] in text.trained]
    wrong = sum(name not in others or not np.array_equal(arrays[name], others[name]) for name in compared)
    return Check(f"step {step} of process {rank}", float(wrong), 0.0, "Train step")
