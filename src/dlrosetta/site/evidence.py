"""The matrix and a page for each of its cells: every tensor's error against its bound, and the waivers with reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from functools import partial
from typing import TYPE_CHECKING, Any

from dlrosetta import sections
from dlrosetta.frameworks import Framework
from dlrosetta.site import words
from dlrosetta.site.material import Material
from dlrosetta.site.page import Context, Page, shared
from dlrosetta.site.proofs import Cell, Check
from dlrosetta.site.versions import Version
from dlrosetta.texts import Text

if TYPE_CHECKING:
    from dlrosetta.site.build import Maker

# "loud gradient/conv1.weight" is of the kind "gradient", in the variety "loud".
NAME = re.compile(
    r"(?:(loud|quiet|full size) )?(configuration|parameter|input|output|gradient|optimizer|initial|step (\d+))/(.+)"
)


def all_pages(everything: Material) -> Iterator[Page]:
    yield Page("matrix/", "matrix", partial(_matrix, everything))
    for text in everything.texts:
        for framework in everything.frameworks.values():
            if everything.state(text, framework) != "none":
                path = f"matrix/{text.name}/{framework.slug}.html"
                yield Page(path, "proof", partial(_proof, everything, text, framework))


def _matrix(everything: Material, maker: Maker) -> Context:
    lacking: dict[tuple[str, str], list[str]] = {}
    for framework in everything.frameworks.values():
        for text in everything.texts:
            if text.name in framework.lacks and everything.state(text, framework) == "cannot":
                lacking.setdefault((framework.slug, framework.lacks[text.name]), []).append(text.name)
    return {
        **shared(everything),
        "lacking": [(everything.frameworks[slug], names, reason) for (slug, reason), names in lacking.items()],
    }


def _proof(everything: Material, text: Text, framework: Framework, maker: Maker) -> Context:
    version = everything.versions[text.name].get(framework.version)
    version = version if version and framework in version.frameworks else None
    vocabulary = words.load(maker.language)["groups"]
    cells = everything.cells(text).get(framework.slug, [])
    return {
        "text": text,
        "framework": framework,
        "version": version,
        "cells": cells if version else [],
        "lacks": framework.lacks.get(text.name) if version is None else None,
        "waivers": [one for one in text.waivers if any(fnmatch(framework.slug, name) for name in one["frameworks"])],
        "variant": text.variant_for(framework.slug),
        "groups": lambda cell: groups(cell, vocabulary),
        "share": share,
        "place": _Places(text, version),
    }


def groups(cell: Cell, vocabulary: dict[str, str]) -> list[tuple[str, list[Check], str]]:
    """Title, checks and the worst verdict that is not "proven", of each kind of check, in the order of asking."""
    found: dict[str, list[Check]] = {}
    for check in cell.checks:
        name = NAME.fullmatch(check.name)
        title = vocabulary["other"]
        if name:
            variety, kind, steps, _ = name.groups()
            title = vocabulary[kind] if not steps else vocabulary["first_step"] if steps == "1" else vocabulary["step"]
            title = title.format(number=steps)
            title = vocabulary[variety.replace(" ", "_")].format(name=title) if variety else title
        found.setdefault(title, []).append(check)
    return [(title, checks, _worst(checks)) for title, checks in found.items()]


def share(check: Check) -> str:
    """How much of its bound an error takes: "53 %", "500,000 ×"; empty where there is none to take."""
    if not check.bound or check.error is None:
        return ""
    part = check.error / check.bound
    return f"{part:.0%}".replace("%", " %") if part < 10 else f"{part:,.0f} ×"


def _worst(checks: Iterable[Check]) -> str:
    there = {check.verdict for check in checks}
    return next((one for one in ("differs", "waived") if one in there), "")


# Of these kinds each row leads to its line; of the rest, which are many, the name says enough.
LINKED = ("configuration", "parameter", "input", "output", "gradient")


class _Places:
    """The line of a version in which the layer of a check is made; None where the check is of no layer, or of a kind
    that is not linked.
    """

    def __init__(self, text: Text, version: Version | None):
        self.version = version
        self.layers = sorted((layer["name"] for layer in text.known_layers), key=len, reverse=True)
        self.found: dict[str, int | None] = {}

    def __call__(self, check: Check) -> int | None:
        name = NAME.fullmatch(check.name)
        if self.version is None or name is None or name[1] or name[2] not in LINKED:
            return None
        rest = name[4].partition("/")[2] or name[4]
        if rest not in self.found:
            layer: Any = next((one for one in self.layers if rest == one or rest.startswith(f"{one}.")), None)
            word = layer or (rest if name[2] == "configuration" else None)
            section = "Configuration" if name[2] == "configuration" else "Model"
            self.found[rest] = sections.locate(self.version.path, section, word) or None if word else None
        return self.found[rest]
