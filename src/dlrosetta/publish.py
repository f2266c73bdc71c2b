"""Prepares a result for a pull request: what others will read is true of what is here, and tells nothing private.

Where a value looks like a path, an address, a name of this user or machine, or a serial number, the whole value goes,
for what stands beside a private word is often private too. Names that a result is found by are checked, and refused.
"""

from __future__ import annotations

import contextlib
import copy
import getpass
import hashlib
import json
import os
import re
import socket
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlrosetta import paths, results
from dlrosetta.errors import RosettaError
from dlrosetta.proof import HOLDING

# Values that a result is found by: of these letters alone, and left as they are.
PLAIN = ("text", "profile", "track", "unit", "dtype", "date", "framework", "verdict", "scope", "a", "b", "switches")
PLAIN_WORD = re.compile(r"[\w .,=+:-]{0,100}")
REQUIRED = ("data", "cpu", "system", "python", "dlrosetta")
# Versions have four numbers at times, as addresses do.
VERSIONS = ("version", "python", "numpy", "dlrosetta", "driver", "cuda", "cudnn")
PRIVATE_KEYS = re.compile(
    r"(?i)(^|_)(host|hostname|node|nodename|user|username|login|home|cwd|path|file|dir|folder|ip|mac|uuid|serial|email|"
    r"env|environ|environment|command|argv)(_|$)"
)
PRIVATE = {
    "a path": re.compile(r"(?<![\w/])~?/[\w.@~-]|\b[A-Za-z]:[\\/]|\\\\\w|(?i:\b(home|users)[/\\]\w)"),
    "an address": re.compile(r"\w://|[\w.+-]+@[\w-]|\b[\w-]+\.(local|lan|internal|intranet|corp|home|localdomain)\b"),
    "a number of a network or device": re.compile(
        r"(?i)\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    ),
}
IP = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b")
COMMON = ("root", "localhost", "user")  # names that tell nothing


def show(file: str, output: str | None, stone: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> int:
    """`rosetta results publish`: where the copy lies, what was left out, and what to do next."""
    from dlrosetta import console

    path, removed = publish(Path(file), folder(output), results.Today(stone, frameworks_dir))
    screen = console.out()
    screen.print(f"wrote {path}", soft_wrap=True, markup=False)
    for where, why in removed:
        screen.print(f"left out: {where} ({why})", style="dim", soft_wrap=True, markup=False)
    screen.print(f"Next: git add {path}, and open a pull request with it", soft_wrap=True, markup=False)
    return 0


def folder(output: str | None) -> Path:
    """Where copies go: the folder named, else results/ of this checkout."""
    ours = Path(output) if output else paths.project_results()
    if ours is None:
        raise RosettaError("Expected a folder: this is no checkout with results/. Received: none.", "--output DIR")
    return ours


def publish(file: Path, where: Path, today: results.Today) -> tuple[Path, list[tuple[str, str]]]:
    """Check a result file and write its copy. Returns the copy's path, and what was left out and why. Raises
    RosettaError where the file is no result, does not hold for what is here now, or cannot be made fit to be shown.
    """
    try:
        found = results.read(file)
    except RosettaError as error:
        raise RosettaError(f"{file}: {error.message}", error.hint) from error
    if len(found) != 1:
        raise RosettaError(f"{file}: Expected the result of one text. Received: {len(found)} in one document.")
    document = found[0].document
    check_against_proof(document, today)
    document, removed = scrubbed(document, today)
    content = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
    path = where / name_of(document, content)
    where.mkdir(parents=True, exist_ok=True)
    _write_new(path, content)
    return path, removed


def name_of(document: dict[str, Any], content: bytes) -> str:
    """The same for the same content: cnn-quick-tuned-20261129T203300Z-1a2b3c4d.json."""
    usual = ("default", "float32")
    apart = "".join(f"-{document[key]}" for key in ("track", "dtype") if document.get(key, "float32") not in usual)
    stamp = f"{results.moment(document['date']):%Y%m%dT%H%M%SZ}"
    return f"{document['text']}-{document['profile']}{apart}-{stamp}-{hashlib.sha256(content).hexdigest()[:8]}.json"


def _write_new(path: Path, content: bytes) -> None:
    """Write a file whole, or not at all where one of its name is there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        os.link(beside, path)  # unlike a renaming, it never overwrites
    except FileExistsError as error:
        raise RosettaError(
            f"{path} is there already: this result has been prepared before.", f"git add {path}"
        ) from error
    finally:
        beside.unlink(missing_ok=True)


# -- is it true? -------------------------------------------------------------------------------------------------------


def check_against_proof(document: dict[str, Any], today: results.Today) -> None:
    """Raise RosettaError unless each timed cell was measured with what is here now, and exactly that is proven here."""
    from dlrosetta.proof import run

    dtype, track = document.get("dtype", "float32"), document["track"]
    timed = [cell for cell in document["cells"] if cell["items_per_second"]]
    if not timed:
        raise RosettaError("Expected a cell that was timed. Received: none.", f"rosetta compare {document['text']}")
    for cell in timed:
        slug, name = cell["framework"], document["text"]
        options = (f" --dtype {dtype}" if dtype != "float32" else "") + (
            f" --track {track}" if track != "default" else ""
        )
        again = f"rosetta compare {name} --frameworks {slug}{options}"
        _check_numbers(cell, again)
        changed = today.changed(document, cell)
        if changed is None:
            raise RosettaError(f"{slug}: Expected the hashes of what was measured. Received: none.", again)
        if changed:
            what = results.changes(", ".join(changed))
            raise RosettaError(f"{slug}: Expected a result of what is here now. Changed since: {what}.", again)
        text = today.text(name)
        framework = text.on_track(today.frameworks[slug], track)
        for one in dict.fromkeys(("float32", dtype)):  # in mixed precision, of which behaviour is not asked, both
            remembered = run.recall(text, framework, one)
            verdict = remembered["verdict"] if remembered else "not proven here as it is now"
            if verdict not in HOLDING or (one == dtype and verdict != cell["verdict"]):
                raise RosettaError(
                    f"{slug}: Expected {cell['verdict'] if cell['verdict'] in HOLDING else 'proven'} in {one}. "
                    f"Received: {verdict}.",
                    f"rosetta prove {name} --frameworks {slug}{f' --dtype {one}' if one != 'float32' else ''}"
                    f"{f' --track {track}' if track != 'default' else ''}",
                )


def _check_numbers(cell: dict[str, Any], again: str) -> None:
    speed = cell["items_per_second"]
    median = statistics.median(speed["samples"]) if speed["samples"] else 0.0
    if abs(median - speed["median"]) > 1e-9 * median or not speed["low"] <= median <= speed["high"]:
        told = f"{speed['low']:.6g} to {speed['high']:.6g} around {speed['median']:.6g}"
        raise RosettaError(
            f"{cell['framework']}: Expected the samples' median, {median:.6g}, in its interval. Received: {told}.",
            again,
        )


# -- does it tell anything private? ------------------------------------------------------------------------------------


def scrubbed(document: dict[str, Any], today: results.Today) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A copy without private values, and what was left out and why. Raises RosettaError where such a value cannot be
    left out.
    """
    public = {reason for one in today.frameworks.values() for reason in (*one.cannot.values(), *one.lacks.values())}
    names = own_names()
    removed: list[tuple[str, str]] = []

    def clean(value: Any, key: str, where: str) -> Any:
        if isinstance(value, dict):
            kept = {}
            for name, one in value.items():
                here = f"{where}.{name}" if where else name
                why = "a name or place" if PRIVATE_KEYS.search(name) else private(name, names, "")
                if why:
                    removed.append((here if why == "a name or place" else where, why))
                else:
                    kept[name] = clean(one, name, here)
            return kept
        if isinstance(value, list):
            return [clean(one, key, f"{where}[{number}]") for number, one in enumerate(value)]
        if not isinstance(value, str) or value in public:
            return value
        if key in PLAIN:
            if not PLAIN_WORD.fullmatch(value):
                raise RosettaError(f"Expected a plain name at {where}. Received: {value!r}.")
            return value
        why = private(value, names, key)
        if why and key in REQUIRED:
            raise RosettaError(f"Expected nothing private at {where}. Received: {value!r}, which has {why}.")
        if why:
            removed.append((where, why))
        return None if why else value

    cleaned = clean(copy.deepcopy(document), "", "")
    results.check(cleaned)
    return cleaned, removed


def private(value: str, names: dict[str, str], key: str) -> str | None:
    """What is private in a value; None where nothing is found."""
    for why, pattern in PRIVATE.items():
        if pattern.search(value):
            return why
    if key not in VERSIONS and IP.search(value):
        return "a number of a network or device"
    for name, why in names.items():
        if re.search(rf"(?i)(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", value):
            return why
    return None


def own_names() -> dict[str, str]:
    """Names by which this user and this machine are known, and what they are."""
    found = dict.fromkeys(_users(), "this user's name")
    host = socket.gethostname()
    found |= dict.fromkeys((host, host.split(".")[0], os.environ.get("HOSTNAME", "")), "this machine's name")
    return {name: why for name, why in found.items() if len(name) > 2 and name.lower() not in COMMON}


def _users() -> Iterator[str]:
    yield from (os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER"))
    yield Path.home().name
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without a name
        yield getpass.getuser()
