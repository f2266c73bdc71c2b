"""A text: a folder with text.toml, reference.py, golden.npz and its versions. Found by listing folders, checked when
read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrosetta.errors import RosettaError, UsageError, did_you_mean
from dlrosetta.toml import read_toml, require

if TYPE_CHECKING:
    from dlrosetta.frameworks import Framework

# What a parameter is, which says how frameworks lay it out: a convolution kernel, a dense kernel, an embedding table, a
# vector, or a running statistic, which is a vector that no gradient moves.
ROLES = ("conv", "dense", "embedding", "vector", "statistic")
# How a version must draw it at the start; "uniform" has `bound`, its half width, and "normal" has `std`.
INITIALS = {
    "glorot_uniform": None,
    "he_uniform": None,
    "uniform": "bound",
    "normal": "std",
    "zeros": None,
    "ones": None,
}
GATES = "rzn"  # reset, update, new: the order of a GRU's gates along the first axis of what `gates` marks
Keys = tuple[tuple[str, type], ...]
WAIVER: Keys = (("frameworks", list), ("dtype", str), ("checks", list), ("bound", float), ("reason", str))
WEIGHTS: Keys = (("title", str), ("address", str), ("size", int))  # and `checksum`, `unused`, `names`
VARIANT: Keys = (("name", str), ("frameworks", list), ("constants", dict), ("reason", str))
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
    declared: list[dict[str, Any]]
    dropout: list[dict[str, str]]
    inputs: dict[str, dict[str, Any]]
    proof: dict[str, Any]
    waivers: list[dict[str, Any]]
    variants: list[dict[str, Any]]
    names: dict[str, dict[str, str]]
    weights: dict[str, Any]
    data_parallel: bool = False  # its versions spread a batch over the devices that they find
    tuned: dict[str, list[str]] = field(default_factory=dict)  # switches of the tuned track, by framework

    @cached_property
    def constants(self) -> dict[str, Any]:
        """The hyperparameters as a proof has them: of a large model it takes a small one of the same build."""
        return {**self.hyperparameters, **self.proof.get("constants", {})}

    @cached_property
    def layers(self) -> list[dict[str, Any]]:
        """The layers of the proof's model: those of text.toml, sizes filled in, else what reference.py counts out."""
        return self._sized(self.constants)

    @cached_property
    def full_layers(self) -> list[dict[str, Any]]:
        """The layers of the model in full size."""
        return self._sized(self.hyperparameters)

    @cached_property
    def known_layers(self) -> list[dict[str, Any]]:
        """The layers of either size, those of the proof where both have one: what a worker knows names and roles by."""
        small = {layer["name"]: layer for layer in self.layers}
        full = {layer["name"]: layer for layer in self.full_layers}
        return list({**full, **small}.values())

    def _sized(self, constants: dict[str, Any]) -> list[dict[str, Any]]:
        if not self.declared:
            from dlrosetta import reference

            return reference.layers(self, constants)
        return [
            {
                **layer,
                "parameters": {
                    name: {**spec, "shape": sized(spec["shape"], constants)}
                    for name, spec in layer["parameters"].items()
                },
            }
            for layer in self.declared
        ]

    @property
    def input(self) -> str:
        """What the model is given: `images`, `tokens`."""
        return next(name for name in self.inputs if name != "labels")

    @property
    def statistics(self) -> bool:
        """Whether there are running statistics: then evaluation mode computes what training mode does not."""
        return len(self.trained) < len(self.parameters)

    @property
    def loud(self) -> bool:
        """Whether there are larger inputs than the usual: tokens have no size."""
        return self.inputs[self.input]["draw"] not in ("tokens", "labels")

    @property
    def files(self) -> bool:
        """Whether its examples are image files, which a version's loader decodes, and augments in training."""
        return bool(self.inputs[self.input].get("files"))

    @property
    def trains(self) -> bool:
        """Whether it is trained; otherwise it is a forward pass alone."""
        return "labels" in self.inputs

    def held_to(self, variant: dict[str, Any] | None) -> Text:
        """The text as a variant is proven: with the settings of the proof that it has of its own."""
        return replace(self, proof={**self.proof, **variant["proof"]}) if variant and "proof" in variant else self

    def on_track(self, framework: Framework, track: str) -> Framework:
        """The framework with the switches of a track: "default" has none, "tuned" those of the text's `[tuned]`."""
        return replace(framework, switches=tuple(self.tuned.get(framework.slug, ()))) if track == "tuned" else framework

    def names_for(self, slug: str, version: str) -> dict[str, str]:
        """Canonical to native names of parameters and layers, where a framework's break its adapter's rule."""
        return {**self.names.get(version, {}), **self.names.get(slug, {})}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical shape of every parameter, by canonical name, in order."""
        return {name: tuple(spec["shape"]) for name, spec in self.parameters.items()}

    @cached_property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """Specification (shape, role, initial) of every parameter, by canonical name `layer.parameter`."""
        return _parameters(self.layers)

    @cached_property
    def full_parameters(self) -> dict[str, dict[str, Any]]:
        """The same of the model in full size."""
        return _parameters(self.full_layers)

    @cached_property
    def trained(self) -> dict[str, dict[str, Any]]:
        """The parameters that gradients move: all but running statistics."""
        return {name: spec for name, spec in self.parameters.items() if spec["role"] != "statistic"}

    @property
    def golden(self) -> Path:
        return self.golden_of(None)

    def golden_of(self, variant: str | None) -> Path:
        """The golden of the text, or of one of its variants."""
        return self.folder / (f"golden-{variant}.npz" if variant else "golden.npz")

    def variant_for(self, slug: str, devices: int = 1) -> dict[str, Any] | None:
        """The variant of the text that a framework is held against, if it cannot do what the text says; on several
        devices first one of so many.
        """
        fitting = [one for one in self.variants if slug in one["frameworks"] and one.get("devices", 1) in (1, devices)]
        return max(fitting, key=lambda one: one.get("devices", 1), default=None)

    @property
    def reference(self) -> Path:
        return self.folder / "reference.py"

    def version(self, suffix: str, extension: str = ".py") -> Path:
        """Where the version of a framework stands, whether or not it is there."""
        return self.folder / f"{self.name}_{suffix}{extension}"

    def content_hash(self) -> str:
        """Of what the proof is made from: text.toml, goldens, and the reference where that counts out the layers."""
        digest = hashlib.sha256((self.folder / "text.toml").read_bytes())
        goldens = [self.golden_of(name) for name in (None, *(one["name"] for one in self.variants))]
        for path in goldens if self.declared else [*goldens, self.reference]:
            digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()


def _parameters(layers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{layer['name']}.{name}": spec for layer in layers for name, spec in layer["parameters"].items()}


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
        declared=get("layers", list, []),
        dropout=get("dropout", list, []),
        inputs=get("inputs", dict),
        proof=get("proof", dict),
        waivers=get("waivers", list, []),
        variants=get("variants", list, []),
        names=get("names", dict, {}),
        weights=get("weights", dict, {}),
        data_parallel=get("data_parallel", bool, False),
        tuned=get("tuned", dict, {}),
    )
    _check(text, path)
    return text


def _check(text: Text, path: Path) -> None:
    if not NAME.match(text.name):
        raise RosettaError(
            f"{path}: expected a folder name of lower-case letters, digits and _. Received: {text.name!r}"
        )
    for key in ("seed", "batch", "evaluation"):
        require(text.proof, key, int, path)
    for name in text.proof.get("constants", {}):
        if name not in text.hyperparameters:
            raise RosettaError(f"{path}: expected constants of the proof to be hyperparameters. Received: {name!r}")
    if not [name for name in text.inputs if name != "labels"]:
        raise RosettaError(f"{path}: expected an entry of inputs beside labels. Received: none")
    if text.trains:
        require(text.proof, "steps", int, path)
    for layer in text.declared:
        require(layer, "name", str, path)
        for name, spec in require(layer, "parameters", dict, path).items():
            check_parameter(f"{path}: {layer['name']}.{name}", spec)
    tables: list[tuple[dict[str, Any], Keys]] = [(one, WAIVER) for one in text.waivers]
    tables += [(one, VARIANT) for one in text.variants] + [(text.weights, WEIGHTS)] * bool(text.weights)
    for table, keys in tables:
        for key, kind in keys:
            require(table, key, kind, path)
    for waiver in text.waivers:
        if "some_cpus" in waiver:  # whether it is needed hangs on the CPU, as roundings of a kernel do
            require(waiver, "some_cpus", bool, path)


def check_parameter(where: str, spec: dict[str, Any]) -> None:
    """Refuse a parameter whose shape, role or initial distribution is not what can be proven."""
    if not isinstance(spec.get("shape"), list):
        raise RosettaError(f"{where}: expected a shape. Received: {spec.get('shape')!r}")
    if spec.get("role") not in ROLES:
        raise RosettaError(f"{where}: expected a role of {', '.join(ROLES)}. Received: {spec.get('role')!r}")
    if spec.get("initial") not in INITIALS:
        raise RosettaError(f"{where}: expected an initial of {', '.join(INITIALS)}. Received: {spec.get('initial')!r}")
    size = INITIALS[spec["initial"]]
    if size and not isinstance(spec.get(size), float):
        raise RosettaError(f"{where}: expected {size} = a real number. Received: {spec.get(size)!r}")


def sized(shape: list[Any], constants: dict[str, Any]) -> list[int]:
    """A shape with the names of constants replaced by their values; "3 HIDDEN" is three times one."""
    out = []
    for entry in shape:
        if isinstance(entry, str):
            factor, _, name = entry.rpartition(" ")
            if name not in constants or (factor and not factor.isdigit()):
                raise RosettaError(
                    f"Expected a number, a constant or a multiple of one in a shape. Received: {entry!r}"
                )
            entry = int(factor or 1) * int(constants[name])
        out.append(int(entry))
    return out


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
