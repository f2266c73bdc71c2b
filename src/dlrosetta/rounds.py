"""Turns of cells that are timed side by side, until every interval is narrow or the time is up.

A round is a turn of each cell, in shuffled order, one active at a time. What is measured in a round: the train steps on
batches in memory; and, fewer times, the version's own loader alone, and both together. Every finished round is kept
(journal.py). A worker that dies is started once more and goes on; a turn through which the computer slept is taken
again: either costs the round in hand, no more.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from dlrosetta import drift, energy, intervals
from dlrosetta.client import Worker, WorkerFailed
from dlrosetta.journal import Journal

ROUND_S = 0.25  # a turn lasts at least this long, so that fences and clocks weigh nothing
LEAST_ROUNDS, MOST_ROUNDS = 10, 400  # with fewer than six there is no interval
INPUT_ROUNDS, LEAST_INPUT_ROUNDS = 6, 3  # of the loader; the fewer where half as much time again is up
MOST_BATCHES = 1024  # of a turn of the loader alone
NARROW = 0.02  # rounds go on until every interval is within ±2 % or the budget ends
WARM, WARM_ROUNDS = 0.05, 10  # warm once the last three rounds lie within 5 %, or after ten
RESTARTS = 1  # of a worker that dies while it is timed
SLEPT_S = 0.5  # seconds by which the clock that counts sleep may run ahead of the one that does not, within a turn
LATE_S, LATE_SHARE = 0.002, 0.05  # later than that, in seconds and of a turn, and a fence has not waited
KINDS = ("steps", "load", "both")


class Cell(Protocol):
    """What takes turns: one cell of a comparison."""

    worker: Worker | None
    batch_size: int
    steps: int
    counts: dict[str, int]  # batches a turn of its loader, by kind
    restarts: int
    samples: dict[str, list[float]]  # items a second, by kind
    device: dict[str, list[float]]  # the same by a GPU's own clock, where the framework reads it
    cores: list[float]  # cores that it kept busy, turn by turn
    joules: list[float]  # an item, where the machine tells, turn by turn
    reads: list[tuple[float, float]]  # seconds by which the last loss was late, and of the turn before

    @property
    def slug(self) -> str: ...


@dataclass
class Ended:
    """How the rounds of a comparison went."""

    why: str = "nothing"  # "narrow", "budget", "rounds"; "nothing" where nothing was timed
    seconds: float = 0.0
    drift: drift.Drift | None = None
    others: list[float] = field(default_factory=list)  # share of the machine that others took, turn by turn

    def document(self) -> dict[str, Any]:
        busy = sorted(self.others)[len(self.others) // 2] if self.others else None
        found = self.drift
        told = None if found is None else asdict(found)
        return {"why": self.why, "seconds": self.seconds, "drift": told, "others": busy}


def asleep_s() -> float:
    """A clock that only runs while the computer sleeps, from an arbitrary start, in seconds."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.time() - time.monotonic()


def warm(cell: Cell) -> None:
    """Take turns until they agree, then size a turn to `ROUND_S`."""
    speeds: list[float] = []
    for _ in range(WARM_ROUNDS):
        speeds.append(_ask(cell, "steps")[0])
        cell.steps = max(1, math.ceil(ROUND_S * speeds[-1] / cell.batch_size))
        last = speeds[-3:]
        if len(last) == 3 and max(last) <= min(last) * (1 + WARM):
            return


def take(
    cells: Sequence[Any],
    budget: float,
    guard: Callable[[Any, Callable[[], None]], None],
    reopen: Callable[[Any], None],
    say: Callable[[str], None],
    journal: Journal,
    inputs: bool = True,
    least: int = LEAST_ROUNDS,
) -> Ended:
    """Warm every cell and take at least so many rounds, of its loader too if `inputs`; `guard(cell, action)` lets an
    action fail alone, `reopen` starts a cell's worker anew.
    """
    for cell in cells:
        say(f"warming {cell.slug}")
        guard(cell, lambda cell=cell: warm(cell))  # type: ignore[misc]
    ended = Ended()
    before = _recall(cells, journal)
    order, begin = random.Random(len(journal.lines)), time.monotonic()

    def turn_of_each(kind: str, number: int) -> None:
        turn = [cell for cell in cells if cell.worker]
        order.shuffle(turn)
        say(f"round {number + 1}" if kind == "steps" else f"input {number + 1}")
        found: dict[str, tuple[float, ...]] = {}
        for cell in turn:
            guard(cell, lambda cell=cell: found.__setitem__(cell.slug, _turn(cell, kind, reopen, say, ended)))  # type: ignore[misc]
        for cell in turn:
            if cell.worker:
                _keep(cell, kind, *found[cell.slug])
        if found:
            spent = before + time.monotonic() - begin
            journal.add(kind=kind, turns={slug: list(one) for slug, one in found.items()}, seconds=spent)

    for number in range(len(journal.of("kind")), MOST_ROUNDS):
        timed = [cell for cell in cells if cell.worker]
        if not timed:
            break
        count = min(len(cell.samples["steps"]) for cell in timed)
        enough = count >= least
        spent = before + time.monotonic() - begin
        narrow = enough and all(intervals.of_median(cell.samples["steps"]).half_width <= NARROW for cell in timed)
        ended.why = "narrow" if narrow else "budget" if enough and spent > budget else "rounds"
        if ended.why != "rounds":
            break
        turn_of_each("steps", number)
    for number in range(INPUT_ROUNDS if inputs else 0):
        if number >= LEAST_INPUT_ROUNDS and before + time.monotonic() - begin > 1.5 * budget:
            break
        for kind in KINDS[1:]:
            if any(cell.worker and len(cell.samples[kind]) <= number for cell in cells):
                turn_of_each(kind, number)
    ended.seconds = before + time.monotonic() - begin
    timed = [cell for cell in cells if cell.worker and cell.samples["steps"]]
    if timed:
        count = min(len(cell.samples["steps"]) for cell in timed)
        ended.drift = drift.of_rounds([cell.samples["steps"][:count] for cell in timed])
    return ended


def _recall(cells: Sequence[Any], journal: Journal) -> float:
    """Give cells the samples of rounds that the journal kept; answer the seconds that those took."""
    spent = 0.0
    for line in journal.of("kind"):
        spent = max(spent, line["seconds"])
        for cell in cells:
            if cell.slug in line["turns"]:
                _keep(cell, line["kind"], *line["turns"][cell.slug])
    return spent


def _keep(cell: Any, kind: str, speed: float, cores: float, device: float | None = None) -> None:
    cell.samples[kind].append(speed)
    cell.cores.append(cores)
    if device is not None:
        cell.device[kind].append(device)


def _turn(
    cell: Any, kind: str, reopen: Callable[[Any], None], say: Callable[[str], None], ended: Ended
) -> tuple[float, ...]:
    """One turn: items a second, cores kept busy, and where a GPU's own clock is read items a second by that."""
    while True:
        slept = asleep_s()
        try:
            with _watched(cell, ended):
                found = _ask(cell, kind)
        except WorkerFailed as error:
            if cell.restarts >= RESTARTS or cell.worker.alive():
                raise
            cell.restarts += 1
            say(f"{cell.slug}: {error}; starting it once more")
            reopen(cell)
            warm(cell)
            continue
        if asleep_s() - slept <= SLEPT_S:
            return found
        say(f"{cell.slug}: the computer slept; this turn is taken again")


def _ask(cell: Any, kind: str) -> tuple[float, ...]:
    """One stretch of work, told as a turn. A step before it wakes threads and caches that slept while others worked."""
    if kind == "steps":
        cell.worker.ask("steps", count=1)
        before = energy.read()
        done = cell.worker.ask("steps", count=cell.steps)
        spent = energy.joules(before, energy.read())
        if spent is not None:
            cell.joules.append(spent / (cell.steps * cell.batch_size))
        return _rate(cell, cell.steps, done)
    _empty(cell)
    if kind == "both":
        cell.worker.ask("feed", count=1, work=True)
        if kind not in cell.counts:
            cell.counts[kind], seconds = 1, 0.0
            while seconds < ROUND_S / 2 and cell.counts[kind] < cell.steps:
                cell.counts[kind] = min(2 * cell.counts[kind], cell.steps)
                seconds = cell.worker.ask("feed", count=cell.counts[kind], work=True)["seconds"]
    count = cell.counts[kind]
    return _rate(cell, count, cell.worker.ask("feed", count=count, work=kind == "both"))


def _empty(cell: Any) -> None:
    """Take batches until the loader has to make them: one that works ahead has made some while others had their turn.
    How many it yields in a turn is found by doubling: it may read image files, or cut up what lies in memory.
    """
    count = cell.counts.get("load", 1)
    while cell.worker.ask("feed", count=count, work=False)["seconds"] < ROUND_S / 2 and count < MOST_BATCHES:
        count *= 2
    cell.counts["load"] = count


def unfinished(reads: Sequence[tuple[float, float]]) -> bool:
    """Whether the last loss was so late behind the closing fence, turn by turn (seconds of that, of the turn), that the
    fence cannot have waited for the work. One late loss is the machine's, most of them are not.
    """
    late = sum(seconds > max(LATE_S, LATE_SHARE * turn) for seconds, turn in reads)
    return 2 * late > len(reads)


def _rate(cell: Any, count: int, done: dict[str, Any]) -> tuple[float, ...]:
    cell.reads.append((done["late_s"], done["seconds"]))
    items, own = count * cell.batch_size, done.get("device_s")
    return items / done["seconds"], done["worked_s"] / done["seconds"], *([items / own] if own else [])


@contextlib.contextmanager
def _watched(cell: Any, ended: Ended) -> Any:
    """Notes which share of the machine's processors others than this worker took during a turn."""
    import psutil

    begin, (busy, worker), cores = time.monotonic(), _busy(psutil, cell.worker.pid), psutil.cpu_count() or 1
    yield
    seconds = time.monotonic() - begin
    busy_after, worker_after = _busy(psutil, cell.worker.pid)
    if seconds > 0:
        others = (busy_after - busy) - (worker_after - worker)
        ended.others.append(min(1.0, max(0.0, others / (seconds * cores))))


def _busy(psutil: Any, pid: int) -> tuple[float, float]:
    """Seconds that all processors were busy, and those that this process and its children kept them so."""
    times = psutil.cpu_times()
    busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
    busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted within user and nice
    try:
        own = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return busy, 0.0
    return busy, own.user + own.system
