"""What a page says of a framework to somebody who comes from another: from its `framework.toml`, its adapter, its
versions, what texts say of it, and the faults that were planted in its versions.

Nothing is written here about any framework. What is said stands in those files, and lines of code are found by what
they are about (`lines`).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrosetta import paths, sections
from dlrosetta.site import lines, syntax
from dlrosetta.toml import read_toml

if TYPE_CHECKING:
    from dlrosetta.frameworks import Framework
    from dlrosetta.texts import Text

# What a reader asks of a framework, and the concepts of the lines that answer; the order is that of reading.
TOPICS: dict[str, tuple[str, ...]] = {
    "model": ("model:class", "model:forward"),
    "init": ("init",),
    "seed": ("seed",),
    "gradients": ("step:loss", "step:backward", "step:zero-grad", "step:clip", "step:update"),
    "state": ("optimizer:kind", "optimizer:state"),
    "mode": ("mode:training", "mode:evaluation", "mode:no-gradient"),
    "compile": ("compile", "wait"),
    "data": ("data:tensor", "data:batch", "data:shuffle"),
    "device": ("device", "parallel"),
}
EXAMPLES = 3  # lines that are shown of each concept
AXES = {"O": "out", "I": "in", "H": "height", "W": "width"}
ACTIVATIONS = {
    "channels_first": ["batch", "channels", "height", "width"],
    "channels_last": ["batch", "height", "width", "channels"],
}
GATES = {"r": "reset", "z": "update", "n": "new"}
# How much what is told hurts, and by which words that is known; what fits several is the first.
HURTS = {
    "silent": (
        r"no shape complains|nothing (stops|breaks|would stop)|without a word|no word|says nothing|still fits"
        r"|loads either|\boff\b|\bwrong\b|another (number|model|\*training)|default is another|not the same|other ones"
        r"|different models|same order|does not repeat|never gets far|NaN|cancels|counts? a²|threefold|times smaller"
        r"|\bunless\b|\bby default\b|weighs the|\blose it\b|apart\.$|on its own|agree here only|pads unevenly"
        r"|draws? (from 0|the same|once)|divides both|decay_steps` from the end|corrects no bias|\*before it|over n − 1"
        r"|too small|takes a .* for its|sees all|\*may look|neither trained|differs most|would be in it"
    ),
    "error": r"refuse|crash|cannot|already gone|has no\b|have no\b|has none|have not\b|runs on .* only",
    "slow": r"slow|times as long|\d s\b|seconds|compil|faster|\bmemory\b",
}
TELLS = (*sections.NAMES, "What to look at", "On several devices")  # headings below which texts tell of frameworks
COMMON = {*sys.stdlib_module_names, "numpy", "PIL", "sklearn", "dlrosetta", "cstdio", "data"}


def facts(framework: Framework, texts: Iterable[Text], planted: Path | None = None) -> dict[str, Any]:
    """What there is to say, JSON-ready:

    slug, title, language, python, status, release, date, homepage, can, devices, dtypes
        as in framework.toml
    cannot, lacks
        reasons, by precision or ability, and by text
    layouts
        of each part (conv, dense, activations, recurrent, gates): `value` ("HWIO") and its `axes` in words
    adapter
        what the program must know of it to load parameters and to look at layers: the adapter's own words
    names
        by which texts call it ("Flax", "optax")
    versions
        `text`, `file`, `lines` (how many)
    topics
        by topic of TOPICS: lines that answer it, `text`, `file`, `line`, `code`, `concept`, each kind of line once
    friends
        what texts tell of it, false friends first: `text`, `section`, `title`, `prose` (Markdown), `hurts`
    faults
        edits of its versions that a hand could slip into, each made and caught by the proof, each kind once: `text`,
        `name`, `section`, `layer`, `file`, `line`, `old`, `new`, `hurts`. None where the tests are not, as in an
        installed package
    tuned
        switches of the tuned track, by text
    exceptions
        what is proven of it to a wider bound or another formula: `text`, `dtype` (None: any), `reason`

    `hurts` says how: "silent" (it runs on and computes something else), "error" (it stops), "slow", "" (it only is
    another way). Friends and faults are sorted by that, in this order, for what nobody notices costs most; then those
    that name the framework in their title, then as the texts have them. Of faults it is known, for they were run; of
    friends it is told by the words with which texts tell of them (HURTS), which may be mistaken.
    """
    every = list(texts)
    own = [text for text in every if (text.folder / framework.version_file(text.name)).is_file()]
    names = _names(framework, own)
    return {
        "slug": framework.slug,
        "title": framework.title,
        "language": framework.language,
        "python": framework.python,
        "status": framework.status,
        "release": framework.release,
        "date": framework.release_date,
        "homepage": framework.homepage,
        "can": list(framework.can),
        "devices": list(framework.devices),
        "dtypes": list(framework.dtypes),
        "cannot": dict(framework.cannot),
        "lacks": dict(framework.lacks),
        "layouts": _layouts(framework),
        "adapter": _adapter(framework),
        "names": names,
        "versions": [
            {"text": text.name, "file": framework.version_file(text.name), "lines": len(_source(text, framework))}
            for text in own
        ],
        "topics": _topics(framework, own),
        "friends": _friends(framework, every, names),
        "faults": _faults(framework, own, planted),
        "tuned": {text.name: text.tuned[framework.slug] for text in own if framework.slug in text.tuned},
        "exceptions": list(_exceptions(framework, own)),
    }


def _source(text: Text, framework: Framework) -> list[str]:
    return (text.folder / framework.version_file(text.name)).read_text(encoding="utf-8").splitlines()


def _layouts(framework: Framework) -> dict[str, dict[str, Any]]:
    found = {}
    for part, value in framework.layout.items():
        words = GATES if part == "gates" else AXES
        axes = ACTIVATIONS[value] if part == "activations" else [words[letter] for letter in value]
        found[part] = {"value": value, "axes": axes}
    return found


def _adapter(framework: Framework) -> str:
    """The docstring of an adapter; "" where the worker is in another language."""
    if not framework.adapter.is_file():
        return ""
    return ast.get_docstring(ast.parse(framework.adapter.read_text(encoding="utf-8"))) or ""


def _topics(framework: Framework, texts: list[Text]) -> dict[str, list[dict[str, Any]]]:
    """Lines by topic: of each concept the first that differ from one another, in the order of texts. Lines that are
    most about it go before others.
    """
    about = [
        (text.name, number, keys, source[number - 1].strip())
        for text in texts
        for source in [_source(text, framework)]
        for number, keys in lines.concepts(text, framework).items()
        if "train" in framework.can or _section(text, framework, number) not in sections.OF_TRAINING
    ]
    found: dict[str, list[dict[str, Any]]] = {}
    for topic, wanted in TOPICS.items():
        shown: dict[str, dict[str, Any]] = {}
        for concept in wanted:
            fitting = [one for one in about if concept in one[2] and not one[3].startswith("def ")]
            fitting.sort(key=lambda one: one[2][0] != concept)
            first = {code: (text, number) for text, number, _, code in reversed(fitting)}
            most = [code for code in dict.fromkeys(one[3] for one in fitting) if code not in shown][:EXAMPLES]
            for code in most:
                text, number = first[code]
                where = {"text": text, "file": framework.version_file(text), "line": number}
                shown[code] = {**where, "code": code, "concept": concept}
        found[topic] = list(shown.values())
    return found


def _section(text: Text, framework: Framework, line: int) -> str:
    return sections.section_of(text.folder / framework.version_file(text.name), line)


def _exceptions(framework: Framework, texts: list[Text]) -> Iterator[dict[str, Any]]:
    for text in texts:
        said = set()
        variant = text.variant_for(framework.slug)
        if variant:
            yield {"text": text.name, "dtype": None, "reason": variant["reason"]}
        for waiver in text.waivers:
            if framework.slug in waiver["frameworks"] and (waiver["dtype"], waiver["reason"]) not in said:
                said.add((waiver["dtype"], waiver["reason"]))
                yield {"text": text.name, "dtype": waiver["dtype"], "reason": waiver["reason"]}


# -- what texts tell ---------------------------------------------------------------------------------------------------


def _names(framework: Framework, texts: list[Text]) -> list[str]:
    """What a framework is called in prose: its title, the names in it (TVM of Apache TVM), its slug, its language if
    that is not Python, and the modules that most of its versions import.
    """
    title = re.sub(r"\s*\(.*\)", "", framework.title.partition(" on ")[0])
    found = [title, framework.version, *re.findall(r"\w*[A-Z]\w*[A-Z]\w*", framework.title.partition(" on ")[0])]
    found += [] if framework.language.lower() == "python" else [framework.language]
    imported: list[str] = []
    for text in texts:
        words = syntax.words(text.folder / framework.version_file(text.name))
        imported += {word.full.split(".")[0] for word in words if word.kind == "import"} - COMMON
    found += [name for name in imported if imported.count(name) > len(texts) / 2 and name.isidentifier()]
    return sorted({name.lower(): name for name in reversed(found)}.values(), key=str.lower)


def _named(names: list[str], prose: str) -> bool:
    """Whether one of the names stands in prose, as a word of any case."""
    return any(re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", prose, re.IGNORECASE) for name in names)


def _friends(framework: Framework, texts: list[Text], names: list[str]) -> list[dict[str, Any]]:
    found = []
    for text in texts:
        readme = text.folder / "README.md"
        for section, note in _notes(readme.read_text(encoding="utf-8") if readme.is_file() else ""):
            if _named(names, note) and not _of_another_backend(framework, note):
                emphasis = re.match(r"\*([^*]+)\*", note)
                title = (emphasis[1] if emphasis else "").strip(".: ")
                hurts = next((kind for kind, words in HURTS.items() if re.search(words, note)), "")
                found.append({"text": text.name, "section": section, "title": title, "prose": note, "hurts": hurts})
    return sorted(found, key=lambda one: (_rank(one["hurts"]), not _named(names, one["title"])))


def _rank(hurts: str) -> int:
    return [*HURTS, ""].index(hurts)


def _notes(readme: str) -> Iterator[tuple[str, str]]:
    """Items of lists and paragraphs below the headings that tell of frameworks, with the heading; tables are not."""
    heading = ""
    for block in re.split(r"\n(?=- |#)|\n\s*\n", re.sub(r"(?s)```.*?```", "", readme)):
        block = block.strip()
        if block.startswith("#"):
            heading, _, block = block.lstrip("# ").partition("\n")
        block = " ".join(block.removeprefix("- ").split())
        told = [one for one in re.split(r",\s*", heading) if one.lower() in [name.lower() for name in TELLS]]
        if told and block and not block.startswith("|"):
            yield heading, block


def _of_another_backend(framework: Framework, note: str) -> bool:
    """Whether a note is about Keras on other backends alone."""
    mine = framework.title.partition(" on ")[2]
    on = set(re.findall(r"[Oo]n (JAX|TensorFlow|PyTorch|OpenVINO)\b", note))
    return bool(mine and on and mine not in on and "any backend" not in note and "every backend" not in note)


# -- what was tried ----------------------------------------------------------------------------------------------------


def _faults(framework: Framework, texts: list[Text], planted: Path | None) -> list[dict[str, Any]]:
    """The catalogue of the tests; of Keras, whose versions several frameworks run, that of all of them."""
    folder = planted or paths.PACKAGE.parents[1] / "tests" / "mutations"
    known = {text.name: "\n".join(_source(text, framework)) + "\n" for text in texts}
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.toml")):
        table = _catalogue(path)
        if table["text"] not in known or not _runs(framework, table.get("framework", path.stem)):
            continue
        source = known[table["text"]]
        for fault in table.get("fault", ()):
            old, new = fault.get("old"), fault.get("new")
            if fault["section"] == "Configuration" or not isinstance(old, str) or source.count(old) != 1:
                continue  # a constant is no idiom; of several changes at once there is no line
            if fault["name"] in [one["name"] for one in found]:
                continue
            found.append(
                {
                    "text": table["text"],
                    "name": fault["name"],
                    "section": fault["section"],
                    "layer": fault.get("layer"),
                    "file": framework.version_file(table["text"]),
                    "line": source.count("\n", 0, source.index(old)) + 1,
                    "old": old,
                    "new": new,
                    "hurts": "error" if fault.get("verdict") == "failed" else "silent",
                }
            )
    return sorted(found, key=lambda one: (_rank(one["hurts"]), sections.NAMES.index(one["section"])))


@lru_cache(maxsize=256)
def _catalogue(path: Path) -> dict[str, Any]:
    return read_toml(path)


def _runs(framework: Framework, slug: str) -> bool:
    """Whether a catalogue of `slug` is of the same version file."""
    return slug == framework.slug or (framework.version != framework.slug and slug.startswith(f"{framework.version}_"))
