"""Is the stopwatch right? Workers whose steps take as long as they are told, timed by what `rosetta compare` uses.

Each check is a claim about the method, tried out here and now: docs/method.md says why each matters. They run the real
workers, pipe, fences and rounds; only the model is missing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlrosetta import client, intervals, rounds
from dlrosetta.journal import Journal

HERE = Path(__file__).parent
LAYERS = [{"name": "none", "parameters": {"weight": {"role": "bias", "shape": [1]}}}]
STEP_MS = 5.0  # of which the harness may cost one in a hundred
MOST_OVERHEAD = 0.01
SIMULATED, REAL = 200, 20
MOST_WRONG = 0.05
ALIKE_ROUNDS = 11  # of so many, an interval leaves the truth out in 1.2 % of cases; of 10 in 2.1, of 12 in 3.9


@dataclass
class Check:
    """One claim: whether it held, and what was seen."""

    name: str
    held: bool
    seen: str

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "held": bool(self.held), "seen": self.seen}  # NumPy has truths of its own


@dataclass
class Planted:
    """A cell of a comparison whose step is `work` for so many milliseconds (see version.py)."""

    slug: str
    work: str
    milliseconds: float
    worker: client.Worker | None = None
    batch_size: int = 1
    steps: int = 1
    restarts: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in rounds.KINDS})
    cores: list[float] = field(default_factory=list)
    reads: list[tuple[float, float]] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)

    def open(self, stack: ExitStack) -> Planted:
        env = client.worker_environment({"OPENBLAS_NUM_THREADS": "1"}, 1)
        self.worker = stack.enter_context(client.start_python(Path(sys.executable), HERE / "adapter.py", env))
        ask, constants = self.worker.ask, {"WORK": self.work, "MILLISECONDS": self.milliseconds}
        ask("hello", layout={"conv": "OIHW", "dense": "OI", "activations": "channels_first"})
        ask("open", version=str(HERE / "version.py"), dtype="float32", layers=LAYERS, constants=list(constants))
        ask("create", seed=0, constants=constants)
        ask("prepare", count=1)
        return self

    def seconds(self, steps: int) -> float:
        """What the worker says that so many steps took."""
        assert self.worker is not None
        return float(self.worker.ask("steps", count=steps)["seconds"])


def timed(cells: Sequence[Planted], budget: float = 10.0, least: int = rounds.LEAST_ROUNDS) -> rounds.Ended:
    """The rounds of a comparison of these cells, as `rosetta compare` takes them, at least so many."""

    def alone(cell: Any, action: Callable[[], None]) -> None:
        action()

    return rounds.take(
        cells, budget, alone, lambda cell: None, lambda line: None, Journal(None), inputs=False, least=least
    )


@contextmanager
def planted(*cells: tuple[str, str, float]) -> Iterator[list[Planted]]:
    with ExitStack() as stack:
        yield [Planted(*cell).open(stack) for cell in cells]


def check_fence_costs_nothing() -> Check:
    """A step that does nothing, fenced: the harness's own share of a step."""
    with planted(("nothing", "none", 0)) as (cell,):
        cell.seconds(10)
        each = float(np.median([cell.seconds(1000) / 1000 for _ in range(15)]))
        alone = float(np.median([cell.seconds(1) for _ in range(200)]))
    share = alone / (STEP_MS / 1000)
    seen = f"{each * 1e6:.1f} µs a step, {alone * 1e6:.1f} µs of a step alone between its fences"
    return Check("a fenced step that does nothing costs about nothing", share <= MOST_OVERHEAD, seen)


def check_time_grows_with_steps() -> Check:
    with planted(("sleeper", "sleep", 2.0)) as (cell,):
        counts = [10, 20, 40, 80]
        found = [min(cell.seconds(count) for _ in range(7)) for count in counts]  # others only ever add time
    slope, start = np.polyfit(counts, found, 1)
    error = max(abs(seconds - (slope * count + start)) / seconds for count, seconds in zip(counts, found, strict=True))
    held = error < 0.03 and abs(start) < 0.05 * found[0] and slope >= 0.002
    seen = f"{slope * 1e3:.2f} ms a step of 2 ms, {start * 1e3:+.2f} ms at none, {error:.1%} off the line at most"
    return Check("time grows with the number of steps", held, seen)


def check_early_return() -> Check:
    """A framework that only queues its steps: its fence must wait, and one that does not is found out."""
    with planted(("queues", "early", 5.0), ("lies", "never", 5.0)) as (honest, liar):
        for cell in (honest, liar):
            assert cell.worker is not None
            cell.worker.ask("steps", count=2)
        told = {}
        for cell in (honest, liar):
            assert cell.worker is not None
            done = [cell.worker.ask("steps", count=20) for _ in range(5)]
            reads = [(one["late_s"], one["seconds"]) for one in done]
            told[cell.slug] = float(np.median([one["seconds"] for one in done])), rounds.unfinished(reads)
    (waited, fine), (claimed, caught) = told["queues"], told["lies"]
    held = waited >= 0.1 and not fine and caught
    seen = f"20 steps of 5 ms that are only queued: {waited * 1e3:.0f} ms with a fence that waits; without, "
    seen += f"{claimed * 1e3:.1f} ms, and {'caught' if caught else 'not caught'}"
    return Check("who returns before it is done is caught", held, seen)


def check_five_percent() -> Check:
    with planted(("a", "sleep", 5.0), ("b", "sleep", 5.25)) as cells:
        ended = timed(cells, budget=100.0)
        found = intervals.ratio(cells[0].samples["steps"], cells[1].samples["steps"])
    held = found.low > 1 and found.low <= 1.05 <= found.high + 0.005
    seen = f"ratio {found.median:.3f}, {found.low:.3f} to {found.high:.3f}, after {ended.seconds:.0f} s"
    return Check("5 % are found, with their interval", held and ended.seconds < 120, seen)


def check_alike() -> Check:
    """Two of the same speed, while the machine drifts: simulated with the noise of real rounds, and real."""
    random, wrong = np.random.default_rng(0), 0
    for _ in range(SIMULATED):
        speeds = []
        for _ in range(2):
            noise = np.exp(0.02 * random.standard_normal(rounds.LEAST_ROUNDS))
            speeds.append(np.where(random.random(rounds.LEAST_ROUNDS) < 0.1, noise * 0.8, noise))
        drift = np.linspace(1, random.uniform(0.5, 2), rounds.LEAST_ROUNDS)
        found = intervals.ratio(list(speeds[0] * drift), list(speeds[1] * drift))
        wrong += not found.low <= 1 <= found.high
    real = 0
    with planted(("a", "hash", 5.0), ("b", "hash", 5.0)) as cells:
        for _ in range(REAL):
            for cell in cells:
                cell.samples["steps"].clear()
            timed(cells, budget=0.1, least=ALIKE_ROUNDS)
            found = intervals.ratio(cells[0].samples["steps"], cells[1].samples["steps"])
            real += not found.low <= 1 <= found.high
    held = wrong <= MOST_WRONG * SIMULATED and real <= MOST_WRONG * REAL
    seen = f"said to differ: {wrong} of {SIMULATED} simulated, {real} of {REAL} real comparisons"
    return Check("what is alike is seldom said to differ", held, seen)


def check_load() -> Check:
    """Other processes that begin half-way: the alarm rises, and who was faster stays faster."""
    import psutil

    with planted(("quick", "hash", 5.0), ("slow", "hash", 5.5)) as cells, ExitStack() as stack:
        begun: list[subprocess.Popen[bytes]] = []

        def disturb(line: str) -> None:
            if line == f"round {rounds.LEAST_ROUNDS + 1}":
                spin = [sys.executable, "-c", "while True: pass"]
                for _ in range(2 * (psutil.cpu_count() or 1)):  # each in a session: Linux shares out by sessions
                    begun.append(stack.enter_context(_ended(subprocess.Popen(spin, start_new_session=True))))

        ended = rounds.take(
            cells, 0.0, lambda cell, action: action(), lambda cell: None, disturb, Journal(None),
            inputs=False, least=2 * rounds.LEAST_ROUNDS,
        )  # fmt: skip
        found = intervals.ratio(cells[0].samples["steps"], cells[1].samples["steps"])
    drift = ended.drift
    held = drift is not None and drift.alarm and abs(drift.round - rounds.LEAST_ROUNDS - 1) <= 2 and found.low > 1
    seen = "no drift found" if drift is None else f"{drift.factor:.2f} times the speed from round {drift.round} on"
    seen += f"; ratio {found.median:.2f}, {found.low:.2f} to {found.high:.2f} (1.10 is true)"
    return Check("a load that begins half-way raises the alarm and turns no order round", held, seen)


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        process.kill()
        process.wait()


CHECKS = (
    check_fence_costs_nothing,
    check_time_grows_with_steps,
    check_early_return,
    check_five_percent,
    check_alike,
    check_load,
)
