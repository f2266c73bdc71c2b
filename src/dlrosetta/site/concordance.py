"""The concordance: every name that the versions use, where each stands, and what stands for it in other frameworks.

Lines of one text, in one section, about one concept say the same thing in each framework's words: that is an *entry*.
(What frameworks do in different sections, as clipping, is one entry, in the section where most have it.) A search finds
names (`nn.GRU`, `optax.adam`, `padding`) and plain words ("gate order", "学习率"), and answers with entries: the lines
that hold the name, and beside them the same entry's lines in the others. All of it comes from the syntax tree and from
layers' names, so every line of an answer is one that runs. `search` does what a page's script has to do, on the same
documents.

`build` gives JSON documents by file name, none above SHARD bytes:

`index.json`
    schema: 1
    kinds: what an entry can be of: "text" now, "phrase" when the phrasebook stands beside it
    frameworks: [slug, title], …
    texts: [name, title], …
    sections: names
    concepts: [key, label in English, in Chinese, what was proven in English, in Chinese, patterns of checks], …
    versions: [text, file, frameworks that run it], …     by their numbers above
    weights: how well a name or phrase fits a query: "whole", "begins", "within" (of queries of "least" letters);
        "known" is added for a framework known
    aside: sections whose entries come after others that fit as well
    names, entries, lines: the other files' names, in order
`entries-0.json`, …
    entries: [kind, text, section, concept, [version, [line, …], version, [line, …], …]], …    numbered on over files
`names-0.json`, …
    names: [name in full, names as written, [entry, version, line, entry, version, line, …]], …
    phrases: [words, [concept, …]], …                      plain words, in the first file alone
`lines-cnn.json`, …
    lines: {version: {line: its code}}                     of lines that an entry has
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrosetta import sections
from dlrosetta.site import agreement, lines, syntax
from dlrosetta.site.agreement import proven
from dlrosetta.site.syntax import Word
from dlrosetta.site.vocabulary import ENTRIES, label, plain
from dlrosetta.toml import read_toml

if TYPE_CHECKING:
    from dlrosetta.frameworks import Framework
    from dlrosetta.texts import Text

__all__ = ["Hit", "build", "proven", "search"]

SHARD = 250_000  # bytes of a document
KINDS = ("text", "phrase")
ANYWHERE = frozenset(concept for concept, entry in ENTRIES.items() if entry.get("anywhere"))
TRIVIAL = re.compile(r"^(self|cls|__\w+__|x|y|n|i)$")
# How well a name or phrase fits a query: the whole of it (`nn.GRU` of `torch.nn.GRU`), its beginning, any part.
# What is a framework's that is known gains KNOWN.
WHOLE, BEGINS, WITHIN, KNOWN = 100, 60, 30, 100
LEAST = 4  # letters below which a query is not looked for within names
ASIDE = ("Imports", "Configuration")  # where names are only brought in: after the lines that use them


class _Numbers(dict[Any, int]):
    """Numbers things as they come."""

    def __missing__(self, key: Any) -> int:
        self[key] = len(self)
        return self[key]


def build(texts: Iterable[Text], frameworks: Mapping[str, Framework]) -> dict[str, Any]:
    """The documents of the index, by file name, as above."""
    return _Index(list(texts), frameworks).documents()


class _Index:
    def __init__(self, texts: list[Text], frameworks: Mapping[str, Framework]):
        self.texts, self.frameworks = texts, list(frameworks.values())
        self.sections, self.concepts, self.entries = _Numbers(), _Numbers(), _Numbers()
        self.versions: list[tuple[int, str, list[int]]] = []
        self.where: dict[int, dict[int, list[int]]] = defaultdict(dict)  # entry: version: lines
        self.votes: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
        self.names: dict[str, dict[str, Any]] = {}  # in full: as written, places
        self.code: dict[str, dict[int, dict[int, str]]] = {text.name: {} for text in texts}
        for number, text in enumerate(texts):
            files: dict[str, list[int]] = defaultdict(list)
            for place, framework in enumerate(self.frameworks):
                if (text.folder / framework.version_file(text.name)).is_file():
                    files[framework.version_file(text.name)].append(place)
            for file, places in files.items():
                self.versions.append((number, file, places))
                self._read(text, number, text.folder / file, self.frameworks[places[0]])

    def _read(self, text: Text, number: int, path: Path, framework: Framework) -> None:
        version = len(self.versions) - 1
        about = lines.concepts(text, framework)
        source = path.read_text(encoding="utf-8").splitlines()
        section_of = {
            line: part.name
            for part in sections.split("\n".join(source))
            for line in range(part.start, part.start + len(part.lines))
        }
        found: dict[int, dict[str, int]] = {}  # entries of a line, what it is most about first
        for line, keys in about.items():
            found[line] = {key: self._entry(number, section_of.get(line, ""), key) for key in keys}
            for entry in found[line].values():
                self.where[entry].setdefault(version, []).append(line)
        self.code[text.name][version] = {line: source[line - 1].rstrip() for line in about}
        for word in syntax.words(path):
            if word.line in found and _worth(word, text):
                entries = found[word.line]
                own = lines.own_concepts(word, section_of.get(word.line, ""), framework)
                first = next((entry for key, entry in entries.items() if key in own), next(iter(entries.values())))
                self._name(word, first, version)

    def _entry(self, text: int, section: str, concept: str) -> int:
        if concept in ANYWHERE:
            self.votes[(text, concept)][section] += 1
            section = ""
        return self.entries[(0, text, self.sections[section], self.concepts[concept])]

    def _name(self, word: Word, entry: int, version: int) -> None:
        full = word.full.lstrip(".")
        known = self.names.setdefault(full, {"written": set(), "places": {}})
        known["places"][(entry, version, word.line)] = None
        if not _ends_with(full, word.name.lstrip(".")):
            known["written"].add(word.name)

    def _settled(self, entry: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        """An entry's key; of one that may stand anywhere, with the section in which most of its lines stand."""
        kind, text, _, number = entry
        concept = list(self.concepts)[number]
        votes = self.votes.get((text, concept))
        return (kind, text, self.sections[votes.most_common(1)[0][0]], number) if votes else entry

    def documents(self) -> dict[str, Any]:
        phrases = _phrases(self.concepts)
        entries = [
            [
                *self._settled(entry),
                [part for version, numbers in self.where[place].items() for part in (version, numbers)],
            ]
            for entry, place in self.entries.items()
        ]
        names = [
            [name, sorted(known["written"]), [part for place in known["places"] for part in place]]
            for name, known in sorted(self.names.items(), key=lambda item: (item[0].lower(), item[0]))
        ]
        shards = {
            **{f"entries-{n}.json": {"entries": part} for n, part in enumerate(_cut(entries))},
            **{
                f"names-{n}.json": {"names": part, "phrases": phrases if n == 0 else []}
                for n, part in enumerate(_cut(names, len(_dumped(phrases))))
            },
            **{f"lines-{text}.json": {"lines": code} for text, code in self.code.items()},
        }
        index = {
            "schema": 1,
            "kinds": list(KINDS),
            "frameworks": [[one.slug, one.title] for one in self.frameworks],
            "texts": [[one.name, one.title] for one in self.texts],
            "sections": list(self.sections),
            "concepts": [
                [key, label(key), label(key, "zh"), agreement.words(key), agreement.words(key, "zh"), list(proven(key))]
                for key in self.concepts
            ],
            "versions": self.versions,
            "weights": {"whole": WHOLE, "begins": BEGINS, "within": WITHIN, "known": KNOWN, "least": LEAST},
            "aside": list(ASIDE),
            **{
                part: [name for name in shards if name.startswith(f"{part}-")] for part in ("names", "entries", "lines")
            },
        }
        return json.loads(_dumped({"index.json": index, **shards}))  # as a page reads it: lists, and text for keys


def _worth(word: Word, text: Text) -> bool:
    """Whether a name is one to search for: not a variable of the function, which every version calls as it likes."""
    last = word.parts[-1]
    if TRIVIAL.match(last) and word.kind != "keyword":
        return False
    if word.kind == "string":
        return re.fullmatch(r"[A-Za-z][\w-]{2,}", word.name) is not None
    own = word.name == word.full and "." not in word.name and word.kind == "name"
    return not own or word.called or last.isupper() or (word.defines and last in _layer_names(text))


@lru_cache(maxsize=16)
def _layer_names_of(folder: Path, names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(part for name in names for part in name.split("."))


def _layer_names(text: Text) -> frozenset[str]:
    return _layer_names_of(text.folder, tuple(layer["name"] for layer in text.full_layers))


def _ends_with(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")


def _dumped(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _cut(rows: list[Any], taken: int = 0) -> list[list[Any]]:
    """Rows in parts that make documents below SHARD bytes; the first has `taken` bytes less."""
    parts: list[list[Any]] = [[]]
    size = taken
    for row in rows:
        more = len(_dumped(row).encode()) + 1
        if size + more > SHARD - 1000 and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += more
    return parts


def _phrases(concepts: Mapping[str, int]) -> list[list[Any]]:
    """Plain words and the concepts that they mean, of `synonyms.toml`; labels are found by themselves."""
    found: dict[str, set[int]] = defaultdict(set)
    for pattern, entry in read_toml(Path(__file__).with_name("synonyms.toml")).items():
        for concept, number in concepts.items():
            if fnmatch(concept, pattern):
                for phrase in entry["words"]:
                    found[phrase.lower()].add(number)
    return [[phrase, sorted(numbers)] for phrase, numbers in sorted(found.items())]


# -- searching ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hit:
    """An entry, how well it fits, and its lines by version (its number): `here` are those that hold the name that was
    found, in frameworks that are known if any are; empty where plain words were found. `lines` are all of the entry.
    """

    score: int
    text: str
    section: str
    concept: str
    here: dict[int, list[int]]
    lines: dict[int, list[int]]


def search(documents: Mapping[str, Any], query: str, know: str | None = None, limit: int = 20) -> list[Hit]:
    """The entries that a query finds, best first; of equal ones those that say it in more versions, then in the
    texts' order. Where `know` names a framework, names that it uses come first.
    """
    index = documents["index.json"]
    entries = [entry for file in index["entries"] for entry in documents[file]["entries"]]
    wanted = _normal(query)
    if not wanted:
        return []
    scores: dict[int, int] = {}
    here: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    slugs = [slug for slug, _ in index["frameworks"]]
    mine = {n for n, (_, _, run) in enumerate(index["versions"]) if know in [slugs[place] for place in run]}
    for file in index["names"]:
        for name, written, places in documents[file]["names"]:
            fit = max(_fit(_normal(one), wanted) for one in (name, *written))
            for entry, version, line in zip(*[iter(places)] * 3, strict=True) if fit else ():
                score = fit + (KNOWN if version in mine else 0)
                if score > scores.get(entry, 0):
                    here[entry].clear()
                if score >= scores.get(entry, 0):
                    scores[entry] = score
                    here[entry][version].add(line)
    meant = _meant(documents, wanted)
    for number, entry in enumerate(entries):
        if meant.get(entry[3], 0) > scores.get(number, 0):
            scores[number] = meant[entry[3]]
            here[number].clear()

    def hit(number: int) -> Hit:
        _, text, section, concept, flat = entries[number]
        return Hit(
            scores[number],
            index["texts"][text][0],
            index["sections"][section],
            index["concepts"][concept][0],
            {version: sorted(found) for version, found in sorted(here[number].items())},
            dict(zip(flat[::2], flat[1::2], strict=True)),
        )

    def place(number: int) -> tuple[int, bool, int, int]:
        aside = index["sections"][entries[number][2]] in index["aside"]
        by_words = meant.get(entries[number][3], 0) >= scores[number]  # which all of its versions mean
        saying = len(entries[number][4]) // 2 if by_words else len(here[number])
        return -scores[number], aside, -saying, number

    best = sorted(scores, key=place)
    return [hit(number) for number in best[:limit]]


def _meant(documents: Mapping[str, Any], wanted: str) -> dict[int, int]:
    """Concepts that plain words mean, and how well they fit."""
    index = documents["index.json"]
    found: dict[int, int] = {}
    phrases = [(phrase, numbers) for file in index["names"] for phrase, numbers in documents[file]["phrases"]]
    labels = [(words, [n]) for n, concept in enumerate(index["concepts"]) for words in concept[:3]]
    for phrase, numbers in [*phrases, *labels]:
        fit = _fit(_normal(phrase), wanted)
        for number in numbers:
            found[number] = max(fit, found.get(number, 0))
    return {number: fit for number, fit in found.items() if fit}


def _normal(words: str) -> str:
    """Without case, spaces, underscores and hyphens; C++'s `::` and `->` are dots."""
    return re.sub(r"[\s_-]+", "", plain(re.sub(r"::|->", ".", words))).removesuffix("()").strip(".")


def _fit(name: str, wanted: str) -> int:
    """How well a name or phrase fits: `nn.gru` is the whole of `torch.nn.gru`, `nn.gr` its beginning."""
    if not wanted or wanted not in name:
        return 0
    if name == wanted or name.endswith(f".{wanted}"):
        return WHOLE
    begins = name.startswith(wanted) or f".{wanted}" in name
    return BEGINS if begins else WITHIN if len(wanted) >= LEAST else 0
