"""The program's end of a worker: start it, ask it, and end it whatever it does.

A worker is somebody else's framework running somebody's code. It may crash, hang, print, fork or eat the memory; each
of these costs its own cell and becomes one sentence (`WorkerFailed`). It gets an allow-listed environment, a private
pipe, its own process group and a scratch folder, and all of them are gone when `Worker.close` returns. See
docs/protocol.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlrosetta.paths import PACKAGE, cache_dir

ALLOWED = {
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES", "ROSETTA_DATA", "XDG_DATA_HOME",
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "SSL_CERT_FILE",
}  # fmt: skip
PATIENCE = 120.0  # seconds that one request may take before the worker counts as hung
MEMORY = 12 * 2**30  # bytes that a worker and its children may hold resident, where the machine has twice that
MOST_OUTPUT = 64 * 2**20  # bytes of standard output and error; a worker that prints more is broken
LOOK_EVERY = 0.1  # seconds between looks at memory and output
CHILDREN_EVERY = 2.0  # seconds between looks at the worker's children, which cost more


class WorkerFailed(Exception):
    """The worker's own error, in one line. `line` is the line of the version that was running, `detail` the whole
    story.
    """

    def __init__(self, message: str, line: int | None = None, detail: str = ""):
        super().__init__(message)
        self.message, self.line, self.detail = message, line, detail


def memory_limit() -> int:
    """Bytes that one worker may hold: `ROSETTA_MEMORY_GB`, else 12 GiB or half the machine, whichever is less."""
    import psutil

    named = os.environ.get("ROSETTA_MEMORY_GB")
    return int(float(named) * 2**30) if named else min(MEMORY, psutil.virtual_memory().total // 2)


def worker_environment(declared: Mapping[str, str], threads: int) -> dict[str, str]:
    """The allowed part of this process's environment, and what the framework declares."""
    env = {name: value for name, value in os.environ.items() if name in ALLOWED}
    return {**env, **declared, "ROSETTA_THREADS": str(threads)}


_LIVE: set[Worker] = set()


def end_all() -> None:
    """End every worker of this process: called when it is interrupted, from whatever thread notices."""
    for worker in list(_LIVE):
        worker.end()


class Worker:
    """One worker process. Use as a context manager; `ask` sends a request and waits for its answer."""

    def __init__(self, command: list[str], env: dict[str, str], patience: float = PATIENCE, memory: int | None = None):
        """Start `command` with exactly the environment `env` and the numbers of the pipe's two descriptors."""
        scratch = cache_dir() / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="worker-", dir=scratch, ignore_cleanup_errors=True)
        self.scratch = Path(self._folder.name)
        self.patience, self.memory = patience, memory or memory_limit()
        self.peak_memory = 0
        self._number, self._buffer = 0, b""
        self._children: list[Any] = []
        self._children_due = 0.0
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        try:
            with (self.scratch / "output.txt").open("wb") as output:
                self._process = subprocess.Popen(
                    command,
                    env={**env, "ROSETTA_READ": str(theirs_in), "ROSETTA_WRITE": str(theirs_out)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(theirs_in, theirs_out),
                    start_new_session=True,
                    cwd=self.scratch,
                )
        except BaseException:
            os.close(self._to)
            os.close(self._from)
            self._folder.cleanup()
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        _LIVE.add(self)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(
        self, op: str, on_event: Callable[[dict], None] | None = None, patience: float | None = None, **args: Any
    ) -> dict[str, Any]:
        """Send one request and return its result. Raises WorkerFailed with what happened in one line."""
        self._number += 1
        message = json.dumps({"id": self._number, "op": op, "args": args}).encode() + b"\n"
        try:
            while message:
                message = message[os.write(self._to, message) :]
        except OSError as error:
            raise self._death() from error
        deadline = time.monotonic() + (patience or self.patience)
        while True:
            answer = self._receive(op, deadline)
            if answer.get("id") != self._number:
                raise WorkerFailed(
                    f"expected an answer to request {self._number} on the private pipe, "
                    f"received one to {answer.get('id')!r}"
                )
            if "event" in answer:
                if on_event:
                    on_event(answer["event"])
                deadline = time.monotonic() + (patience or self.patience)
                continue
            if answer.get("ok"):
                return answer.get("result") or {}
            told = answer.get("error") or {}
            first = (str(told.get("message") or "").strip() or "no message").splitlines()[0]
            raise WorkerFailed(f"{told.get('type', 'Error')}: {first}", told.get("line"), told.get("traceback", ""))

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def path(self, name: str) -> str:
        """A file in this worker's scratch folder."""
        return str(self.scratch / name)

    def output(self) -> str:
        """The end of what the worker printed."""
        try:
            with (self.scratch / "output.txt").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def close(self) -> None:
        """End the worker and everything that it started, and remove its scratch folder. May be called twice."""
        for descriptor in (self._to, self._from):
            if descriptor >= 0:
                os.close(descriptor)
        self._to = self._from = -1
        self.end()
        self._folder.cleanup()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _receive(self, op: str, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            if time.monotonic() > deadline:
                self.end()
                raise WorkerFailed(
                    f"no answer to '{op}' for {self.patience:.0f} s; it was ended (--patience allows more)"
                )
            readable, _, _ = select.select([self._from], [], [], LOOK_EVERY)
            if readable:
                chunk = os.read(self._from, 1 << 16)
                if not chunk:
                    raise self._death()
                self._buffer += chunk
            self._look()
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise WorkerFailed(f"expected JSON on the private pipe, received {line[:80]!r}") from error
        if not isinstance(answer, dict):
            raise WorkerFailed(f"expected a JSON object on the private pipe, received {line[:80]!r}")
        return answer

    def _look(self) -> None:
        """Measure memory and output; end a worker that takes too much."""
        held = self._resident()
        self.peak_memory = max(self.peak_memory, held)
        if held > self.memory:
            self.end()
            raise WorkerFailed(
                f"held {held / 2**30:.1f} GB of memory, more than {self.memory / 2**30:.1f} GB "
                "(ROSETTA_MEMORY_GB sets the limit)"
            )
        if (self.scratch / "output.txt").stat().st_size > MOST_OUTPUT:
            self.end()
            raise WorkerFailed(f"printed more than {MOST_OUTPUT // 2**20} MB")

    def _resident(self) -> int:
        import psutil

        try:
            root = psutil.Process(self._process.pid)
            if time.monotonic() > self._children_due:
                self._children, self._children_due = root.children(recursive=True), time.monotonic() + CHILDREN_EVERY
            return root.memory_info().rss + sum(
                child.memory_info().rss for child in self._children if child.is_running()
            )
        except psutil.Error:
            return 0  # it ended while being looked at: the pipe will say so

    def _death(self) -> WorkerFailed:
        """Why the process is gone, from its exit status and the end of what it printed."""
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.end()
            return WorkerFailed("closed the private pipe without ending", detail=self.output())
        if status < 0:
            name = signal.Signals(-status).name if -status in list(signal.Signals) else f"signal {-status}"
            known = {
                "SIGSEGV": "a segmentation fault",
                "SIGKILL": "killed, most likely for want of memory",
                "SIGABRT": "aborted",
            }
            what = f"ended by {name}" + (f" ({known[name]})" if name in known else "")
        else:
            what = f"exited with status {status} in the middle of a request"
        said = [line for line in self.output().splitlines() if line.strip()]
        return WorkerFailed(what + (f": {said[-1].strip()[:200]}" if said else ""), detail="\n".join(said))

    def end(self) -> None:
        """End the whole process group. The group is the worker's own, so nothing else can be hit."""
        _LIVE.discard(self)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def start_python(python: Path, adapter: Path, env: dict[str, str], **limits: Any) -> Worker:
    """Start a Python worker: the interpreter of a framework's environment and the framework's adapter.

    Bytecode is kept inside the environment: a second import is several times faster, and nothing is written beside the
    versions.
    """
    env = {**env, "PYTHONPYCACHEPREFIX": str(python.parent.parent / "bytecode")}
    return Worker([str(python), str(PACKAGE / "worker" / "__main__.py"), str(adapter)], env, **limits)
