"""The roof: the fastest matrix product and the fastest copy that any framework reaches on this device in this run.

A speed in examples a second means nothing on another machine; its share of what the device can do does. What that is
nobody says of a shared machine with so many cores and so much of its memory's bandwidth, so it is measured, with what
is at hand: the frameworks' own products and copies. One that reaches more than another shows that the device can, so
the best of all is the roof for all. It is a lower bound of what is possible, and no peak of a data sheet: a framework
that is the only one measured is its own roof.

Products are of float32 matrices that grow until the rate stops to rise. So do convolutions, of 3×3 and as many channels
in as out: they say whether a framework has them at the rate of its products, and set no roof (some need fewer
operations than they are credited with). A copy is of an array much larger than the largest cache, and moves it twice:
it is read and written. (What the memory itself moves may be more: a line that is written is read first, unless the copy
takes care.) Frameworks are measured one at a time, with the threads of a comparison. Of several rounds the fastest
counts, because a roof is a maximum: what disturbs a round makes it slower.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrosetta import machine
from dlrosetta.client import PATIENCE, Worker, WorkerFailed
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework

ROUND_S = 0.1  # a round lasts at least this long
SIZES = (256, 512, 1024, 2048, 4096, 8192)  # of matrices,
CHANNELS = (32, 64, 128, 256, 512)  # of convolutions: the next is tried until one takes long, or
STEADY, RISING = 2, 1.05  # so many in turn are not faster than those before by 5 %
LATE = 0.5  # reading a result behind a fence that waits takes nothing; more than this share of a round is no fence
LINEAR = 1.3  # twice the work takes twice as long; less than this in every one of
TRIES = 4  # so many rounds is not noise, which makes nothing faster
NUMBER = 4  # bytes of a float32
LARGE = 64 * 2**20  # bytes: a copied array is at least so large,
CACHES = 4  # or so many times the largest cache,
OF_MEMORY = 16  # and at most this part of the memory
RATES = ("flops_per_s", "bytes_per_s", "convolution_flops_per_s")
PIXELS = 16 * 32 * 32 * 3 * 3  # of a convolution: images, height, width, and those of its kernel


@dataclass(frozen=True)
class Effort:
    """How thoroughly: sizes are tried until one takes `longest` seconds; of how many rounds the fastest counts; at most
    how many bytes are copied, or None for as many as memory and caches ask for.
    """

    longest: float = 0.5
    rounds: int = 5
    copied: int | None = None


FULL = Effort()
# Where caches are larger than what is copied, they serve it: it is then faster than memory.
QUICK = Effort(longest=0.03, rounds=3, copied=LARGE)
Say = Callable[[str], None]


def nothing() -> dict[str, dict[str, Any]]:
    """The entry `roof` of a result, of no framework yet."""
    return {**{rate: {} for rate in RATES}, "reasons": {}}


def measure(
    workers: Mapping[str, Worker], say: Say = lambda line: None, effort: Effort = FULL
) -> dict[str, dict[str, Any]]:
    """Ask each worker, by its framework's slug, for its products, copies and convolutions, one worker at a time.

    Returns {"flops_per_s": {slug: …}, "bytes_per_s": {slug: …}, "convolution_flops_per_s": {slug: …}, "reasons": {slug:
    why it has none, or no convolution}}, the entry `roof` of a result. Workers have been greeted ("hello"). Arrays stay
    in them until `open` or their end, and they compute in float32 from then on: in a comparison this comes last, after
    memory.
    """
    found = nothing()
    for slug, worker in sorted(workers.items()):
        say(f"measuring {slug}")
        try:
            flops, moved = product(worker, effort), copy(worker, effort)
            found["flops_per_s"][slug], found["bytes_per_s"][slug] = flops, moved
            found["convolution_flops_per_s"][slug] = convolution(worker)
        except WorkerFailed as error:
            found["reasons"][slug] = str(error)
    return found


def measure_all(
    frameworks: Iterable[Framework],
    pythons: Mapping[str, Path | RosettaError],
    patience: float = PATIENCE,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """The same of frameworks that are started for it, each when the one before has ended; `pythons` are their
    interpreters, or why they have none.
    """
    from dlrosetta.proof import run

    found = nothing()
    for framework in frameworks:
        python = pythons[framework.slug]
        if isinstance(python, RosettaError):
            found["reasons"][framework.slug] = python.message
            continue
        say(f"starting {framework.slug}")
        try:
            with run.start(framework, python, machine.threads(), patience=patience) as worker:
                worker.ask("hello", layout=dict(framework.layout))
                measured = measure({framework.slug: worker}, say)
        except WorkerFailed as error:
            measured = {"reasons": {framework.slug: str(error)}}
        for key, entries in measured.items():
            found[key].update(entries)
    return found


def document(roof: dict[str, Any]) -> dict[str, Any]:
    """`rosetta roof --json`."""
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"schema": 1, "date": date, "dtype": "float32", "machine": machine.facts(), "roof": roof}


def best(rates: Mapping[str, float]) -> float | None:
    """The roof: the largest of the rates; None where there are none."""
    return max(rates.values(), default=None)


def product(worker: Worker, effort: Effort = FULL) -> float:
    """FLOPs a second of the fastest of several rounds of matrix products, of the size that is fastest."""
    return _growing(worker, "product", {size: 2 * size**3 for size in SIZES}, effort)


def convolution(worker: Worker) -> float:
    """The same of convolutions, by how many channels they have; quick, for no roof depends on it."""
    return _growing(worker, "convolution", {size: 2 * PIXELS * size**2 for size in CHANNELS}, QUICK)


def copy(worker: Worker, effort: Effort = FULL) -> float:
    """Bytes a second, read and written, of the fastest of several rounds of copies."""
    size = min(copied_bytes(), effort.copied or copied_bytes()) // NUMBER
    return 2 * NUMBER * size / _fastest(worker, "copy", size, effort.rounds)


def _growing(worker: Worker, kind: str, flops: Mapping[int, int], effort: Effort) -> float:
    """FLOPs a second of the size that is fastest; `flops` are those of each size, from small to large."""
    rates: dict[int, float] = {}
    for size, each in flops.items():
        count, seconds = _sized(worker, kind, size)
        seconds = min(seconds, _taken(worker.ask("work", kind=kind, size=size, count=count)))
        rates[size] = each * count / seconds
        found = list(rates.values())
        older = found[:-STEADY]
        if seconds / count > effort.longest or (older and max(found) < RISING * max(older)):
            break
    size = max(rates, key=lambda size: rates[size])
    return flops[size] / _fastest(worker, kind, size, effort.rounds)


def copied_bytes() -> int:
    """How large the copied array is: a multiple of 1 MiB."""
    import psutil

    wanted = max(LARGE, CACHES * machine.largest_cache())
    return max(1, min(wanted, psutil.virtual_memory().total // OF_MEMORY) >> 20) << 20


def _sized(worker: Worker, kind: str, size: int) -> tuple[int, float]:
    """How often it is to be done for a round to last `ROUND_S`, and the seconds that so many took."""
    worker.ask("work", kind=kind, size=size, count=1)  # makes the arrays, compiles, warms
    count, seconds, tries = 1, _taken(worker.ask("work", kind=kind, size=size, count=1)), 0
    while seconds < ROUND_S:
        few, before = count, seconds
        count = max(2 * few, math.ceil(few * min(10, 1.2 * ROUND_S / seconds)))
        seconds = _taken(worker.ask("work", kind=kind, size=size, count=count))
        tries = 0 if seconds >= LINEAR * before else tries + 1
        if tries == TRIES:
            raise _idle(few, before, count, seconds)
    return count, seconds


def _idle(few: int, seconds: float, many: int, longer: float) -> WorkerFailed:
    return WorkerFailed(
        f"its time does not grow with the work: {few} took {seconds:.3g} s, {many} {longer:.3g} s. "
        "Next: make `work` of its adapter compute each time"
    )


def _taken(answer: dict[str, Any]) -> float:
    """Seconds of a round, also of one that has not ended when it says so; never 0."""
    return max(1e-9, answer["seconds"] + (answer["late_s"] if answer["late_s"] > answer["seconds"] else 0))


def _fastest(worker: Worker, kind: str, size: int, rounds: int) -> float:
    """Seconds of one, in the fastest round. Raises WorkerFailed where the fence does not wait for what is timed."""
    count, _ = _sized(worker, kind, size)
    answers = [worker.ask("work", kind=kind, size=size, count=count) for _ in range(rounds)]
    seconds = min(answer["seconds"] for answer in answers)
    # Not of a copy, whose result is large: some hand out such a one by a copy that they keep.
    late = min(answer["late_s"] for answer in answers)
    if kind != "copy" and late > LATE * seconds:
        raise WorkerFailed(
            f"its fence returns before the work is done: a round of {count} took {seconds:.3g} s, and its last result "
            f"{late:.3g} s more. Next: make `synchronize` of its adapter wait"
        )
    twice = math.inf
    for _ in range(TRIES):
        twice = min(twice, worker.ask("work", kind=kind, size=size, count=2 * count)["seconds"])
        if twice >= LINEAR * seconds:
            return min(seconds / count, twice / (2 * count))
        seconds = min(seconds, worker.ask("work", kind=kind, size=size, count=count)["seconds"])
    raise _idle(count, seconds, 2 * count, twice)
