"""What a comparison has measured so far, on disk: one JSON line a finished round, or a cell of a grid that has come
home, so that a comparison which is killed goes on where it was. What is too large for a line lies in a file beside it.

Lines are appended, so that the ten thousandth costs what the first does. A kill may tear the last one: who resumes
reads up to it, and writes what is whole anew. Where the disk is full, the comparison goes on without a journal, and
says so.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlrosetta import paths

FOLDER = "unfinished"


class Journal:
    """Lines about one comparison, which `key` tells apart: what is compared, of which versions, on which machine. One
    without a key is kept in memory alone.
    """

    def __init__(self, key: str | None, resume: bool = False, say: Callable[[str], None] = lambda line: None):
        self.path = folder() / f"{key}.jsonl"
        self.files = folder() / f"{key}"
        self.say = say
        self.lines: list[dict[str, Any]] = _read(self.path) if resume and key else []
        self.writes = key is not None
        if self.writes and not self.lines:
            shutil.rmtree(self.files, ignore_errors=True)
        self._write(lambda: paths.write(self.path, b"".join(map(_line, self.lines))))

    def add(self, **line: Any) -> None:
        """Keep a line: in memory always, on disk while that can be written."""
        self.lines.append(line)
        self._write(lambda: _append(self.path, _line(line)))

    def keep(self, file: Path, **line: Any) -> Path:
        """Move a file beside the lines, then add one about it; where it cannot be moved it stays, and no line is added.
        Answer where it is.
        """
        if not self.writes:
            return file
        kept = self.files / f"{len(self.lines)}{file.suffix}"
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, kept)
        except OSError as error:
            self.say(f"{kept} cannot be written ({error.strerror}): on --resume it would be made again")
            return file
        self.add(**line, file=kept.name)
        return kept

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The lines that have `kind`."""
        return [line for line in self.lines if kind in line]

    def remove(self) -> None:
        """The comparison is done and its result is kept."""
        shutil.rmtree(self.files, ignore_errors=True)
        self._forget()

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.path.parent.rmdir()  # unless others are in it

    def _write(self, write: Callable[[], None]) -> None:
        if not self.writes:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write()
        except OSError as error:
            self.writes = False
            self._forget()
            self.say(f"{self.path} cannot be written ({error.strerror}): this comparison could not be resumed")


def folder() -> Path:
    """Where unfinished comparisons are kept."""
    return paths.results_dir() / FOLDER


def _line(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"


def _append(path: Path, line: bytes) -> None:
    with path.open("ab") as file:
        file.write(line)


def _read(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a journal."""
    try:
        content = path.read_text(encoding="utf-8")
    except OSError:
        return []
    found = []
    for line in content.splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            break
        if not isinstance(one, dict):
            break
        found.append(one)
    return found
