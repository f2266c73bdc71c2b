"""A version as a page shows it: its lines, highlighted, numbered as in the file, cut into sections, each with the
concepts that it is about.

One file may be run by several frameworks (`keras` by Keras on JAX, on TensorFlow …): it is one column, with a verdict
for each. Whatever a file holds is text: Pygments escapes it, and control characters are shown as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from dlrosetta import reading, sections
from dlrosetta.frameworks import Framework
from dlrosetta.site import lines
from dlrosetta.texts import Text


@dataclass(frozen=True)
class Line:
    """`number` is the file's own, counted from 1; `html` is highlighted; `concepts` are keys as `lines` gives them."""

    number: int
    html: Markup
    concepts: tuple[str, ...]

    @property
    def indent(self) -> int:
        """How far in the line begins, in fours, at most five: where a broken line goes on."""
        return min(5, (len(self.html) - len(self.html.lstrip(" "))) // 4)


@dataclass(frozen=True)
class Version:
    """One file of a text. `slug` is the ending of its name; `frameworks` are those that run it, alphabetically."""

    text: Text
    slug: str
    path: Path
    frameworks: tuple[Framework, ...]

    @property
    def title(self) -> str:
        """ "PyTorch"; of a file that several run, what their titles begin with: "Keras"."""
        titles = [one.title.split() for one in self.frameworks]
        shared = []
        for words in zip(*titles, strict=False):
            if len(set(words)) > 1:
                break
            shared.append(words[0])
        if len(titles) > 1 and shared and shared[-1] == "on":
            shared.pop()
        return " ".join(shared) or self.slug

    @property
    def language(self) -> str:
        return self.frameworks[0].language

    @cached_property
    def source(self) -> str:
        """The file without control characters; its lines are those of str.splitlines, as everywhere."""
        raw = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(line.translate(reading._CONTROL).expandtabs(4).rstrip() for line in raw)

    @cached_property
    def summary(self) -> str:
        """First sentence of the comment or docstring that opens the file."""
        return reading.title_of(self.source.splitlines())

    @cached_property
    def sections(self) -> dict[str, list[Line]]:
        """Section to lines, in the file's order, without blank lines at either end."""
        coloured = highlight(self.path.name, self.source)
        concepts = lines.concepts(self.text, self.frameworks[0])
        parts: dict[str, list[Line]] = {}
        for section in sections.split(self.source):
            found = [
                Line(number, coloured[number - 1], tuple(concepts.get(number, ())))
                for number in range(section.start, section.start + len(section.lines))
            ]
            while found and not found[-1].html.strip():
                found.pop()
            while found and not found[0].html.strip():
                found.pop(0)
            if found and section.name:
                parts.setdefault(section.name, []).extend(found)
        return parts


def highlight(name: str, source: str) -> list[Markup]:
    """HTML of each line, by the lexer for the file's name; tags are closed at the end of each line."""
    from pygments import highlight as coloured
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import TextLexer, get_lexer_for_filename
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_for_filename(name, stripnl=False, ensurenl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False, ensurenl=False)
    html = coloured(source, lexer, HtmlFormatter(nowrap=True))
    # Pygments marks spaces and operators too, which nothing colours.
    html = re.sub(r'<span class="(?:w|p|n|o|err)">([^<]*)</span>', r"\1", html)
    found = [Markup(line) for line in html.split("\n")]
    return found + [Markup("")] * (len(source.split("\n")) - len(found))


def find(text: Text, known: Mapping[str, Framework]) -> dict[str, Version]:
    """The versions of a text by slug, alphabetically by title."""
    by_file: dict[tuple[str, Path], list[Framework]] = {}
    for framework in known.values():
        path = text.folder / framework.version_file(text.name)
        if path.is_file():
            by_file.setdefault((framework.version, path), []).append(framework)
    found = [Version(text, slug, path, tuple(some)) for (slug, path), some in by_file.items()]
    return {one.slug: one for one in sorted(found, key=lambda one: one.title.lower())}


def section_names(versions: Iterable[Version]) -> list[str]:
    """Sections of these versions: the usual ones in their order, then others."""
    there = dict.fromkeys(name for version in versions for name in version.sections)
    return [name for name in sections.NAMES if name in there] + [name for name in there if name not in sections.NAMES]
