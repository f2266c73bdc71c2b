"""Finds a Python interpreter of a given version on this machine.

Every candidate is asked for its version in a process of its own: names lie (a pyenv shim called python3.6 exists on the
PATH also where no 3.6 is switched on). The answer is the real executable, not the shim or the environment that it
was reached by, so that what is made from it outlives both.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dlrosetta.errors import RosettaError

# `_base_executable` is missing before 3.8.
QUESTION = """import sys
print("%d.%d" % sys.version_info[:2])
print(getattr(sys, "_base_executable", "") or sys.executable)"""
FIND = ("find", "--no-project", "--managed-python", "--no-python-downloads")
OLDEST_OF_UV = (3, 8)  # uv offers no older interpreters to download


def find(version: str) -> Path:
    """Return an interpreter of `version` ("3.11"), letting uv download one as a last resort.

    Raises RosettaError where there is none.
    """
    for candidate in _candidates(version):
        real = ask(candidate, version)
        if real:
            return real
    if _minor(version) >= OLDEST_OF_UV and _uv("install", version) is not None:
        installed = _uv(*FIND, version)
        real = ask(Path(installed), version) if installed else None
        if real:
            return real
    command = f"uv python install {version}" if _minor(version) >= OLDEST_OF_UV else f"pyenv install {version}"
    raise RosettaError(f"Expected Python {version}. Received: none on the PATH, in pyenv or from uv.", hint=command)


def ask(candidate: Path, version: str) -> Path | None:
    """Return the real executable of `candidate` if it runs and is of `version`, else None."""
    try:
        answer = subprocess.run(
            [candidate, "-I", "-c", QUESTION], capture_output=True, text=True, errors="replace", timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = answer.stdout.splitlines()
    if answer.returncode != 0 or len(lines) != 2 or lines[0] != version or not Path(lines[1]).exists():
        return None
    return Path(lines[1])


def _candidates(version: str) -> Iterator[Path]:
    if sys.version_info[:2] == _minor(version):
        yield Path(sys.executable)
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        # Each folder on its own: behind a shim that refuses there may be a real one.
        found = shutil.which(f"python{version}", path=folder) if folder else None
        if found:
            yield Path(found)
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    newest_first = sorted((root / "versions").glob(f"{version}.*/bin/python"), key=_numbers, reverse=True)
    yield from newest_first
    managed = _uv(*FIND, version)
    if managed:
        yield Path(managed)


def _uv(*arguments: str) -> str | None:
    """Return what `uv python …` printed, or None where it failed."""
    import uv

    environ = {k: v for k, v in os.environ.items() if k not in ("UV_PYTHON", "VIRTUAL_ENV")}
    command = [uv.find_uv_bin(), "python", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environ, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.parts[-3])]
