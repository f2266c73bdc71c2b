"""The same sections of several versions, side by side, for somebody who knows one framework and wants another.

Nothing is parsed but the section marks, so every language reads alike. Line numbers are the file's own: they are what
a proof, an error and an editor name. Where columns would be too narrow for code, versions stand one below another,
section by section.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlrosetta import frameworks, paths, sections, texts
from dlrosetta.errors import UsageError, did_you_mean
from dlrosetta.frameworks import Framework

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text as Styled

NARROWEST = 50  # characters of a column below which code is a heap of broken lines
BETWEEN = " │ "
HANG = 4  # how much further than its line a broken line's rest stands
# A file is somebody's: what it holds must not move the cursor or ring the bell.
_CONTROL = {number: "�" for number in (*range(32), 127, *range(128, 160)) if chr(number) not in "\t\n\r"}


@dataclass(frozen=True)
class Column:
    """One version: its title, and its highlighted lines with their numbers, by section."""

    slug: str
    path: Path
    title: str
    parts: dict[str, list[tuple[int, Styled]]]

    @property
    def gutter(self) -> int:
        """Width of the line numbers."""
        return max((len(str(number)) for lines in self.parts.values() for number, _ in lines), default=1)


def show(
    text: str, names: Iterable[str], only: Iterable[str], stone: tuple[str, ...], frameworks_dir: tuple[str, ...]
) -> int:
    """`rosetta read`: print the versions of `text` in the named frameworks, in the order in which they are named."""
    from dlrosetta import console

    known_texts = texts.find(paths.stone_dirs(stone))
    if text == "all":
        raise UsageError(f"Expected one text: {', '.join(known_texts)}. Received: 'all'.", "rosetta")
    one = texts.select(text, known_texts)[0]
    known = frameworks.find(frameworks_dir)
    columns = [load(path_of(one, framework, known), framework) for framework in chosen(names, known)]
    screen = console.out()
    for line in render(screen, columns, wanted_sections(only, columns)):
        screen.print(line, no_wrap=True, overflow="ignore", crop=False)
    return 0


def chosen(names: Iterable[str], known: dict[str, Framework]) -> list[Framework]:
    """The named frameworks in the order given. Raises UsageError with a suggestion."""
    found = {}
    for name in names:
        if name not in known:
            raise UsageError(
                f"Expected a framework: {', '.join(known)}. Received: {name!r}.{did_you_mean(name, known)}", "rosetta"
            )
        found[name] = known[name]
    return list(found.values())


def path_of(text: texts.Text, framework: Framework, known: dict[str, Framework]) -> Path:
    """The version's file. Raises UsageError that says which frameworks have one."""
    path = text.folder / framework.version_file(text.name)
    if not path.is_file():
        there = [one.slug for one in known.values() if (text.folder / one.version_file(text.name)).is_file()]
        hint = (
            f"rosetta read {text.name} {' '.join(there[:3])}"
            if there
            else f"rosetta new framework NAME --text {text.name}"
        )
        raise UsageError(
            f"{framework.title} has no version of {text.name} yet. Expected: {path}. "
            f"There are versions for: {', '.join(there) or 'none'}.",
            hint,
        )
    return path


def load(path: Path, framework: Framework) -> Column:
    """Read, cut and highlight one version; the whole file at once, so that a long string keeps its colour."""
    from pygments.lexers import TextLexer, get_lexer_for_filename
    from pygments.util import ClassNotFound
    from rich.syntax import Syntax

    # The lines of str.splitlines, as in sections.split: numbers must agree.
    lines = [
        line.translate(_CONTROL).expandtabs(4).rstrip()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    source = "\n".join(lines)
    try:
        lexer = get_lexer_for_filename(path.name, stripnl=False)
    except ClassNotFound:
        lexer = TextLexer(stripnl=False)
    styled = (
        Syntax("", lexer, theme="ansi_dark", background_color="default").highlight(source).split("\n", allow_blank=True)
    )
    parts: dict[str, list[tuple[int, Styled]]] = {}
    title = ""
    for section in sections.split(source):
        if section.name:
            numbered = [
                (number, styled[number - 1]) for number in range(section.start, section.start + len(section.lines))
            ]
            parts.setdefault(section.name, []).extend(_without_blank_ends(numbered))
        else:
            title = title_of(section.lines)
    return Column(framework.slug, path, title or framework.title, parts)


def title_of(lines: Iterable[str]) -> str:
    """First sentence of the comment or docstring that opens a version, without the marks of its language."""
    for line in lines:
        bare = re.sub(
            r"^[rRuU]?(\"\"\"|''')|^(#'|#!.*|#=|#|//[/!]?|/\*+|\*/?|--|;+|%+)|(\"\"\"|'''|\*/)$", "", line.strip()
        ).strip()
        bare = re.sub(r"(\"\"\"|'''|\*/)$", "", bare).strip()
        if bare:
            return bare
    return ""


def _without_blank_ends(lines: list[tuple[int, Styled]]) -> list[tuple[int, Styled]]:
    while lines and not lines[-1][1].plain.strip():
        lines = lines[:-1]
    while lines and not lines[0][1].plain.strip():
        lines = lines[1:]
    return lines


def wanted_sections(only: Iterable[str], columns: list[Column]) -> list[str]:
    """Names of the sections to show: those asked for, else all, in a version's order. Raises UsageError."""
    there = [*sections.NAMES, *(name for column in columns for name in column.parts)]
    known = {name.lower(): name for name in dict.fromkeys(there) if any(name in column.parts for column in columns)}
    found = []
    for name in only:
        if name.lower() not in known:
            near = did_you_mean(name.lower(), known)
            for low, proper in known.items():
                near = near.replace(f"'{low}'", f"'{proper}'")
            raise UsageError(f"Expected a section: {', '.join(known.values())}. Received: {name!r}.{near}")
        found.append(known[name.lower()])
    return list(dict.fromkeys(found)) or list(known.values())


def render(screen: Console, columns: list[Column], names: list[str]) -> list[Styled]:
    """The lines to print: titles, then the sections, side by side if every column gets NARROWEST characters."""
    width = (screen.width - len(BETWEEN) * (len(columns) - 1)) // len(columns)
    if len(columns) > 1 and width < NARROWEST:
        blocks = [[_title(column, screen.width)] for column in columns]
        blocks += [[_part(column, name, screen.width)] for name in names for column in columns]
    else:
        blocks = [[_title(column, width) for column in columns]]
        blocks += [[_part(column, name, width) for column in columns] for name in names]
        width = min(width, screen.width)
    lines = []
    for number, block in enumerate(blocks):
        if number and (len(block) > 1 or len(columns) == 1 or number >= len(columns)):
            lines.append(_beside([[]] * len(block), width, 1)[0])
        lines += _beside(block, width, max(len(part) for part in block))
    return lines


def _beside(parts: list[list[Styled]], width: int, height: int) -> list[Styled]:
    """Put blocks of lines beside one another; only what has something to its right is padded."""
    from rich.cells import cell_len
    from rich.text import Text as Styled

    rows = []
    for number in range(height):
        row = Styled()
        for place, part in enumerate(parts):
            if place:
                row.append(BETWEEN if place < len(parts) - 1 or number < len(part) else BETWEEN.rstrip(), style="dim")
            cell = part[number] if number < len(part) else Styled()
            row.append_text(cell)
            if place < len(parts) - 1:
                row.append(" " * (width - cell_len(cell.plain)))
        rows.append(row)
    return rows


def _title(column: Column, width: int) -> list[Styled]:
    from rich.text import Text as Styled

    try:
        place = str(column.path.relative_to(Path.cwd()))
    except ValueError:
        place = str(column.path)
    if len(place) > width:
        place = f"…{place[1 - width :]}"
    return [*fold(Styled(column.title, style="bold"), width), Styled(place, style="dim")]


def _part(column: Column, name: str, width: int) -> list[Styled]:
    """One section of one version: a rule with its name, then numbered lines."""
    from rich.text import Text as Styled

    head = Styled("── ", style="dim").append(name, style="not dim bold").append(f" · {column.slug} ")
    head.append("─" * max(0, width - len(head.plain)))
    lines = [head]
    for number, line in column.parts.get(name, []):
        for place, piece in enumerate(fold(line, width - column.gutter - 2)):
            gutter = "" if place else str(number)
            row = Styled(f"{gutter:>{column.gutter}}  " if piece.plain or gutter else "", style="")
            row.stylize("dim")
            lines.append(row.append_text(piece) if piece.plain else Styled(row.plain.rstrip(), style="dim"))
    if name not in column.parts:
        lines.append(Styled("(no such section)", style="dim"))
    return lines


def fold(line: Styled, width: int) -> list[Styled]:
    """Break a line into pieces of at most `width`; the rest hangs under its beginning."""
    from rich.text import Text as Styled

    indent = len(line.plain) - len(line.plain.lstrip())
    hang = min(indent + HANG, width // 2)
    pieces, least = [], indent
    while len(line.plain) > width:
        head, rest = line.divide([_break(line.plain, width, least)])
        head.rstrip()
        pieces.append(head)
        spaces = len(rest.plain) - len(rest.plain.lstrip())
        line = Styled(" " * hang).append_text(rest[spaces:] if spaces < len(rest.plain) else Styled())
        least = hang
    return [*pieces, line]


def _break(line: str, width: int, least: int) -> int:
    """Where to break: before the comment that ends a line, else behind space or comma, else bracket, else anywhere."""
    comment = re.search(r"  (?=(#|//) )", line[: width + 1])
    if comment and comment.start() > least:
        return comment.end()
    for pattern, nearest in ((r"(?<![(\[{])[\s,]+", max(least + HANG, width // 2)), (r"[(\[{\s,]", least + HANG)):
        places = [hit.end() for hit in re.finditer(pattern, line[:width]) if hit.end() > nearest]
        if places:
            return places[-1]
    return width
