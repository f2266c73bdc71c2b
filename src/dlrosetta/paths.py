"""Where things live: the stone and the frameworks (read), the cache, data and results (written).

Nothing is written outside the folders that this module names. A source checkout reads its own `stone/` and
`frameworks/`; an installed wheel carries copies inside the package.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def write(path: Path, content: bytes) -> None:
    """Write a file beside and rename it, so that `path` is whole or not there. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _shipped(name: str) -> Path:
    inside = PACKAGE / "_shipped" / name
    return inside if inside.is_dir() else PACKAGE.parents[1] / name


def _extra(variable: str, given: tuple[str, ...]) -> list[Path]:
    named = [part for part in os.environ.get(variable, "").split(os.pathsep) if part]
    return [Path(part).expanduser().resolve() for part in (*named, *given)]


def schema(name: str) -> Path:
    """The JSON Schema `name` (prove, compare, protocol) of docs/schema/."""
    return _shipped("docs/schema") / f"{name}.schema.json"


def project_results() -> Path | None:
    """The folder of published results, where this is a source checkout; None elsewhere."""
    checkout = PACKAGE.parents[1]
    return checkout / "results" if all((checkout / name).exists() for name in ("pyproject.toml", "results")) else None


def stone_dirs(extra: tuple[str, ...] = ()) -> list[Path]:
    """Folders of texts: ours, those in `ROSETTA_STONE`, and `extra`. All are treated alike; a later one wins a name."""
    return [_shipped("stone"), *_extra("ROSETTA_STONE", extra)]


def frameworks_dirs(extra: tuple[str, ...] = ()) -> list[Path]:
    """Folders of frameworks: ours, those in `ROSETTA_FRAMEWORKS`, and `extra`."""
    return [_shipped("frameworks"), *_extra("ROSETTA_FRAMEWORKS", extra)]


def cache_dir() -> Path:
    """Environments, proofs and scratch files: `ROSETTA_CACHE`, else the user's cache folder. Safe to delete."""
    import platformdirs

    named = os.environ.get("ROSETTA_CACHE")
    return Path(named).expanduser().resolve() if named else Path(platformdirs.user_cache_dir("dlrosetta", False))


def results_dir() -> Path:
    """One JSON file a comparison: `ROSETTA_RESULTS`, else a folder of the user's data folder."""
    import platformdirs

    named = os.environ.get("ROSETTA_RESULTS")
    return (
        Path(named).expanduser().resolve() if named else Path(platformdirs.user_data_dir("dlrosetta", False), "results")
    )
