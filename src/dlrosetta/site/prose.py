"""Markdown as HTML: READMEs and docs, with links that lead to pages of the site or to copies of files of the tree.

HTML within Markdown is shown, not obeyed. A link to a file of the repository becomes a link to the page that shows it;
a file that no page shows is copied. A link that leads nowhere stops the build.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from markupsafe import Markup

from dlrosetta import sections
from dlrosetta.errors import RosettaError

# A link to a file of the repository, as parts keep it: every page refers to it from where it stands.
LINK = re.compile(r'<(a href|img src)="repository:([^"#]*)(#[^"]*)?"((?:(?!</?a\b).)*?</a>|[^>]*>)', re.DOTALL)
Resolve = Callable[[str], "str | None"]  # a file of the repository to an address, None where there is none


@dataclass
class Part:
    """What stands below one heading: `names` are the sections of versions that it is about, where it is about any."""

    level: int
    title: str
    anchor: str
    tokens: list[Any] = field(default_factory=list)
    names: tuple[str, ...] = ()


@dataclass
class Prose:
    """A Markdown file in parts. `place` is its path in the repository, from which links are seen."""

    place: str
    title: str
    parts: list[Part]
    _kept: dict[tuple[int, bool], str] = field(default_factory=dict)

    def html(self, resolve: Resolve, only: Callable[[Part], bool] = lambda part: True, heads: bool = True) -> Markup:
        """The parts that fit, with their headings unless `heads` is False. Raises RosettaError where a link leads
        nowhere.
        """

        def lead(link: re.Match[str]) -> str:
            tag, place, hash_, rest = link.groups("")
            address = resolve(place)
            if address is None:
                raise RosettaError(f"{self.place}: expected links to what is there. Received: {place}", "git status")
            if tag == "img src":
                return f'<img src="{address}"{rest}'
            inside = rest[1:].removesuffix("</a>")
            return f'<a href="{address}{hash_}">{inside}</a>' if address else inside  # a folder without a page

        parts = [self._rendered(number, heads) for number, part in enumerate(self.parts) if only(part)]
        return Markup(LINK.sub(lead, "".join(parts)))

    def _rendered(self, number: int, heads: bool) -> str:
        """HTML of a part whose links to files of the repository still say so."""
        if (number, heads) not in self._kept:
            part = self.parts[number]
            tokens = part.tokens if heads or part.level == 0 else part.tokens[3:]
            html = _parser().renderer.render(tokens, _parser().options, {})
            self._kept[number, heads] = html.replace("<pre>", '<pre tabindex="0">')
        return self._kept[number, heads]

    def notes(self, name: str, resolve: Resolve) -> Markup:
        """What is said of a section of the versions; empty where nothing is."""
        return self.html(resolve, lambda part: name in part.names, heads=False)


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "highlight": _highlight}).enable(["table", "strikethrough"])
    return parser


def _highlight(source: str, language: str, attributes: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return ""  # escaped, and nothing else
    return highlight(source, lexer, HtmlFormatter(nowrap=True))


def parse(place: str, source: str, words: dict[str, tuple[str, ...]] | None = None) -> Prose:
    """Cut a file at its headings."""
    tokens = _parser().parse(source)
    taken: set[str] = set()
    parts, title = [Part(0, "", "")], ""
    number = 0
    while number < len(tokens):
        token = tokens[number]
        if token.type == "heading_open" and token.level == 0:
            text, level = plain(tokens[number + 1]), int(token.tag[1])
            if level == 1 and not title:
                title = text
                number += 3
                continue
            anchor = _anchor(text, taken)
            token.attrSet("id", anchor)
            names = tuple(
                name for name in sections.NAMES if name.lower() in [one.strip().lower() for one in text.split(",")]
            )
            parts.append(Part(level, text, anchor, [], names))
        parts[-1].tokens.append(token)
        number += 1
    for part in parts:
        _link(part.tokens, place)
        _about(part.tokens, words or {})
        _headless(part.tokens)
    return Prose(place, title, parts)


def _headless(tokens: list[Any]) -> None:
    """A head of a table without words is no head."""
    for number, token in enumerate(tokens):
        if token.type in ("th_open", "th_close"):
            inline = tokens[number + (1 if token.type == "th_open" else -1)]
            if not inline.content.strip():
                token.tag = "td"


def plain(token: Any) -> str:
    return "".join(
        " " if child.type == "softbreak" else child.content
        for child in token.children
        if child.type in ("text", "code_inline", "softbreak")
    )


def _anchor(text: str, taken: set[str]) -> str:
    """As GitHub makes it: lower case, spaces to hyphens, no other signs."""
    base = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") or "part"
    anchor, number = base, 1
    while anchor in taken:
        anchor, number = f"{base}-{number}", number + 1
    taken.add(anchor)
    return anchor


def _link(tokens: list[Any], place: str) -> None:
    """Mark links to files of the repository; what is outside, or on the page, stays as it is."""
    for token in tokens:
        for child in token.children or []:
            key = {"link_open": "href", "image": "src"}.get(child.type)
            target = child.attrGet(key) if key else None
            if not target or re.match(r"[a-z][a-z0-9+.-]*:", target) or target.startswith("#"):
                continue
            path, hash_, anchor = target.partition("#")
            there = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
            child.attrSet(key, f"repository:{there}{hash_}{anchor}")
        if token.type == "th_open" or token.type == "td_open":
            align = re.search(r"text-align:(\w+)", token.attrGet("style") or "")
            token.attrs.pop("style", None)  # which the site's policy would not obey
            if align:
                token.attrSet("class", align[1])


def _about(tokens: list[Any], words: dict[str, tuple[str, ...]]) -> None:
    """Write on each note which versions it names, so that a page can put those of its columns first."""
    for number, token in enumerate(tokens):
        top = token.type == "list_item_open" or (token.type == "paragraph_open" and token.level == 0)
        if not top:
            continue
        closing = (token.type.replace("open", "close"), token.level)
        end = next(at for at in range(number, len(tokens)) if (tokens[at].type, tokens[at].level) == closing)
        said = " ".join(one.content for one in tokens[number:end] if one.type == "inline")
        named = [slug for slug, names in words.items() if any(_named(name, said) for name in names)]
        if named and len(named) < len(words):
            token.attrSet("data-about", " ".join(named))


def _named(name: str, said: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", said) is not None
