"""One visit: look at the machine, measure what the frameworks reach on it, and say what is amiss.

It is over in three minutes, however many frameworks there are: each has its share of the time that is left, and where
that is up before a text's step was measured, the step is what is left out.
"""

from __future__ import annotations

import datetime
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dlrosetta import environments, machine, roof, work
from dlrosetta.client import Worker, WorkerFailed
from dlrosetta.doctor import bands, causes, facts
from dlrosetta.frameworks import Framework
from dlrosetta.proof import HOLDING, run
from dlrosetta.texts import Text

TIME_S = 150.0  # for all frameworks together; what is under way then is ended
LEAST_S = 3.0  # that the one under way, or its step, gets all the same
UP = "{}: the time for all frameworks was up. Next: name fewer with --frameworks, or wait until others are done"
ROUND_S, ROUNDS = 0.2, 3  # of steps: a round lasts at least so long, and the fastest counts
BATCHES = 2  # in memory
STEP = "step_flops_per_s"

Say = Callable[[str], None]


def document(
    ready: Iterable[Framework],
    not_ready: list[str],
    text: Text,
    folders: Iterable[Path],
    patience: float,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """`rosetta doctor --json`: what was seen, what frameworks with `ready` environments reach of products, copies,
    convolutions and steps of the text, and what is wrong. `folders` hold the results that bands are taken from.
    """
    say("looking")
    found = facts.look(names=causes.NAMES)
    found.numpy_flops = facts.numpy_flops()
    wanted, end = list(ready), time.monotonic() + TIME_S
    counted, reached, steps = work.count(text), roof.nothing(), dict[str, Any]()
    found.intensity = counted.flops / counted.bytes
    found.convolves = any(spec["role"] == "conv" for spec in text.full_parameters.values())
    found.slow_on_cpu = {one.slug: one.slow_on_cpu for one in wanted if one.slow_on_cpu}
    found.bands = bands.find(folders, text.name)
    for number, framework in enumerate(wanted):
        left = end - time.monotonic()
        if left <= 0:
            reached["reasons"][framework.slug] = UP.format("not measured")
            continue
        say(f"measuring {framework.slug}")
        share = left / (len(wanted) - number)
        _measure(framework, text, patience, left, share, found, reached, steps, say)
    found.rates = {rate: dict(reached[rate]) for rate in roof.RATES}
    found.rates[STEP] = {}
    for slug, step in steps.items():
        framework = next(one for one in wanted if one.slug == slug)
        if "items_per_second" in step:
            each = counted.flops if framework.trains(text.trains) else counted.flops_forward
            found.rates[STEP][slug] = step["flops_per_s"] = step["items_per_second"] * each
    return {
        "schema": 1,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {"class": machine.kind(), **found.machine()},
        "vector": machine.vector(found.flags),
        "roof": reached,
        "text": text.name,
        "work": counted.document(),
        "steps": steps,
        "bands": {rate: {slug: list(band) for slug, band in some.items()} for rate, some in found.bands.items()},
        "not_ready": not_ready,
        "findings": [finding.document() for finding in causes.diagnose(found)],
    }


def _measure(
    framework: Framework,
    text: Text,
    patience: float,
    left: float,
    share: float,
    found: facts.Facts,
    reached: dict[str, dict[str, Any]],
    steps: dict[str, Any],
    say: Say,
) -> None:
    """What one framework reaches, into `found`, `reached` and `steps`; its failure is its own."""
    slug, begin = framework.slug, time.monotonic()
    try:
        python = environments.ensure(framework)
        if facts.has_old_mkl(python.parent.parent):
            found.old_mkl.append(slug)
        with _sample(), run.start(framework, python, machine.threads(), patience=patience) as worker:
            watch = _Watch(worker.pid)
            with _limited(worker, left) as up:
                told = worker.ask("hello", layout=dict(framework.layout))
                found.workers[slug] = {key: told.get(key) for key in ("version", "device", "threads")}
                for key, entries in roof.measure({slug: worker}, say, roof.QUICK).items():
                    reached[key].update(entries)
            if up.is_set():
                reached["reasons"][slug] = UP.format("not measured to its end")
                return
            found.meanwhile[slug] = watch.others()
            with _limited(worker, share - (time.monotonic() - begin)) as up:
                steps[slug] = _step(framework, text, worker)
            if up.is_set():
                steps[slug] = {"reason": UP.format("not measured")}
            elif worker.alive():  # else what it worked would count as others'
                found.meanwhile[slug] = max(found.meanwhile[slug], watch.others())
    except WorkerFailed as error:
        reached["reasons"][slug] = str(error)


@contextmanager
def _limited(worker: Worker, seconds: float) -> Iterator[threading.Event]:
    """End the worker after so many seconds; the event says that they were up."""
    up = threading.Event()

    def stop() -> None:
        up.set()
        worker.end()

    timer = threading.Timer(max(LEAST_S, seconds), stop)
    timer.daemon = True
    timer.start()
    try:
        yield up
    except WorkerFailed as error:
        if up.is_set():
            raise WorkerFailed(UP.format("not measured")) from error
        raise
    finally:
        timer.cancel()


def _step(framework: Framework, text: Text, worker: Worker) -> dict[str, Any]:
    """Items a second of the text's step, the fastest of some rounds, and whether the version is proven here; else why
    it has none.
    """
    reason = run.why_not(text, framework, 1)
    if reason is not None:
        return {"reason": reason}
    remembered = run.recall(text, framework, "float32")
    proven = remembered is not None and remembered["verdict"] in HOLDING
    names = text.names_for(framework.slug, framework.version)
    trains, constants = framework.trains(text.trains), list(text.hyperparameters)
    try:
        worker.ask(
            "open", version=str(run.version_of(text, framework)), dtype="float32", layers=text.full_layers,
            constants=constants, names=names, trains=trains, labels=text.trains, files=text.files, switches=[],
        )  # fmt: skip
        worker.ask("create", seed=0, parameters=None, constants=None)
        size = worker.ask("prepare", count=BATCHES)["batch_size"]
        worker.ask("steps", count=1)  # compiles
        seconds = worker.ask("steps", count=1)["seconds"]
        count = max(1, round(ROUND_S / max(1e-6, seconds)))
        fastest = min(worker.ask("steps", count=count)["seconds"] for _ in range(ROUNDS)) / count
    except WorkerFailed as error:
        return {"reason": str(error)}
    return {"items_per_second": size / fastest, "proven": proven}


class _Watch:
    """How many cores others than a worker and this process keep busy, from now on."""

    def __init__(self, pid: int):
        import psutil

        self.pid, self.psutil = pid, psutil
        self.begin, self.before = time.monotonic(), self._busy()

    def others(self) -> float:
        return max(0.0, (self._busy() - self.before) / max(1e-6, time.monotonic() - self.begin))

    def _busy(self) -> float:
        """Seconds of all processors that others had; children of the worker that have ended are its own."""
        times = self.psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted within user and nice
        for pid in (self.pid, os.getpid()):
            with suppress(self.psutil.Error):
                own = self.psutil.Process(pid)
                busy -= sum(own.cpu_times()[:4] if pid == self.pid else own.cpu_times()[:2])
                for child in own.children(recursive=True) if pid == self.pid else ():
                    with suppress(self.psutil.Error):
                        busy -= sum(child.cpu_times()[:2])
        return busy


class _sample:
    """Workers that are started within see the sample that ships in the package: nothing else is read or fetched."""

    def __enter__(self) -> None:
        self.before = os.environ.get("ROSETTA_DATA")
        os.environ["ROSETTA_DATA"] = "sample"

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            del os.environ["ROSETTA_DATA"]
        else:
            os.environ["ROSETTA_DATA"] = self.before
