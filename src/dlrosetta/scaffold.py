"""Starts a new framework or a new text: files that say, each in its place, what they want next.

What is written is complete enough to run at once: `rosetta golden` computes a new text, and `rosetta prove` goes
through a new framework function by function, naming the next one to write. Nothing that is there is ever overwritten.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlrosetta import frameworks, paths, texts
from dlrosetta.errors import RosettaError, UsageError

TEMPLATES = paths.PACKAGE / "templates"
SUFFIX = ".tmpl"
GUIDED = "it names the next function to write"


@dataclass(frozen=True)
class Started:
    """What was written, and the commands to type next with what each is for."""

    files: list[Path]
    commands: list[tuple[str, str]]


def framework(
    name: str, folder: str | None, wanted: Iterable[str], stone: tuple[str, ...], frameworks_dir: tuple[str, ...]
) -> Started:
    """Write a framework's folder into `folder`, and a version of each text in `wanted`. Raises UsageError."""
    parent = _parent(folder, "frameworks")
    known_frameworks, known_texts = frameworks.find(frameworks_dir), texts.find(paths.stone_dirs(stone))
    _new(name, "framework", parent, {slug: one.folder for slug, one in known_frameworks.items()})
    chosen = [one for text in dict.fromkeys(wanted) for one in texts.select(text, known_texts)]
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for one in chosen:
        _free(one, name)
    files = _write(TEMPLATES / "framework", parent / name, {"__NAME__": name, "__PYTHON__": python})
    extra = _extra("--frameworks-dir", parent, paths.frameworks_dirs())
    commands = [(f"rosetta env lock {name}{extra}", "once requirements.in names the framework")]
    for one in chosen:
        files.append(_version(one, frameworks.load(parent / name)))
        places = _extra("--stone", one.folder.parent, paths.stone_dirs()) + extra
        commands.append((f"rosetta prove {one.name} --frameworks {name}{places}", GUIDED))
    return Started(files, commands)


def text(
    name: str, folder: str | None, wanted: Iterable[str], stone: tuple[str, ...], frameworks_dir: tuple[str, ...]
) -> Started:
    """Write a text's folder into `folder`, and its version in each framework in `wanted`. Raises UsageError."""
    parent = _parent(folder, "stone")
    known = frameworks.find(frameworks_dir)
    _new(name, "text", parent, texts.find(paths.stone_dirs(stone)))
    chosen = frameworks.select(",".join(wanted), known) if wanted else []
    if any(one.extension != ".py" for one in chosen):
        raise UsageError("Expected frameworks whose versions are Python files: only of these there is a skeleton.")
    values = {
        "__NAME__": name,
        "__TITLE__": name.replace("_", " ").capitalize(),
        "__ROLES__": ", ".join(texts.ROLES),
        "__INITIALS__": ", ".join(texts.INITIALS),
    }
    files = _write(TEMPLATES / "text", parent / name, values)
    begun = texts.load(parent / name)
    by_file = {one.version: one for one in chosen}  # one file may serve several frameworks
    files += [_version(begun, one) for one in by_file.values()]
    places = _extra("--stone", parent, paths.stone_dirs())
    commands = [(f"rosetta golden {name}{places}", "after every change of text.toml or reference.py")]
    ours = f" --frameworks {','.join(one.slug for one in chosen)}" if chosen else ""
    commands.append((f"rosetta prove {name}{ours}{places}", f"once there are versions: {name}_torch.py and others"))
    return Started(files, commands)


def version(text: str, name: str, stone: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> Started:
    """Write the skeleton of one text's version in one framework. Raises UsageError where there is one."""
    one = texts.select(text, texts.find(paths.stone_dirs(stone)))[0]
    chosen = frameworks.select(name, frameworks.find(frameworks_dir))[0]
    _free(one, chosen.version, chosen.extension)
    places = _extra("--stone", one.folder.parent, paths.stone_dirs())
    places += _extra("--frameworks-dir", chosen.folder.parent, paths.frameworks_dirs())
    command = f"rosetta prove {one.name} --frameworks {chosen.slug}{places}"
    return Started([_version(one, chosen)], [(command, GUIDED)])


def _free(text: texts.Text, suffix: str, extension: str = ".py") -> None:
    """Check that a version may be written: in Python, in a folder of the user's, where there is none."""
    target = text.version(suffix, extension)
    if extension != ".py":
        raise UsageError(f"Expected a framework whose versions are Python files. Received: one of {extension} files.")
    if target.exists():
        raise UsageError(f"Expected no version yet. Received: {target}, which is there and stays.")
    if text.folder.is_relative_to(paths.PACKAGE):
        raise UsageError(
            f"Expected a text in a folder of yours. Received: {text.name}, which lies in the program: {text.folder}.",
            f"cp -r {text.folder} . and then the same command with --stone .",
        )


def _version(text: texts.Text, framework: frameworks.Framework) -> Path:
    """Write the skeleton: the nine sections with the text's constants, layers and data, or the six of who does not
    train; return the file. What is its author's to write raises NotImplementedError and says what is expected: of it,
    `rosetta prove` makes the next thing to do.
    """
    target = text.version(framework.version)
    constants = "\n".join(f"{name} = {value!r}" for name, value in text.hyperparameters.items())
    layers = [
        f"# {layer['name']}: "
        + ", ".join(f"{name} {tuple(spec['shape'])}" for name, spec in layer["parameters"].items())
        for layer in text.layers
    ]
    layers += [f"# {one['name']}: rate {one['constant']}, on the way to {one['feeds']}" for one in text.dropout]
    values = {
        "# __REST__\n": _template("training" if framework.trains(text.trains) else "evaluation"),
        "__TITLE__": text.title,
        "__FRAMEWORK__": framework.title,
        "__DATA__": text.data,
        "__METRIC__": text.metric,
        "# __CONSTANTS__": constants,
        "# __LAYERS__": "\n".join(layers),
    }
    content = _fill(_template("version"), values)
    with _writing(target), target.open("x", encoding="utf-8") as file:
        file.write(content)
    return target


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.py{SUFFIX}").read_text(encoding="utf-8")


def _parent(folder: str | None, kind: str) -> Path:
    """Where to write: the folder named, else the checkout's own if this is one, else the current folder."""
    if folder:
        return Path(folder).expanduser().resolve()
    checkout = paths.PACKAGE.parents[1]
    ours = checkout / kind
    return ours if (checkout / "pyproject.toml").is_file() and os.access(ours, os.W_OK) else Path.cwd()


def _new(name: str, kind: str, parent: Path, known: dict[str, Path]) -> None:
    """Check that `name` is one and is not taken."""
    if not frameworks.SLUG.fullmatch(name):
        better = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_").lstrip("_0123456789")
        raise UsageError(
            f"Expected a name of lower-case letters, digits and _, with a letter first. Received: {name!r}.",
            f"rosetta new {kind} {better}" if better else None,
        )
    taken = known.get(name) or (parent / name if (parent / name).exists() else None)
    if taken:
        raise UsageError(f"Expected a new name. Received: {name!r}, which is there: {taken}.")


def _extra(option: str, folder: Path, known: list[Path]) -> str:
    """The option that a command needs to find what lies in `folder`."""
    if folder in known:
        return ""
    near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return f" {option} {near}"


def _fill(template: str, values: dict[str, str]) -> str:
    for mark, value in values.items():
        template = template.replace(mark, value)
    return template


def _write(templates: Path, target: Path, values: dict[str, str]) -> list[Path]:
    """Fill every template of a folder into `target`, written beside and renamed: there is never half of it."""
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for template in sorted(templates.glob(f"*{SUFFIX}")):
                content = _fill(template.read_text(encoding="utf-8"), values)
                (beside / template.name.removesuffix(SUFFIX)).write_text(content, encoding="utf-8")
            beside.chmod(0o755)  # mkdtemp's folders are for their owner alone
            beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return sorted(target.iterdir())


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RosettaError(
            f"Could not write {error.filename or target}: {error.strerror}.", "name a folder of yours with --dir"
        ) from error
