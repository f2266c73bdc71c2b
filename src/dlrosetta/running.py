"""Runs one version as its author wrote it, in its framework's environment: its output, its speed, its exit status.

The version shares the terminal and the process group, so that Ctrl-C and Ctrl-Z reach it as they reach any program.
What is then still alive after a moment, and whatever it started, is ended: an interruption leaves no process behind.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from dlrosetta import environments, frameworks, machine, matrix, paths, reading, sections, texts
from dlrosetta.client import MARK, end_marked, worker_environment
from dlrosetta.errors import RosettaError, UsageError
from dlrosetta.frameworks import Framework

# Beyond what a worker gets: what a program that draws on a terminal looks at.
TERMINAL = ("TERM", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
GRACE = 3.0  # seconds that an interrupted version has to end by itself


def show(text: str, name: str, stone: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> int:
    """`rosetta run`: 0 if the version ended well, else 1."""
    from dlrosetta import commands, console

    known_texts, known = texts.find(paths.stone_dirs(stone)), frameworks.find(frameworks_dir)
    if text == "all":
        raise UsageError(f"Expected one text: {', '.join(known_texts)}. Received: 'all'.", "rosetta")
    one = texts.select(text, known_texts)[0]
    framework = reading.chosen([name], known)[0]
    version = reading.path_of(one, framework, known)
    trained = {part.name for part in sections.split(version.read_text(encoding="utf-8"))} & set(sections.OF_TRAINING)
    if trained and not framework.trains(one.trains):
        raise RosettaError(
            f"{framework.title} does not train, and {version.name} does.",
            f"rosetta prove {one.name} --frameworks {name}, which asks for its evaluation pass",
        )
    if framework.python is None:
        raise RosettaError(
            f"Expected a framework that Python runs. Received: {name}, in {framework.language}.",
            f"see {framework.homepage} for how to run {version}",
        )
    python = environments.ensure_all([framework])[framework.slug]
    if isinstance(python, RosettaError):
        raise python
    commands.obtain(one)
    console.err().print(f"Data: {matrix.data_name(one.data)}", style="dim", soft_wrap=True, markup=False)
    return run(command(framework, python, version), version, environment(framework, python))


def command(framework: Framework, python: Path, version: Path) -> list[str]:
    """What runs a version alone: the worker's own command with the version after it, or else Python."""
    if framework.command:
        return [*framework.started(python), str(version)]
    return [str(python), str(paths.PACKAGE / "worker" / "run.py"), str(version)]


def environment(framework: Framework, python: Path) -> dict[str, str]:
    """A worker's environment with all of this machine's cores, and the terminal's own variables."""
    threads = machine.threads()
    env = worker_environment(framework.environ(threads, python.parent.parent), threads)
    env.update({name: os.environ[name] for name in TERMINAL if name in os.environ})
    # As for a worker, bytecode stays inside the environment.
    return {**env, "PYTHONUNBUFFERED": "1", "PYTHONPYCACHEPREFIX": str(python.parent.parent / "bytecode")}


def run(command: list[str], version: Path, env: dict[str, str]) -> int:
    """Run the version to its end; return 0 or 1. Interrupted, end it and all that it started."""
    mark = f"{os.getpid()}-{secrets.token_hex(8)}"
    process = None
    try:
        process = subprocess.Popen(command, env={**env, MARK: mark})
        status = process.wait()
    except OSError as error:
        raise RosettaError(f"{version.name} could not be run: {error}.", "rosetta env list") from error
    except BaseException:
        if process is not None:
            _end(process, mark)
        end_marked(mark)
        raise
    if status < 0:
        raise RosettaError(f"{version.name} was ended by {_signal(-status)}.")
    if status:
        raise RosettaError(f"{version.name} ended with status {status}.")
    return 0


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end(process: subprocess.Popen[Any], mark: str) -> None:
    """Let it end by itself, then ask it to, then end it and all that it started."""
    _wait(process, GRACE)
    if process.poll() is None:
        process.terminate()
        _wait(process, 1.0)
    end_marked(mark)
    process.wait()


def _wait(process: subprocess.Popen[Any], seconds: float) -> None:
    """Wait for the end, through further interruptions: who presses Ctrl-C twice wants it ended all the more."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            time.sleep(0.02)
        except KeyboardInterrupt:
            return
