"""What the program knows of each framework: `framework.toml`, found by listing folders.

Nothing else lists the frameworks: a folder with a `framework.toml` is one, wherever it lies. A wrong file is refused
as a whole, with its name, the key, what was expected and what was received, so that a typing mistake never becomes a
default.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlrosetta import machine, paths
from dlrosetta.errors import RosettaError, UsageError, did_you_mean
from dlrosetta.toml import read_toml

SLUG = re.compile(r"[a-z][a-z0-9_]*")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LIBRARY = r"[\w+.-]+\.so(\.\d+)*"
LINKS = "libraries"  # the folder of an environment that holds its `links`
LAYOUTS = {
    "conv": ("OIHW", "HWIO", "OHWI"),
    "dense": ("OI", "IO"),
    "activations": ("channels_first", "channels_last"),
}
MORE_LAYOUTS = {  # of a GRU's kernels; where nothing is said, they are stored as dense ones, in the order rzn
    "recurrent": LAYOUTS["dense"],
    "gates": ("rzn", "zrn"),
}


@dataclass(frozen=True)
class Framework:
    """One framework, as its folder describes it. `slug` is the folder's name."""

    slug: str
    folder: Path
    title: str
    language: str
    homepage: str
    release: str  # the last one, at the time of writing
    release_date: str
    can: tuple[str, ...]
    devices: tuple[str, ...]
    dtypes: tuple[str, ...]
    layout: Mapping[str, str]  # conv, dense, activations: how the framework stores them
    version: str  # it runs the files `<text>_<version><extension>`
    extension: str = ".py"
    command: tuple[str, ...] = ()  # starts the worker; empty: Python's own, with the adapter
    python: str | None = None  # None: not run by Python
    dead: int | None = None  # the year of the last release; None: living
    default: bool = False  # among those used when nobody names any
    needs: tuple[str, ...] = ()  # programs (a compiler) and shared libraries (libmpi.so.40) that this machine must have
    debian: tuple[str, ...] = ()  # the packages that bring them
    links: Mapping[str, str] = field(default_factory=dict)  # library that a wheel asks for: the one installed
    size_mb: int = 0  # of its environment, as measured
    compile_s: int = 0  # seconds, roughly, that it takes to compile itself when it is first loaded
    env: Mapping[str, str] = field(default_factory=dict)
    amd_env: Mapping[str, str] = field(default_factory=dict)  # beside env, on processors of AMD
    proof_env: Mapping[str, str] = field(default_factory=dict)  # beside env, in proofs alone: nothing is timed there
    threads: tuple[str, ...] = ()  # environment variables that take the number of threads
    parallel_env: Mapping[str, str] = field(default_factory=dict)  # beside env, on several devices
    processes: bool = False  # several devices are as many processes; otherwise one process has them all
    slow_on_cpu: str = ""  # why its products are slow on any CPU, with a link: it says nothing of a machine
    cannot: Mapping[str, str] = field(default_factory=dict)  # dtype that it lacks, or "data-parallel": why, with a link
    lacks: Mapping[str, str] = field(default_factory=dict)  # text without a version: why, with a link
    switches: tuple[str, ...] = ()  # of its adapter's, for speed: what a text's tuned track has of them
    adapter_file: str = "adapter.py"  # as seen from the folder: several frameworks may share one

    @property
    def status(self) -> str:
        return "living" if self.dead is None else f"dead since {self.dead}"

    @property
    def adapter(self) -> Path:
        return (self.folder / self.adapter_file).resolve()

    @property
    def requirements(self) -> Path:
        return self.folder / "requirements.in"

    @property
    def lock(self) -> Path:
        return self.folder / "requirements.lock"

    def check_needs(self) -> None:
        """Raise RosettaError where this machine lacks a program or a shared library that the framework needs."""
        lacking = [name for name in self.needs if not _here(name)]
        if lacking:
            hint = f"sudo apt-get install {' '.join(self.debian)}" if self.debian else f"see {self.homepage}"
            raise RosettaError(f"{self.title} needs {', '.join(self.needs)}. Not found: {', '.join(lacking)}.", hint)

    def trains(self, text: bool) -> bool:
        """Whether it is asked to train: the `text` does, and it can. Of a text that trains, a framework that does not
        is asked for the evaluation pass alone.
        """
        return text and "train" in self.can

    def version_file(self, text: str) -> str:
        """Return the name of the file that it runs for a text: `cnn_keras.py`."""
        return f"{text}_{self.version}{self.extension}"

    def environ(
        self, threads: int, environment: Path, proof: bool = False, spread: Mapping[str, object] | None = None
    ) -> dict[str, str]:
        """Return the environment variables that a worker needs; `{threads}` and `{environment}` are filled in, and on
        several devices what `spread` says: `{devices}`, `{rank}`, `{meeting}`.
        """
        declared = dict(self.env)
        for more, holds in ((self.amd_env, machine.is_amd()), (self.proof_env, proof), (self.parallel_env, spread)):
            declared.update(more if holds else {})
        known = {"threads": threads, "environment": environment, **(spread or {})}

        def fill(value: str) -> str:
            for name, known_value in known.items():
                value = value.replace("{" + name + "}", str(known_value))
            return value

        filled = {name: str(threads) for name in self.threads} | {k: fill(v) for k, v in declared.items()}
        if self.links:
            already = filled.get("LD_LIBRARY_PATH") or os.environ.get("LD_LIBRARY_PATH")
            filled["LD_LIBRARY_PATH"] = os.pathsep.join([str(environment / LINKS), *([already] if already else [])])
        return filled

    def started(self, python: Path) -> list[str]:
        """Return the command of a worker in another language, by the interpreter of the framework's environment."""
        known: dict[str, Path] = {
            "{python}": python,
            "{environment}": python.parent.parent,
            "{folder}": self.folder.resolve(),
            "{data}": paths.PACKAGE / "data",  # readers of the data sets in other languages
        }

        def fill(part: str) -> str:
            return re.sub("|".join(map(re.escape, known)), lambda found: str(known[found[0]]), part)

        return [fill(part) for part in self.command]

    def content_hash(self) -> str:
        """Return the sha256 (hex) of adapter, description and lock, and of a worker of its own: a proof holds for
        exactly these.
        """
        digest = hashlib.sha256()
        worker = sorted(path for path in self.folder.rglob("*") if path.is_file()) if self.command else []
        for path in (self.adapter, self.folder / "framework.toml", self.lock, *worker):
            content = path.read_bytes() if path.is_file() else b""
            digest.update(f"{path.name} {len(content)}\n".encode() + content)
        return digest.hexdigest()


def find(extra_dirs: Iterable[str] = ()) -> dict[str, Framework]:
    """Return every framework, by slug, in alphabetical order. In `extra_dirs` a known slug replaces ours."""
    found = {}
    for parent in paths.frameworks_dirs(tuple(extra_dirs)):
        if not parent.is_dir():
            raise UsageError(f"Expected a folder of frameworks. Received: {parent}, which is not a folder")
        for file in sorted(parent.glob("*/framework.toml")):
            found[file.parent.name] = load(file.parent)
    return dict(sorted(found.items()))


def select(names: str | None, known: Mapping[str, Framework]) -> list[Framework]:
    """Return the frameworks named in "a,b", all of them for "all", the default set for None; alphabetically."""
    if names is None:
        wanted = {slug for slug, framework in known.items() if framework.default}
    elif names.strip() == "all":
        wanted = set(known)
    else:
        wanted = {part.strip() for part in names.split(",")} - {""}
        if not wanted:
            raise UsageError(
                f"No framework is named. Expected: names separated by commas, or all. Received: {names!r}."
            )
    for slug in sorted(wanted - set(known)):
        raise UsageError(
            f"Unknown framework '{slug}'.{did_you_mean(slug, known)}",
            hint="Expected some of: " + ", ".join(sorted(known)) + ", or all.",
        )
    return [known[slug] for slug in sorted(wanted)]


def load(folder: Path) -> Framework:
    """Read one folder's `framework.toml`. Raises RosettaError where it is wrong."""
    file = folder / "framework.toml"
    if not SLUG.fullmatch(folder.name):
        raise RosettaError(
            f"{file}: Expected a folder name of lower-case letters, digits and _, with a letter first. "
            f"Received: '{folder.name}'."
        )
    given = _flat(read_toml(file), file)
    for key in given:
        if key not in KEYS:
            raise RosettaError(f"{file}: Unknown key '{key}'.{did_you_mean(key, KEYS)} Expected: {', '.join(KEYS)}.")
    for key, (expected, valid, required) in KEYS.items():
        if key not in given and required:
            raise RosettaError(f"{file}: Expected {key} = {expected}. Received: nothing.")
        if key in given and not valid(given[key]):
            raise RosettaError(f"{file}: Expected {key} = {expected}. Received: {given[key]!r}.")
    if "command" in given and "python" not in given:
        raise RosettaError(
            f'{file}: Expected python = "3.11" beside command: its environment has one. Received: nothing.'
        )
    status = given.pop("status")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    values["release"], values["release_date"] = values.pop("release.version"), values.pop("release.date")
    values["layout"] = {
        part: values.pop(f"layout.{part}") for part in (*LAYOUTS, *MORE_LAYOUTS) if f"layout.{part}" in given
    }
    values["parallel_env"] = values.pop("parallel.env", {})
    values["processes"] = values.pop("parallel.processes", False)
    values.setdefault("version", folder.name)
    values["adapter_file"] = values.pop("adapter", "adapter.py")
    return Framework(folder.name, folder, dead=None if status == "living" else status["dead"], **values)


def _here(name: str) -> bool:
    """Whether a program is on the PATH, or a shared library where the dynamic linker looks."""
    return (library(name) if ".so" in name else shutil.which(name)) is not None


def library(name: str) -> Path | None:
    """Return where a shared library lies, as the dynamic linker would find it; None where it would not."""
    named = [Path(part, name) for part in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part]
    cache = shutil.which("ldconfig", path=os.pathsep.join([os.environ.get("PATH", ""), "/sbin", "/usr/sbin"]))
    if cache:
        known = subprocess.run([cache, "-p"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        named += [Path(path) for path in re.findall(rf"(?m)^\s*{re.escape(name)} \(.*\) => (\S+)$", known.stdout)]
    return next((path for path in named if path.is_file()), None)


def _flat(table: dict[str, Any], file: Path) -> dict[str, Any]:
    """Name the entries of tables by dotted keys, so that one table of rules covers all."""
    flat = {}
    for key, value in table.items():
        if key not in ("layout", "release", "parallel"):
            flat[key] = value
        elif isinstance(value, dict):
            flat |= {f"{key}.{name}": entry for name, entry in value.items()}
        else:
            raise RosettaError(f"{file}: Expected [{key}] to be a table. Received: {value!r}.")
    return flat


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _matching(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _list_of(valid: Callable[[Any], bool], least: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(valid, value))


def _one_of(*choices: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in choices


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _status(value: Any) -> bool:
    return value == "living" or (isinstance(value, dict) and set(value) == {"dead"} and _whole(value["dead"]))


def _variables(value: Any) -> bool:
    return isinstance(value, dict) and all(VARIABLE.fullmatch(k) and isinstance(v, str) for k, v in value.items())


def _links(value: Any) -> bool:
    names = [*value, *value.values()] if isinstance(value, dict) else [None]
    return all(isinstance(name, str) and re.fullmatch(LIBRARY, name) for name in names)


def _reasons(value: Any) -> bool:
    return isinstance(value, dict) and all(key in _CANNOT and _text(reason) for key, reason in value.items())


def _lacking(value: Any) -> bool:
    return isinstance(value, dict) and all(SLUG.fullmatch(key) and _text(reason) for key, reason in value.items())


_CAN = ("train", "infer", "data-parallel")
_DEVICES = ("cpu", "cuda", "rocm", "metal")
_DTYPES = ("float32", "float64", "bfloat16")  # the last: mixed precision
_CANNOT = (*_DTYPES, "data-parallel")


def _some(choices: tuple[str, ...]) -> tuple[str, Callable[[Any], bool], bool]:
    return f"a list of some of {', '.join(choices)}", _list_of(_one_of(*choices), 1), True


# key: what is expected, in words; whether a value is that; whether the key must be there
KEYS: dict[str, tuple[str, Callable[[Any], bool], bool]] = {
    "title": ("a text", _text, True),
    "language": ("a text", _text, True),
    "homepage": ('"https://…"', _matching(r"https://\S+"), True),
    "status": ('"living" or {dead = year of the last release}', _status, True),
    "release.version": ("a text", _text, True),
    "release.date": ('"YYYY-MM-DD"', _matching(r"\d{4}-\d\d-\d\d"), True),
    "can": _some(_CAN),
    "devices": _some(_DEVICES),
    "dtypes": _some(_DTYPES),
    **{f"layout.{part}": (f"one of {', '.join(names)}", _one_of(*names), True) for part, names in LAYOUTS.items()},
    **{
        f"layout.{part}": (f"one of {', '.join(names)}", _one_of(*names), False) for part, names in MORE_LAYOUTS.items()
    },
    "python": ('"3.11", or left out', _matching(r"3\.\d+"), False),
    "version": ("the ending of version files, without extension", _matching(SLUG.pattern), False),
    "adapter": (
        'the path of an adapter from this folder, "../keras/adapter.py"',
        _matching(r"(\.\./)?[\w/]+\.py"),
        False,
    ),
    "command": (
        "a list of texts, the program first; {python}, {environment}, {folder} and {data} are filled in",
        _list_of(_text, 1),
        False,
    ),
    "extension": ('".py" or another', _matching(r"\.[A-Za-z0-9]+"), False),
    "default": ("true or false", lambda value: isinstance(value, bool), False),
    "needs": ("a list of programs and shared libraries", _list_of(_matching(r"[A-Za-z0-9][A-Za-z0-9+._-]*")), False),
    "debian": ("a list of package names", _list_of(_matching(r"[a-z0-9][a-z0-9+.-]+")), False),
    "links": ('a table of names of libraries, "libx.so.1" = "libx.so.2"', _links, False),
    "size_mb": ("a whole number", _whole, False),
    "compile_s": ("a whole number", _whole, False),
    "slow_on_cpu": ("the reason, with a link", _text, False),
    "cannot": (f"a table of reasons by {', '.join(_CANNOT)}", _reasons, False),
    "lacks": ("a table of texts (their folders' names) and reasons", _lacking, False),
    "env": ("a table of environment variables and texts", _variables, False),
    "amd_env": ("a table of environment variables and texts", _variables, False),
    "proof_env": ("a table of environment variables and texts", _variables, False),
    "parallel.env": (
        "a table of environment variables and texts; {devices}, {rank} and {meeting} are filled in",
        _variables,
        False,
    ),
    "parallel.processes": ("true or false", lambda value: isinstance(value, bool), False),
    "threads": ("a list of environment variables", _list_of(_matching(VARIABLE.pattern)), False),
}
