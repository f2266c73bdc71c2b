"""Makes, keeps and removes one Python environment a framework, from its `requirements.lock`.

An environment is ready when its folder bears its name, and it gets that name by one rename when it is complete. So a
killed run leaves only a hidden `.<name>.<pid>.tmp`, which nobody takes for an environment; whoever next holds that
name's file lock sweeps it away. Two programs that want the same one wait for each other; those that want different ones
do not. The name holds a hash of the lock file: a new lock makes a new environment, and the old one stays until removed.

A framework that compiles itself (`compile_s`) does so under the final name, for what it compiles holds paths. Until it
has, a file `.compiling` in its folder says that it is not ready; what a killed run left so is swept away too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dlrosetta import compiling, interpreters, paths
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import LINKS, Framework, library
from dlrosetta.indexes import places, uv_settings

NAME = re.compile(r"([a-z][a-z0-9_]*)-[0-9a-f]{12}")
COMPILING = ".compiling"  # in the folder of an environment that is not ready for it
Say = Callable[[str], None]


@dataclass(frozen=True)
class Environment:
    slug: str
    path: Path
    size_mb: float


def root() -> Path:
    return paths.cache_dir() / "environments"


def folder(framework: Framework) -> Path:
    """Return where the framework's environment is or would be. Raises RosettaError without a lock or a Python."""
    if framework.python is None:
        raise RosettaError(f"{framework.title} is not run by Python: it has no environment.")
    if not framework.lock.is_file():
        raise RosettaError(
            f"Expected {framework.lock}. Received: no such file.", hint=f"rosetta env lock {framework.slug}"
        )
    key = framework.lock.read_bytes() + b"python " + framework.python.encode()
    key += "".join(f" link {link} {name}" for link, name in sorted(framework.links.items())).encode()
    return root() / f"{framework.slug}-{hashlib.sha256(key).hexdigest()[:12]}"


def state(framework: Framework) -> str:
    """Return "ready", "stale" (only one of another lock is there) or "missing"."""
    if _ready(folder(framework)):
        return "ready"
    return "stale" if any(slug == framework.slug for slug, _ in _made()) else "missing"


def ensure(framework: Framework, progress: Say | None = None) -> Path:
    """Return the interpreter of the framework's environment, making the environment first if need be."""
    target = folder(framework)
    # Without the lock: the name alone says that it is ready.
    return _python(target) if _ready(target) else create(framework, progress)


def ensure_all(frameworks: Iterable[Framework]) -> dict[str, Path | RosettaError]:
    """Make the environments that are missing, one after the other, telling on stderr; errors are returned by slug."""
    result: dict[str, Path | RosettaError] = {}
    missing = []
    for framework in frameworks:
        try:
            framework.check_needs()
            if state(framework) == "ready":
                result[framework.slug] = _python(folder(framework))
            else:
                missing.append(framework)
        except RosettaError as error:
            result[framework.slug] = error
    return result | _make_all(missing) if missing else result


def _make_all(missing: list[Framework]) -> dict[str, Path | RosettaError]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    names = ", ".join(f"{framework.slug} ({_size(framework.size_mb)})" for framework in missing)
    total = _size(sum(framework.size_mb for framework in missing))
    console.print(f"Making {len(missing)} environment(s) under {root()}: {names}; {total} in all.", soft_wrap=True)
    for framework in missing:
        if framework.compile_s:
            console.print(f"{compiling.told(framework)}.", soft_wrap=True, markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    result: dict[str, Path | RosettaError] = {}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(missing))
        for framework in missing:

            def say(line: str, slug: str = framework.slug) -> None:
                bar.update(task, description=f"{slug}: {line}")

            try:
                result[framework.slug] = create(framework, say)
            except RosettaError as error:
                result[framework.slug] = error
            bar.advance(task)
    return result


def create(framework: Framework, progress: Say | None = None) -> Path:
    """Make the framework's environment unless another program has just done so; return its interpreter."""
    framework.check_needs()
    target = folder(framework)
    say = progress or (lambda line: None)
    with _writing(framework.slug):
        root().mkdir(parents=True, exist_ok=True)
        _sweep()
        say("waiting for its lock")
        with _lock(target.name):
            if not _ready(target):
                say(f"looking for Python {framework.python}")
                python = interpreters.find(str(framework.python))
                _make(framework, python, target, say)
    return _python(target)


def _make(framework: Framework, python: Path, target: Path, say: Say) -> None:
    beside = _beside(target)
    log = paths.cache_dir() / "logs" / f"{target.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    environ, flags = uv_settings(os.environ)
    uv = partial(_uv, slug=framework.slug, environ=environ, cwd=root(), log=log, say=say)
    if _has_torch(framework.lock) and not places(environ, flags) and "UV_TORCH_BACKEND" not in environ:
        flags.append("--torch-backend=auto")  # the build for this machine's GPU, or for its CPU
    links = {link: _library(name, framework) for link, name in framework.links.items()}
    try:
        # Relocatable, for it is renamed. `cwd` keeps uv from the settings of whatever project the caller stands in.
        uv(["venv", "--quiet", "--relocatable", "--no-project", "--python", str(python), str(beside)])
        uv(["pip", "install", *flags, "--python", str(_python(beside)), "--requirements", str(framework.lock)])
        if links:
            (beside / LINKS).mkdir()
        for link, installed in links.items():
            (beside / LINKS / link).symlink_to(installed)
        if target.exists():  # its interpreter is gone from this machine
            _discard(target)
        if framework.compile_s:
            (beside / COMPILING).touch()
        beside.rename(target)
        if framework.compile_s:
            say(compiling.told(framework))
            try:
                compiling.load(framework, _python(target), log)
            except BaseException:
                _discard(target)
                raise
            (target / COMPILING).unlink()
        log.unlink()
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _library(name: str, framework: Framework) -> Path:
    """Return where a shared library lies, as the dynamic linker would find it. Raises RosettaError without one."""
    found = library(name)
    if found is None:
        packages = " ".join(framework.debian)
        raise RosettaError(
            f"{framework.title} needs the shared library {name}. Received: none of that name.",
            hint=f"apt install {packages}" if packages else "Install it, or name its folder in LD_LIBRARY_PATH.",
        )
    return found.absolute()  # not what it links to, whose name is another after the next update


def remove(slug: str) -> list[Path]:
    """Remove every environment of the framework, whatever its lock; return what was removed."""
    removed = []
    with _writing(slug):
        _sweep()
    for path in [path for made, path in _made() if made == slug]:
        with _writing(slug), _lock(path.name):
            if path.exists():
                _discard(path)
                removed.append(path)
    return removed


def list_all() -> list[Environment]:
    """Return every environment that is ready, with its size on disk."""
    return [Environment(slug, path, round(_bytes(path) / 1e6, 1)) for slug, path in _made()]


def lock(framework: Framework, progress: Say | None = None) -> Path:
    """Write `requirements.lock` anew from `requirements.in`: exact versions, hashes, no address and no local path.

    torch's wheel differs by place (CPU, CUDA, ROCm), and so does what it asks for. So torch is named without hash or
    build, and a lock with torch is made for its CPU build alone: what another build wants besides, uv finds when it
    installs. Every other lock holds for all platforms.
    """
    torch = _has_torch(framework.requirements)
    environ, flags = uv_settings(os.environ)
    for extra in ("UV_INDEX", "UV_EXTRA_INDEX_URL"):  # may hold some of a version's files, and so of its hashes
        environ.pop(extra, None)
    if not torch:
        flags += ["--universal", "--fork-strategy=fewest"]
    elif not places(environ, flags):
        flags.append("--torch-backend=cpu")
    flags += ["--generate-hashes", "--no-header", "--no-emit-index-url", "--no-emit-find-links"]
    flags += ["--python-version", str(framework.python)]
    log = paths.cache_dir() / "logs" / f"{framework.slug}-lock.log"
    with _writing(framework.slug), tempfile.TemporaryDirectory() as scratch:
        log.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(scratch, "draft")
        shutil.copy(framework.requirements, scratch)  # so that no path gets into the comments
        arguments = ["pip", "compile", *flags, "--output-file", str(draft), framework.requirements.name]
        _uv(arguments, framework.slug, environ, Path(scratch), log, progress or (lambda line: None))
        log.unlink()
        torch_entry = r"(?m)^(torch==[^+\s;]+)(?:\+[^\s;]+)?(.*?) \\\n(?:    --hash=\S+(?: \\)?\n)+"
        text = re.sub(torch_entry, r"\1\2\n", draft.read_text(encoding="utf-8"))
        beside = framework.lock.with_name(".requirements.lock.tmp")
        try:
            beside.write_text(f"# Written by: rosetta env lock {framework.slug}\n{text}", encoding="utf-8")
            beside.replace(framework.lock)
        finally:
            beside.unlink(missing_ok=True)
    return framework.lock


# ---- folders, and who may touch them


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _ready(environment: Path) -> bool:
    return _python(environment).exists() and not (environment / COMPILING).exists()


def _made() -> list[tuple[str, Path]]:
    """Slug and folder of every environment that is ready."""
    found = sorted(root().iterdir()) if root().is_dir() else []
    named = [(NAME.fullmatch(path.name), path) for path in found if _ready(path)]
    return [(match[1], path) for match, path in named if match]


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def _discard(target: Path) -> None:
    """Take the name away first, so that nobody finds half an environment under it."""
    beside = _beside(target).with_suffix(".old.tmp")
    target.rename(beside)
    shutil.rmtree(beside)


def _lock(name: str, timeout: float = -1):
    import filelock

    return filelock.FileLock(root() / f".{name}.lock", timeout=timeout)


def _sweep() -> None:
    """Remove what killed runs left. Who holds a name's lock is alone with it, so what lies there is nobody's."""
    import filelock

    for left in root().glob(".*.tmp"):
        name = left.name[1:].split(".")[0]
        with contextlib.suppress(filelock.Timeout), _lock(name, timeout=0):
            shutil.rmtree(left, ignore_errors=True)
    for mark in root().glob(f"*/{COMPILING}"):
        with contextlib.suppress(filelock.Timeout), _lock(mark.parent.name, timeout=0):
            if mark.exists():  # it may just have been finished
                _discard(mark.parent)


@contextlib.contextmanager
def _writing(slug: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or paths.cache_dir()
        raise RosettaError(
            f"Could not write {slug}'s environment: {where}: {error.strerror}.",
            hint="Set ROSETTA_CACHE to a folder with room that you may write to.",
        ) from error


def _bytes(path: Path) -> int:
    return sum(os.lstat(Path(parent, name)).st_size for parent, _, names in os.walk(path) for name in names)


def _size(megabytes: int) -> str:
    if not megabytes:
        return "size not known"
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"


def _has_torch(requirements: Path) -> bool:
    return re.search(r"(?m)^torch\b(?!-)", requirements.read_text(encoding="utf-8")) is not None


# ---- uv, and what it says


def _uv(arguments: list[str], slug: str, environ: dict[str, str], cwd: Path, log: Path, say: Say) -> None:
    """Run uv in a process group of its own, so that whatever it started ends with it. Raises RosettaError."""
    import uv

    command = [uv.find_uv_bin(), "--color=never", *arguments]
    lines = []
    with log.open("a", encoding="utf-8") as copy, subprocess.Popen(
        command, cwd=cwd, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            for line in process.stdout or ():
                copy.write(line)
                lines.append(line.rstrip())
                if line.strip():
                    say(line.strip())
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if status:
        raise failure(slug, status, lines, log)


# What uv says, what that means, what to do. The first that fits.
_CACHE = "Free some room, or set ROSETTA_CACHE and UV_CACHE_DIR to folders that have it."
_REASONS = (
    (r"\(os error (?:28|122|27)\)|SIGXFSZ", "the disk is full", _CACHE),  # ENOSPC, EDQUOT, EFBIG
    (r"Hash mismatch", "a package is not the one that was locked (hash mismatch)", "rosetta env lock {slug}"),
    (
        r"error sending request|dns error|[Cc]onnection refused|timed out|network was disabled|Failed to fetch",
        "the network, or a package index on it, cannot be reached",
        "Connect, or name an index or folder of wheels that can be reached: PIP_INDEX_URL, PIP_FIND_LINKS.",
    ),
    (r"Couldn't parse requirement", "its lock is not a list of requirements", "rosetta env lock {slug}"),
    (
        r"No solution found",
        "a package is not to be had here",
        "Name an index or folder of wheels that has it: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS.",
    ),
)


def failure(slug: str, status: int, lines: list[str], log: Path) -> RosettaError:
    """Turn what uv wrote into one line that says why, and a hint that says what to do and names the whole log."""
    if status < 0:
        lines = [*lines, f"error: uv was ended by {signal.Signals(-status).name}"]
    start = next((n for n, line in enumerate(lines) if line.startswith("error:")), 0)
    said = [line.strip() for line in lines[start:] if line.strip() and not line.startswith("hint:")]
    detail = " ".join(re.sub(r"^(error|cause): ", "", line) for line in said)
    detail = detail if len(detail) <= 300 else f"{detail[:200]} … {detail[-95:]}"
    fitting = [(reason, hint) for pattern, reason, hint in _REASONS if re.search(pattern, "\n".join(lines))]
    reason, hint = fitting[0] if fitting else ("uv failed", "Read the log.")
    return RosettaError(
        f"Could not make {slug}'s environment: {reason}: {detail}", hint=f"{hint.format(slug=slug)} Log: {log}"
    )
