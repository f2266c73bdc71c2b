"""Lets a framework compile itself once, when its environment is made, so that no first proof dies of patience.

Some frameworks (Jittor) come as sources and compile themselves when they are first loaded, for minutes. They are loaded
here as every worker will load them, with the same variables, and say in one line why where that fails.
"""

from __future__ import annotations

from pathlib import Path

from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework

SLOWER = 10  # times as long as `compile_s` says another machine may take
LAST_LINES = 3  # of what a framework said that could not compile itself


def told(framework: Framework) -> str:
    """What to say before it begins."""
    seconds = framework.compile_s
    long = f"{seconds} s" if seconds < 120 else f"{round(seconds / 60)} minutes"
    return f"{framework.title} compiles itself once, which may take {long}"


def load(framework: Framework, python: Path, log: Path) -> None:
    """Start the framework's worker and greet it. Raises RosettaError with its last lines; `log` then has them all."""
    from dlrosetta import client, machine
    from dlrosetta.proof import run

    patience = max(float(SLOWER * framework.compile_s), client.PATIENCE)
    output = ""
    try:
        with run.start(framework, python, machine.threads(), patience=patience) as worker:
            try:
                worker.ask("hello", layout=dict(framework.layout))
            finally:
                output = worker.output()
    except client.WorkerFailed as error:
        with log.open("a", encoding="utf-8") as copy:
            copy.write(f"{output}\n{error.message}\n{error.detail}\n")
        lines = [line.strip() for line in (error.detail or output).splitlines() if line.strip()]
        last = client.one_line(" … ".join(lines[-LAST_LINES:])) if lines else "none"
        raise RosettaError(
            f"{framework.title} could not compile itself: {error.message}. Its last lines: {last}", hint=f"Log: {log}"
        ) from error
