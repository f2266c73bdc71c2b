"""The program's end of a worker: start it, ask it, and end it whatever it does.

A worker is somebody else's framework running somebody's code. It may crash, hang, print, fork or eat the memory; each
of these costs its own cell and becomes one sentence (`WorkerFailed`). It gets an allow-listed environment, a private
pipe, its own process group and a scratch folder, and all of them are gone when `Worker.close` returns. See
docs/protocol.md.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import secrets
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dlrosetta.errors import UsageError
from dlrosetta.paths import PACKAGE, cache_dir

ALLOWED = {
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ROSETTA_DATA", "XDG_DATA_HOME",
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "SSL_CERT_FILE",
}  # fmt: skip
PATIENCE = 600.0  # seconds that one request may take before the worker counts as hung: some compile for minutes
MEMORY = 12 * 2**30  # bytes that a worker and its children may hold resident, where the machine has twice that
MOST_OUTPUT = 64 * 2**20  # bytes of standard output and error; a worker that prints more is broken
LOOK_EVERY = 0.1  # seconds between looks at memory and output
LONGEST_LINE = 2**24  # bytes of one answer: arrays travel as files
ROOM = "Set ROSETTA_CACHE to a folder with room that you may write to"
LONGEST_REASON = 500  # characters of a worker's error that are shown
MARK = "ROSETTA_RUN"  # names one worker or run in the environment of all that it starts
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
    if not named:
        return min(MEMORY, psutil.virtual_memory().total // 2)
    try:
        bytes_ = int(float(named) * 2**30)
    except (ValueError, OverflowError):
        bytes_ = 0
    if bytes_ <= 0:
        raise UsageError(f"Expected ROSETTA_MEMORY_GB to be a number of gigabytes. Received: {named!r}.")
    return bytes_


def worker_environment(declared: Mapping[str, str], threads: int) -> dict[str, str]:
    """The allowed part of this process's environment, and what the framework declares."""
    env = {name: value for name, value in os.environ.items() if name in ALLOWED}
    return {**env, **declared, "ROSETTA_THREADS": str(threads)}


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, and so of workers that it starts, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_LIVE: set[Worker] = set()


def end_all() -> None:
    """End every worker of this process: called when it is interrupted, from whatever thread notices."""
    for worker in list(_LIVE):
        worker.end()


@atexit.register
def _clear() -> None:
    """End what an interruption left in the midst of being started or closed, and remove its scratch folder."""
    for worker in list(_LIVE):
        worker.end()
        worker.clear()


def end_marked(mark: str) -> None:
    """End every process that inherited the mark: children that were orphaned or left the group have no other tie."""
    import psutil

    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has just ended, or is somebody else's
            if other.environ().get(MARK) == mark:
                other.kill()


def unwritable(path: object, error: OSError) -> str:
    """What to say where the cache cannot be written, and what to do."""
    return f"{path} cannot be written: {error.strerror}. {ROOM}"


def one_line(text: object) -> str:
    """The first line of what a worker said, fit for any terminal: it must not move the cursor, nor fill the screen."""
    first = next((line.strip() for line in str(text).splitlines() if line.strip()), "no message")
    printable = "".join(letter if letter.isprintable() else "�" for letter in first)
    return printable if len(printable) <= LONGEST_REASON else f"{printable[:LONGEST_REASON]} …"


class Worker:
    """One worker process. Use as a context manager; `ask` sends a request and waits for its answer."""

    def __init__(self, command: list[str], env: dict[str, str], patience: float = PATIENCE, memory: int | None = None):
        """Start `command` with exactly the environment `env` and the numbers of the pipe's two descriptors."""
        self.patience, self.memory = patience, memory or memory_limit()
        scratch = cache_dir() / "scratch"
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(prefix="worker-", dir=scratch, ignore_cleanup_errors=True)
        except OSError as error:
            raise WorkerFailed(unwritable(scratch, error)) from error
        self.scratch = Path(self._folder.name)
        self._mark = f"{os.getpid()}-{secrets.token_hex(8)}"
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
                    env={**env, "ROSETTA_READ": str(theirs_in), "ROSETTA_WRITE": str(theirs_out), MARK: self._mark},
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
        while True:
            answer = self._receive(op, patience or self.patience)
            if answer.get("id") != self._number:
                raise self._liar(
                    f"expected an answer to request {self._number} on the private pipe, "
                    f"received one to {answer.get('id')!r}"
                )
            if isinstance(answer.get("event"), dict):
                if on_event:
                    on_event(answer["event"])
                continue
            if answer.get("ok") is True and isinstance(answer.get("result"), dict):
                return answer["result"]
            told = answer.get("error")
            if answer.get("ok") is not False or not isinstance(told, dict):
                raise self._liar(f"expected a result or an error on the private pipe, received {json.dumps(answer)}")
            line = told.get("line") if isinstance(told.get("line"), int) else None
            shown = f"{one_line(told.get('type', 'Error'))}: {one_line(told.get('message', ''))}"
            if re.search(r"\[Errno (?:28|122)\]", shown):  # ENOSPC, EDQUOT: where it writes is its scratch folder
                shown = f"{shown}. {ROOM}"
            raise WorkerFailed(shown, line, str(told.get("traceback", "")))

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
        self.clear()
        _LIVE.discard(self)

    def clear(self) -> None:
        """Remove the scratch folder."""
        self._folder.cleanup()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _receive(self, op: str, patience: float) -> dict[str, Any]:
        deadline = time.monotonic() + patience
        while b"\n" not in self._buffer:
            if time.monotonic() > deadline:
                self.end()
                raise WorkerFailed(f"no answer to '{op}' for {patience:.0f} s; it was ended (--patience allows more)")
            readable, _, _ = select.select([self._from], [], [], LOOK_EVERY)
            if readable:
                chunk = os.read(self._from, 1 << 16)
                if not chunk:
                    raise self._death()
                self._buffer += chunk
                if len(self._buffer) > LONGEST_LINE:
                    size = LONGEST_LINE // 2**20
                    raise self._liar(f"expected an answer of at most {size} MB on the private pipe, received more")
            elif not self.alive():  # a child of its own may hold the pipe open
                raise self._death()
            self._look()
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._liar(f"expected JSON on the private pipe, received {line[:80]!r}") from error
        if not isinstance(answer, dict):
            raise self._liar(f"expected a JSON object on the private pipe, received {line[:80]!r}")
        return answer

    def _liar(self, message: str) -> WorkerFailed:
        """A worker that writes anything but the protocol is ended: no later answer could be trusted."""
        self.end()
        return WorkerFailed(one_line(message))

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
        return WorkerFailed(what + (f": {one_line(said[-1][:200])}" if said else ""), detail="\n".join(said))

    def end(self) -> None:
        """End the whole process group, which is the worker's own, and what it started outside of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        end_marked(self._mark)


def start_python(python: Path, adapter: Path, env: dict[str, str], **limits: Any) -> Worker:
    """Start a Python worker: the interpreter of a framework's environment and the framework's adapter.

    Bytecode is kept inside the environment: a second import is several times faster, and nothing is written beside the
    versions.
    """
    env = {**env, "PYTHONPYCACHEPREFIX": str(python.parent.parent / "bytecode")}
    return Worker([str(python), str(PACKAGE / "worker" / "__main__.py"), str(adapter)], env, **limits)
