"""Proves a cell in a process of its own, whose memory goes with it: a proof holds several times what a comparison does.

It is given its task on standard input, which stays open: where that ends, so has whoever asked, and it ends too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

from dlrosetta import frameworks, texts
from dlrosetta.client import one_line
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework
from dlrosetta.proof import run
from dlrosetta.texts import Text

# Not -m, by which a file in the user's folder would be imported for a package's of the same name.
START = "import sys; sys.path[:] = filter(None, sys.path); from dlrosetta.proof import apart; apart.main()"


def prove(text: Text, framework: Framework, dtype: str, patience: float, pythons: run.Pythons) -> dict[str, Any]:
    """The cell's document (`prove --json`), as `run.prove` finds and remembers it. Raises RosettaError as that does; a
    process that dies costs its own cell.
    """
    reason = run.why_not(text, framework, devices=1)
    if reason is not None:
        return run.Cell(framework.slug, dtype, "cannot", reason=reason).document()
    python = pythons[framework.slug]
    task = {
        "text": str(text.folder),
        "framework": str(framework.folder),
        "switches": framework.switches,
        "dtype": dtype,
        "patience": patience,
        "python": [python.message, python.hint] if isinstance(python, RosettaError) else str(python),
    }
    with ExitStack() as stack:
        said = stack.enter_context(tempfile.TemporaryFile("w+"))
        process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,  # Ctrl-C is not for it: it is ended here, once, and ends its worker
            )
        )
        stack.callback(process.terminate)
        assert process.stdin and process.stdout
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        told = process.stdout.readline()
        if not told:
            status = process.wait()
            said.seek(0)
            last = said.read().strip().rpartition("\n")[2] or f"its process ended with status {status}"
            reason = f"could not be proven: {one_line(last)}"
            return run.Cell(framework.slug, dtype, "failed", reason=reason).document()
    answer = json.loads(told)
    if "error" in answer:
        raise RosettaError(*answer["error"])
    return answer["cell"]


def main() -> None:
    """Do one task: {"cell": …} or {"error": [message, hint]} is its line on standard output."""

    def ended(*_: Any) -> None:
        raise SystemExit(1)

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock Python would want when it ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, ended)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what is printed meanwhile is no answer
    task = json.loads(sys.stdin.readline())
    Thread(target=watch, daemon=True).start()
    text = texts.load(Path(task["text"]))
    framework = replace(frameworks.load(Path(task["framework"])), switches=tuple(task["switches"]))
    python = task["python"]
    pythons = {framework.slug: Path(python) if isinstance(python, str) else RosettaError(*python)}
    try:
        (cell,) = run.prove(text, [framework], [task["dtype"]], task["patience"], pythons=pythons)
        answer: dict[str, Any] = {"cell": cell.document()}
    except RosettaError as error:
        answer = {"error": [error.message, error.hint]}
    print(json.dumps(answer), file=out, flush=True)
