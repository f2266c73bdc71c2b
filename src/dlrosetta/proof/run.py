"""Proves many cells at once, and remembers.

A proof holds for exactly one version, adapter, lock, text, golden and prover. Workers run side by side, one a core and
one thread each, so that a proof of every framework takes as long as the slowest.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any

from dlrosetta import client, environments, golden, gpus, paths
from dlrosetta.errors import RosettaError, did_you_mean
from dlrosetta.frameworks import Framework
from dlrosetta.proof.asking import Given, Sets
from dlrosetta.proof.cell import Cell, examine, failure
from dlrosetta.proof.parallel import Team
from dlrosetta.texts import Text

DTYPES = ("float32", "float64")  # what is asked for unless one is named, which may be MIXED
MIXED = "bfloat16"
Pythons = Mapping[str, Path | RosettaError]  # by slug


def prove(
    text: Text,
    frameworks: Iterable[Framework],
    dtypes: list[str],
    patience: float = client.PATIENCE,
    on_cell: Callable[[Cell], None] = lambda cell: None,
    pythons: Pythons | None = None,
    devices: int = 1,
) -> list[Cell]:
    """Prove the text's version in every given framework; cells come back in alphabetical order, dtype by dtype.

    `patience` is how many seconds a worker may take over one request. `on_cell` hears of each cell as it is decided.
    Environments that are missing are made, unless `pythons` is what `interpreters` has already answered. On several
    `devices` its train steps are proven to be those of one.
    """
    wanted = list(frameworks)
    held = {framework.slug: text.held_to(text.variant_for(framework.slug, devices)) for framework in wanted}
    known, data = goldens(text, wanted, devices), sample(text.data)
    if MIXED in dtypes:
        _check_bounds(text, known)
    given = {id(one): Given.of(one, known, data, devices) for one in {id(one): one for one in held.values()}.values()}
    reasons = {framework.slug: why_not(text, framework, devices) for framework in wanted}
    asked = [framework for framework in wanted if reasons[framework.slug] is None]
    if pythons is None:
        pythons = interpreters(text, asked, devices)
    found: dict[tuple[str, str], Cell] = {}
    interrupted = Event()
    busy: set[str] = set()

    def one(framework: Framework) -> list[Cell]:
        busy.add(framework.slug)
        try:
            return [] if interrupted.is_set() else cells_of(framework)
        finally:
            busy.discard(framework.slug)

    def cells_of(framework: Framework) -> list[Cell]:
        before = {dtype: key(text, framework, dtype, devices) for dtype in dtypes}
        own, measured = held[framework.slug], hashes(text, framework)
        cells = _prove_one(own, framework, pythons[framework.slug], given[id(own)], dtypes, patience)
        for cell in cells:
            # What was changed in the meantime may not be what was proven, and what we ended ourselves did not fail.
            if before[cell.dtype] == key(text, framework, cell.dtype, devices) and not interrupted.is_set():
                cell.hashes = measured
                _remember(text, framework, cell, devices)
        return cells

    for slug, reason in reasons.items():
        if reason is not None:
            found.update({(slug, dtype): Cell(slug, dtype, "cannot", reason=reason) for dtype in dtypes})
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        waiting = {pool.submit(one, framework) for framework in asked}
        while waiting:
            # By the second: a signal that comes just before Python waits for a lock is not heard before the wait ends.
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for cell in [cell for future in done for cell in future.result()]:
                found[cell.framework, cell.dtype] = cell
                on_cell(cell)
    except BaseException:
        interrupted.set()
        _stop(pool, busy)
        raise
    pool.shutdown()
    return [found[framework.slug, dtype] for framework in wanted for dtype in dtypes]


def interpreters(text: Text, frameworks: Iterable[Framework], devices: int = 1) -> Pythons:
    """The interpreter, by slug, of each framework that can be asked about the text; environments are made at need.

    That has a progress bar of its own: callers with another one ask first.
    """
    return environments.ensure_all(one for one in frameworks if why_not(text, one, devices) is None)


def _stop(pool: ThreadPoolExecutor, busy: set[str]) -> None:
    """End all workers, also those that threads are about to start, through further interruptions.

    `busy` are the cells at work. Futures would not tell: an interruption within `submit` loses one whose thread runs.
    """
    while True:
        try:
            with _deaf():
                pool.shutdown(wait=False, cancel_futures=True)
                client.end_all()
                while busy:
                    time.sleep(0.05)
                    client.end_all()
                return
        except (KeyboardInterrupt, SystemExit):
            continue  # who presses Ctrl-C twice wants it ended all the more


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Hear neither Ctrl-C nor SIGTERM: under a held Ctrl-C, what takes longer than a key's repeat would never end."""
    if current_thread() is not main_thread():  # only that one is ever interrupted
        yield
        return
    heard = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def _prove_one(
    text: Text, framework: Framework, python: Path | RosettaError, given: Given, dtypes: list[str], patience: float
) -> list[Cell]:
    version = version_of(text, framework)
    if isinstance(python, RosettaError):
        reason = f"{python.message} {python.hint or ''}".strip()
        return [Cell(framework.slug, dtype, "failed", reason=reason) for dtype in dtypes]
    try:
        if given.devices == 1:
            with start(framework, python, threads=1, proof=True, patience=patience) as worker:
                return list(examine(worker, text, framework, version, given, dtypes))
        with team(framework, python, given.devices, patience) as workers:
            return list(examine(workers, text, framework, version, given, dtypes))
    except client.WorkerFailed as error:
        return [failure(text, framework, version, dtype, error) for dtype in dtypes]
    except OSError as error:
        reason = f"the worker could not run: {error}. Next: rosetta env remove {framework.slug}, to make it anew"
        return [Cell(framework.slug, dtype, "failed", reason=reason) for dtype in dtypes]


@contextlib.contextmanager
def team(framework: Framework, python: Path, devices: int, patience: float) -> Iterator[Team]:
    """Workers for so many devices: a process for each, which find each other by a file, or one process for all."""
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        spread = {"devices": devices, "rank": 0, "meeting": Path(folder, "meeting")}
        workers = [
            stack.enter_context(start(framework, python, 1, True, {**spread, "rank": rank}, patience=patience))
            for rank in range(devices if framework.processes else 1)
        ]
        yield Team(workers)


def start(
    framework: Framework,
    python: Path,
    threads: int,
    proof: bool = False,
    spread: Mapping[str, object] | None = None,
    **limits: Any,
) -> client.Worker:
    """Start the worker of a framework. In a `proof` it sees the sample that ships in the package, and `proof_env`;
    `spread` says which of how many devices it is to have. Who compiles itself compiles each kernel too, when it is
    first needed: one answer may take as long as that did.
    """
    limits["patience"] = max(limits.get("patience", client.PATIENCE), float(framework.compile_s))
    env = client.worker_environment(framework.environ(threads, python.parent.parent, proof, spread), threads)
    if proof:
        env["ROSETTA_DATA"] = "sample"
    if framework.command:
        return client.Worker(framework.started(python), env, **limits)
    return client.start_python(python, framework.adapter, env, **limits)


def goldens(text: Text, frameworks: Iterable[Framework], devices: int = 1) -> dict[str | None, golden.Golden]:
    """The text's golden, under None, and those of the variants that some of the frameworks are held against."""
    found = [text.variant_for(framework.slug, devices) for framework in frameworks]
    names = sorted({variant["name"] for variant in found if variant})
    return {name: golden.load(text, name) for name in (None, *names)}


def _check_bounds(text: Text, known: Mapping[str | None, golden.Golden]) -> None:
    """Raise RosettaError where a golden is older than mixed precision."""
    for name, one in known.items():
        if any(tensor.bfloat16 is None for tensor in one.tensors.values()):
            raise RosettaError(f"{text.golden_of(name)} has no bounds for {MIXED}.", f"rosetta golden {text.name}")


def version_of(text: Text, framework: Framework) -> Path:
    """The version file that a framework runs for a text."""
    return text.folder / framework.version_file(text.name)


def has_version(text: Text, framework: Framework) -> bool:
    """Whether there is a version that the framework runs; of a file that trains, it may run the evaluation alone."""
    return version_of(text, framework).is_file()


def why_not(text: Text, framework: Framework, devices: int) -> str | None:
    """Why a framework cannot be asked about a text; None where it can."""
    if not has_version(text, framework):
        return framework.lacks.get(text.name, f"no version: expected {version_of(text, framework)}")
    if devices > 1 and not text.data_parallel:
        return f"no version of `{text.name}` spreads a batch over devices"
    if devices > 1 and "data-parallel" not in framework.can:
        return framework.cannot.get("data-parallel", f"no version of {framework.title} spreads a batch over devices")
    return None


def sample(name: str) -> Sets:
    """The packaged sample of a data set: inputs and labels for training, then for testing."""
    from dlrosetta import data

    if name not in data.SAMPLES:
        raise RosettaError(
            f"Expected a data set in text.toml: {', '.join(data.SAMPLES)}. Received: {name!r}."
            f"{did_you_mean(name, data.SAMPLES)}"
        )
    return data.SAMPLES[name]()


# -- what was proven before --------------------------------------------------------------------------------------------


@cache
def prover_hash() -> str:
    """Of everything in the program that can change a verdict: what this module imports, and what workers load by path.
    How a comparison is shown, or a site built, is not among it.
    """
    loaded = [path for part in ("worker/*.py", "data/**/*") for path in paths.PACKAGE.glob(part)]
    digest = hashlib.sha256()
    for path in sorted({*_imported(Path(__file__).resolve()), *loaded}):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _imported(path: Path, found: frozenset[Path] = frozenset()) -> frozenset[Path]:
    """A module's file and those of all modules of this package that it imports, wherever in it, directly or not."""
    found |= {path}
    for node in ast.walk(ast.parse(path.read_bytes())):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        for name in names:
            part = paths.PACKAGE.parent.joinpath(*name.split("."))
            for file in (part.with_suffix(".py"), part / "__init__.py"):
                if name.split(".")[0] == paths.PACKAGE.name and file.is_file() and file not in found:
                    found = _imported(file, found)
    return found


def key(text: Text, framework: Framework, dtype: str, devices: int = 1) -> str:
    """The content hash under which this cell's proof is remembered: what was proven, by which prover, on which kind of
    device.
    """
    known = (*hashes(text, framework).values(), prover_hash(), dtype, str(devices), gpus.in_sight())
    parts = (*known, *framework.switches)
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


def hashes(text: Text, framework: Framework) -> dict[str, str]:
    """Of all that is the project's own in a cell: its text with the goldens, its version, its framework's folder."""
    lock = framework.lock.read_bytes() if framework.lock.is_file() else b""
    return {
        "text": text.content_hash(),
        "version": version_hash(text, framework),
        "framework": framework.content_hash(),
        "lock": hashlib.sha256(lock).hexdigest(),
    }


def version_hash(text: Text, framework: Framework) -> str:
    path = version_of(text, framework)
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()


def _remember(text: Text, framework: Framework, cell: Cell, devices: int) -> None:
    """Keep a verdict, written beside and renamed. A failure may be the machine's: it is kept for show only."""
    path = _remembered(text, framework, cell.dtype, devices)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the proof
        path.parent.mkdir(parents=True, exist_ok=True)
        paths.write(path, json.dumps({"cell": cell.document(), "facts": cell.facts}).encode())


def recall(text: Text, framework: Framework, dtype: str) -> dict[str, Any] | None:
    """The remembered cell (as `prove --json` shows it) if nothing that it depends on has changed."""
    try:
        return json.loads(_remembered(text, framework, dtype).read_text(encoding="utf-8"))["cell"]
    except (OSError, ValueError, KeyError):
        return None


def _remembered(text: Text, framework: Framework, dtype: str, devices: int = 1) -> Path:
    # Mixed precision and switches by other names: `rosetta` alone shows full precision, and versions as they are.
    which = (f"{MIXED}-" if dtype == MIXED else "") + ("tuned-" if framework.switches else "")
    name = f"{text.name}-{framework.slug}-{which}{key(text, framework, dtype, devices)[:24]}.json"
    return paths.cache_dir() / "proofs" / name
