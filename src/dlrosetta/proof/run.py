"""Proves many cells at once, and remembers.

A proof holds for exactly one version, adapter, lock, text, golden and prover. Workers run side by side, one a core and
one thread each, so that a proof of every framework takes as long as the slowest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

from dlrosetta import client, environments, golden
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework
from dlrosetta.paths import PACKAGE, cache_dir
from dlrosetta.proof.cell import Cell, Given, Sets, examine, failure
from dlrosetta.texts import Text

DTYPES = ("float32", "float64")


def prove(
    text: Text,
    frameworks: Iterable[Framework],
    dtypes: list[str],
    patience: float = client.PATIENCE,
    on_cell: Callable[[Cell], None] = lambda cell: None,
) -> list[Cell]:
    """Prove the text's version in every given framework; cells come back in alphabetical order, dtype by dtype.

    `patience` is how many seconds a worker may take over one request. `on_cell` hears of each cell as it is decided.
    """
    wanted = list(frameworks)
    given = Given.of(text, golden.load(text), sample(text.data))
    written = [framework for framework in wanted if version_of(text, framework).is_file()]
    pythons = environments.ensure_all(written)
    found: dict[tuple[str, str], Cell] = {}

    def one(framework: Framework) -> list[Cell]:
        return [
            _remember(text, framework, cell)
            for cell in _prove_one(text, framework, pythons[framework.slug], given, dtypes, patience)
        ]

    for framework in wanted:
        if framework not in written:
            for dtype in dtypes:
                missing = f"no version: expected {version_of(text, framework)}"
                found[framework.slug, dtype] = Cell(framework.slug, dtype, "cannot", reason=missing)
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        for future in as_completed([pool.submit(one, framework) for framework in written]):
            for cell in future.result():
                found[cell.framework, cell.dtype] = cell
                on_cell(cell)
    finally:
        client.end_all()  # after an interruption; otherwise nothing is left to end
        pool.shutdown(wait=True, cancel_futures=True)
    return [found[framework.slug, dtype] for framework in wanted for dtype in dtypes]


def _prove_one(
    text: Text, framework: Framework, python: Path | RosettaError, given: Given, dtypes: list[str], patience: float
) -> list[Cell]:
    version = version_of(text, framework)
    if isinstance(python, RosettaError):
        reason = f"{python.message} {python.hint or ''}".strip()
        return [Cell(framework.slug, dtype, "failed", reason=reason) for dtype in dtypes]
    try:
        with start(framework, python, threads=1, data="sample", patience=patience) as worker:
            return list(examine(worker, text, framework, version, given, dtypes))
    except client.WorkerFailed as error:
        return [failure(text, framework, version, dtype, error) for dtype in dtypes]
    except OSError as error:
        return [Cell(framework.slug, dtype, "failed", reason=f"the worker could not run: {error}") for dtype in dtypes]


def start(framework: Framework, python: Path, threads: int, data: str | None = None, **limits: Any) -> client.Worker:
    """Start the worker of a framework. `data` sets ROSETTA_DATA ("sample" for what ships in the package)."""
    env = client.worker_environment(framework.environ(threads, python.parent.parent), threads)
    if data is not None:
        env["ROSETTA_DATA"] = data
    return client.start_python(python, framework.adapter, env, **limits)


def version_of(text: Text, framework: Framework) -> Path:
    """The version file that a framework runs for a text."""
    return text.folder / framework.version_file(text.name)


def sample(name: str) -> Sets:
    """The packaged sample of a data set: images and labels for training, then for testing."""
    from dlrosetta import data

    return data.SAMPLES[name]()


# -- what was proven before --------------------------------------------------------------------------------------------


@cache
def prover_hash() -> str:
    """Of everything in the program that can change a verdict."""
    digest = hashlib.sha256()
    for path in sorted(
        [*PACKAGE.glob("*.py"), *PACKAGE.glob("proof/*.py"), *PACKAGE.glob("worker/*.py"), *PACKAGE.glob("data/*")]
    ):
        if path.is_file() and path.name not in ("cli.py",):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def key(text: Text, framework: Framework, dtype: str) -> str:
    """The content hash under which this cell's proof is remembered."""
    parts = (text.content_hash(), framework.content_hash(), version_hash(text, framework), prover_hash(), dtype)
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


def version_hash(text: Text, framework: Framework) -> str:
    path = version_of(text, framework)
    return hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()


def _remember(text: Text, framework: Framework, cell: Cell) -> Cell:
    """Keep a verdict, written beside and renamed. A failure may be the machine's: it is kept for show only."""
    path = _remembered(text, framework, cell.dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(json.dumps({"cell": cell.document(), "facts": cell.facts}), encoding="utf-8")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)  # a cache that cannot be written costs time, not the proof
    return cell


def recall(text: Text, framework: Framework, dtype: str) -> dict[str, Any] | None:
    """The remembered cell (as `prove --json` shows it) if nothing that it depends on has changed."""
    try:
        return json.loads(_remembered(text, framework, dtype).read_text(encoding="utf-8"))["cell"]
    except (OSError, ValueError, KeyError):
        return None


def _remembered(text: Text, framework: Framework, dtype: str) -> Path:
    return cache_dir() / "proofs" / f"{text.name}-{framework.slug}-{key(text, framework, dtype)[:24]}.json"
