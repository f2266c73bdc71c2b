"""A text: a folder with text.toml, reference.py, golden.npz and its versions. Found by listing folders, checked when
read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlrosetta.errors import RosettaError, UsageError, did_you_mean
from dlrosetta.toml import read_toml, require

ROLES = ("conv", "dense", "vector")
INITIALS = ("glorot_uniform", "zeros")
NAME = re.compile(r"^[a-z][a-z0-9_]*$")


@dataclass(frozen=True)
class Text:
    """One workload. `layers` are in order of computation; shapes are canonical (see text.toml of `cnn`)."""

    name: str
    folder: Path
    title: str
    unit: str
    metric: str
    data: str
    hyperparameters: dict[str, Any]
    layers: list[dict[str, Any]]
    dropout: list[dict[str, str]]
    inputs: dict[str, dict[str, Any]]
    proof: dict[str, int]
    waivers: list[dict[str, Any]]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical shape of every parameter, by canonical name, in order."""
        return {name: tuple(spec["shape"]) for name, spec in self.parameters.items()}

    @cached_property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Specification (shape, role, initial) of every parameter, by canonical name `layer.parameter`."""
        return {f"{layer['name']}.{name}": spec for layer in self.layers for name, spec in layer["parameters"].items()}

    @property
    def golden(self) -> Path:
        return self.folder / "golden.npz"

    @property
    def reference(self) -> Path:
        return self.folder / "reference.py"

    def version(self, suffix: str, extension: str = ".py") -> Path:
        """Where the version of a framework stands, whether or not it is there."""
        return self.folder / f"{self.name}_{suffix}{extension}"

    def content_hash(self) -> str:
        """Of what the proof is made from: text.toml and golden.npz."""
        digest = hashlib.sha256((self.folder / "text.toml").read_bytes())
        digest.update(self.golden.read_bytes() if self.golden.is_file() else b"")
        return digest.hexdigest()


def load(folder: Path) -> Text:
    """Read and check one text. Raises RosettaError naming file, key, expected and received."""
    path = folder / "text.toml"
    table = read_toml(path)

    def get(key: str, kind: type, default: Any = None) -> Any:
        return require(table, key, kind, path, default)

    text = Text(
        name=folder.name,
        folder=folder,
        title=get("title", str),
        unit=get("unit", str),
        metric=get("metric", str),
        data=get("data", str),
        hyperparameters=get("hyperparameters", dict),
        layers=get("layers", list),
        dropout=get("dropout", list, []),
        inputs=get("inputs", dict),
        proof=get("proof", dict),
        waivers=get("waivers", list, []),
    )
    _check(text, path)
    return text


def _check(text: Text, path: Path) -> None:
    if not NAME.match(text.name):
        raise RosettaError(
            f"{path}: expected a folder name of lower-case letters, digits and _. Received: {text.name!r}"
        )
    for layer in text.layers:
        require(layer, "name", str, path)
        for name, spec in require(layer, "parameters", dict, path).items():
            where = f"{path}: {layer['name']}.{name}"
            require(spec, "shape", list, path)
            if spec.get("role") not in ROLES:
                raise RosettaError(f"{where}: expected a role of {', '.join(ROLES)}. Received: {spec.get('role')!r}")
            if spec.get("initial") not in INITIALS:
                raise RosettaError(
                    f"{where}: expected an initial of {', '.join(INITIALS)}. Received: {spec.get('initial')!r}"
                )
    for key in ("seed", "batch", "steps", "evaluation"):
        require(text.proof, key, int, path)
    for key in ("images", "labels"):
        require(text.inputs, key, dict, path)
    for waiver in text.waivers:
        for key, kind in (("frameworks", list), ("dtype", str), ("checks", list), ("bound", float), ("reason", str)):
            require(waiver, key, kind, path)


def find(folders: Iterable[Path]) -> dict[str, Path]:
    """Name to folder of every text in the given folders of texts; a later folder wins a name."""
    found = {}
    for stone in folders:
        if not stone.is_dir():
            raise UsageError(f"Expected a folder of texts. Received: {stone}, which is not a folder")
        for folder in sorted(stone.iterdir()):
            if (folder / "text.toml").is_file():
                found[folder.name] = folder
    return dict(sorted(found.items()))


def select(name: str, known: dict[str, Path]) -> list[Text]:
    """The text called `name`, or every text for "all". Raises UsageError with a suggestion."""
    if name == "all":
        return [load(folder) for folder in known.values()]
    if name not in known:
        raise UsageError(
            f"Expected a text: {', '.join(known) or 'none is there'}. Received: {name!r}.{did_you_mean(name, known)}",
            "rosetta",
        )
    return [load(known[name])]
