"""What pages are made from: texts, frameworks, versions, READMEs, docs and published proofs, read once.

Nothing is run and no environment is made: what is read is the tree and its result files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrosetta import frameworks, paths, texts
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework
from dlrosetta.site import proofs, prose, versions
from dlrosetta.site.proofs import Cell, Proofs
from dlrosetta.site.prose import Prose
from dlrosetta.site.versions import Version
from dlrosetta.texts import Text

if TYPE_CHECKING:
    from dlrosetta.report import Group

ROOT = paths.schema("prove").parents[2]  # the checkout, or what a wheel carries of it
WHOLE = (ROOT / "pyproject.toml").is_file()  # of a wheel, which lacks some files, links to those are plain text
# Files that a page shows, by what they are called there; docs/*.md are found by listing.
DOCS = {"start": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
# What READMEs say where they do not say the title.
CALLED = {
    "equinox": ("eqx", "optax", "JAX"), "flax": ("nnx", "optax", "JAX"), "gluon": ("MXNet",), "libtorch": ("C++",),
    "onnxruntime": ("ONNX",), "paddle": ("Paddle",),
}  # fmt: skip
PAGES = {"stone": "texts/", "frameworks": "frameworks/", "results": "speed/", "docs": "docs/"}  # folders


@dataclass
class Material:
    """All of it. `files` fills up while pages are made: files of the tree that a page links to, by their address."""

    texts: list[Text]
    frameworks: dict[str, Framework]
    proofs: Proofs
    results: Path | None
    stone: tuple[str, ...] = ()
    frameworks_dir: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    notebooks: dict[tuple[str, str], str] = field(default_factory=dict)  # text and framework to address
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # of frameworks, once they are gathered
    groups: dict[str, dict[str, list[Group]]] = field(default_factory=dict)  # of results, by language, once drawn
    index: dict[str, Any] | None = None  # of the concordance, once it is made

    @cached_property
    def versions(self) -> dict[str, dict[str, Version]]:
        """Text to slug to version."""
        return {text.name: versions.find(text, self.frameworks) for text in self.texts}

    @cached_property
    def readmes(self) -> dict[str, Prose]:
        """Text to its README; one without a README has an empty one."""
        found = {}
        for text in self.texts:
            path = text.folder / "README.md"
            source = path.read_text(encoding="utf-8") if path.is_file() else f"# {text.title}\n"
            words = {slug: _words(one) for slug, one in self.versions[text.name].items()}
            found[text.name] = prose.parse(f"stone/{text.name}/README.md", source, words)
        return found

    @cached_property
    def docs(self) -> dict[str, Prose]:
        """Name of the page to what it says."""
        places = {**DOCS, **{path.stem: f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))}}
        return {
            name: prose.parse(place, (ROOT / place).read_text(encoding="utf-8"))
            for name, place in places.items()
            if (ROOT / place).is_file()
        }

    def state(self, text: Text, framework: Framework) -> str:
        return proofs.state(text, framework, self.cells(text).get(framework.slug, []))

    def cells(self, text: Text) -> dict[str, list[Cell]]:
        """The published proofs of a text, by framework."""
        return self.proofs.get(text.name, {})

    def parameters(self, text: Text) -> int:
        """How many numbers the model in full size learns; running statistics are not learnt."""
        return sum(math.prod(spec["shape"]) for spec in text.full_parameters.values() if spec["role"] != "statistic")

    def lead(self, text: Text) -> str:
        """The first sentences of a text's README, as plain text."""
        first = next((one for one in self.readmes[text.name].parts[0].tokens if one.type == "inline"), None)
        said = prose.plain(first) if first else ""
        return re.split(r"(?<=\.)\s", said.replace("\n", " "))[0]

    # -- addresses -----------------------------------------------------------------------------------------------------

    def page_of(self, place: str) -> str | None:
        """The page of the site for a file or folder of the repository, "" where there is none but it exists; None
        where it does not. Files without a page are copied.
        """
        for name, document in self.docs.items():
            if place == document.place:
                return f"docs/{name}.html"
        parts = place.split("/")
        text = next((one for one in self.texts if parts[:2] == ["stone", one.name]), None)
        if place in PAGES:
            return PAGES[place]
        if text is not None:
            if len(parts) == 2:
                return f"texts/{text.name}/"
            if parts[2:] == ["README.md"]:
                return f"texts/{text.name}/about.html"
            for slug, version in self.versions[text.name].items():
                if parts[2:] == [version.path.name]:
                    return f"texts/{text.name}/{slug}.html"
        path = text.folder.joinpath(*parts[2:]) if text is not None else ROOT / place
        if path.is_dir():
            return ""
        return self.file(path, place) if path.is_file() else None if WHOLE else ""

    def file(self, path: Path, place: str) -> str:
        """The address of a copy of a file."""
        self.files[f"files/{place}"] = path
        return f"files/{place}"


def _words(version: Version) -> tuple[str, ...]:
    """What prose calls a version: its title, its frameworks' titles, without what stands in brackets."""
    titles = {version.title, *(one.title for one in version.frameworks)}
    bare = {re.sub(r"\s*\(.*\)", "", title) for title in titles}
    last = {title.split()[-1] for title in bare if " on " not in title}
    return tuple(sorted(bare | last | set(CALLED.get(version.slug, ()))))


def gather(stone: tuple[str, ...], frameworks_dir: tuple[str, ...], published: Path | None) -> Material:
    """Read everything. Raises RosettaError naming the file that is wrong."""
    found = [texts.load(folder) for folder in texts.find(paths.stone_dirs(stone)).values()]
    if not found:
        raise RosettaError("Expected texts. Received: none", "rosetta new text mine")
    known = frameworks.find(frameworks_dir)
    proven = proofs.find(published / "proofs" if published else None, found, known)
    return Material(_ordered(found, known), known, proven, published, stone, frameworks_dir)


def _ordered(found: Iterable[Text], known: dict[str, Framework]) -> list[Text]:
    """Those with most versions first, then small models first: the order to read in."""
    return sorted(found, key=lambda text: (-len(versions.find(text, known)), len(text.full_layers)))
