"""What there is: texts × frameworks, and what this machine knows of each cell. Nothing is run to find out.

A verdict is shown for exactly the version, adapter, lock and prover that it was reached with. Where any of these has
changed since, the cell says so instead of repeating what no longer holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dlrosetta import environments, frameworks, paths, texts
from dlrosetta.errors import RosettaError
from dlrosetta.frameworks import Framework

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Styled

# Worst first: a cell is as good as its worst precision.
ORDER = ("failed", "differs", "not run", "waived", "proven")
MARKS = {"none": "–", "cannot": "∅", "changed": "↻", "not run": "·", "evaluates": "◐"}
WORDS = {
    "proven": "the same model",
    "evaluates": "the same in its evaluation pass, and does not train",
    "waived": "the same but for a measured exception",
    "differs": "not the same",
    "failed": "could not be proven",
    "cannot": "none, for a reason",
    "changed": "changed since it was last proven",
    "not run": "not proven here yet",
    "none": "no version",
}
ROOMY = 9  # characters that a cell with its word needs: "↻ changed"


def show(stone: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> None:
    """`rosetta` alone: the table, what the marks mean, the data that would be used, and what to type next."""
    from rich.text import Text as Styled

    from dlrosetta import console

    known = frameworks.find(frameworks_dir)
    found = [texts.load(folder) for folder in texts.find(paths.stone_dirs(stone)).values()]
    states = {(text.name, slug): cell(text, framework) for text in found for slug, framework in known.items()}
    screen = console.out()
    screen.print(table(screen, found, known, states))
    screen.print()
    screen.print(legend(states.values()))
    screen.print()
    lacking = reasons(found, known, states)
    if lacking:
        screen.print(Styled("\n").join(lacking))
        screen.print()
    for line in data_lines(found):
        screen.print(line)
    screen.print()
    commands = next_commands(found, known, states)
    longest = max(len(command) for command, _ in commands)
    for command, why in commands:
        screen.print(Styled(f"{command:<{longest + 3}}").append(why, style="dim"))


def cell(text: texts.Text, framework: Framework) -> str:
    """One of ORDER, "evaluates" (all that it can be asked is proven, and it cannot be asked to train), "changed" (since
    it was last proven), "cannot" (it, or a version of it, for a reason) or "none" (no version), from remembered proofs.
    """
    from dlrosetta.proof import run
    from dlrosetta.proof.cell import scope

    if not run.has_version(text, framework):
        return "cannot" if text.name in framework.lacks else "none"
    remembered = earlier(text, framework)
    if not remembered:
        return "not run"
    cells = {dtype: run.recall(text, framework, dtype) for dtype in run.DTYPES}
    verdicts = [found["verdict"] if found else "not run" for found in cells.values()]
    if set(verdicts) == {"not run"}:
        return "changed"
    # A precision that the framework does not have says nothing of the one that it has.
    able = [verdict for verdict in verdicts if verdict != "cannot"]
    worst = min(able, key=ORDER.index, default="cannot")
    return "evaluates" if worst == "proven" and scope(text, framework) == "evaluation" else worst


def earlier(text: texts.Text, framework: Framework) -> list[Path]:
    """Every remembered proof of the cell, whatever it was made from."""
    pattern = re.compile(rf"{text.name}-{framework.slug}-[0-9a-f]+\.json")
    folder = paths.cache_dir() / "proofs"
    return [path for path in folder.glob(f"{text.name}-{framework.slug}-*.json") if pattern.fullmatch(path.name)]


def table(
    screen: Console, found: list[texts.Text], known: dict[str, Framework], states: dict[tuple[str, str], str]
) -> Table:
    """Frameworks in rows, alphabetically, texts in columns; where a row would not fit, cells are their marks alone."""
    from rich.table import Table
    from rich.text import Text as Styled

    # †: the year in which it died. Then environment and size, with the space behind each column.
    fixed = max((len(slug) + 6 * (one.dead is not None) for slug, one in known.items()), default=0) + 2 + 13 + 9
    words = fixed + sum(max(len(text.name), ROOMY) + 2 for text in found) <= screen.width
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("framework", "left"), ("environment", "left"), ("size", "right")):
        grid.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for text in found:
        grid.add_column(text.name, no_wrap=True)
    for slug, framework in known.items():
        cells = [mark(states[text.name, slug], words) for text in found]
        first = Styled(slug)
        if framework.dead is not None:
            first.append(f" †{framework.dead}", style="dim")
        grid.add_row(first, environment(framework), size(framework), *cells)
    return grid


def mark(state: str, words: bool) -> Styled:
    """A cell's mark, and its word where there is room, so that colour is never all that tells."""
    from rich.text import Text as Styled

    from dlrosetta import console

    sign = MARKS.get(state) or console.MARKS[state]
    style = console.STYLES.get("stale" if state == "changed" else state, "")
    return Styled(f"{sign} {state}" if words and state != "none" else sign, style="dim" if state == "none" else style)


def legend(states: Iterable[str]) -> Styled:
    """What the marks in the table mean: those that occur, the best first."""
    from rich.text import Text as Styled

    line = Styled()
    for state in sorted(set(states), key=list(WORDS).index):
        line.append("   " if line else "").append_text(mark(state, False)).append(f" {WORDS[state]}", style="dim")
    return line


def reasons(found: list[texts.Text], known: dict[str, Framework], states: dict[tuple[str, str], str]) -> list[Styled]:
    """Why a framework lacks texts: a line for each reason, with all texts that it holds for."""
    from rich.text import Text as Styled

    lacking: dict[tuple[str, str], list[str]] = {}
    for slug, framework in known.items():
        for text in found:
            if states[text.name, slug] == "cannot" and text.name in framework.lacks:
                lacking.setdefault((slug, framework.lacks[text.name]), []).append(text.name)
    return [
        Styled(f"{MARKS['cannot']} {slug}: {', '.join(names)}").append(f": {reason}", style="dim")
        for (slug, reason), names in lacking.items()
    ]


def environment(framework: Framework) -> Styled:
    """Whether the framework's environment is ready on this machine."""
    from rich.text import Text as Styled

    if framework.python is None:
        return Styled(framework.language, style="dim")
    try:
        state = environments.state(framework)
    except RosettaError:
        return Styled("not locked", style="yellow")
    return Styled(
        "outdated" if state == "stale" else state, style={"ready": "green", "stale": "yellow"}.get(state, "dim")
    )


def size(framework: Framework) -> Styled:
    """What the environment takes on disk, as measured when it was described; measuring anew would take seconds."""
    from rich.text import Text as Styled

    if not framework.size_mb:
        return Styled("")
    return Styled(megabytes(framework.size_mb), style="dim")


def megabytes(value: float) -> str:
    """ "816 MB", "1.4 GB"."""
    return f"{value / 1000:.1f} GB" if value >= 1000 else f"{value:.0f} MB"


def data_lines(found: Iterable[texts.Text]) -> list[str]:
    """Which data each text would be trained on here."""
    by_data: dict[str, list[str]] = {}
    for text in found:
        by_data.setdefault(text.data, []).append(text.name)
    return [f"Data of {', '.join(names)}: {data_name(data)}" for data, names in by_data.items()]


def data_name(name: str) -> str:
    """The data that a version would read now, for people, and where it lies."""
    from dlrosetta import data

    try:
        there = data.where(name)
    except data.DataError as error:
        return str(error)
    return f"{there.name}, in {there.path}" if there.path else there.name


def next_commands(
    found: list[texts.Text], known: dict[str, Framework], states: dict[tuple[str, str], str]
) -> list[tuple[str, str]]:
    """What to type next, and why; first what is missing."""
    if not found:
        return [("rosetta new text NAME", "start a text of your own")]
    # The text with most versions is the one to begin with.
    missing = ("none", "cannot")
    text = max(found, key=lambda one: sum(states[one.name, slug] not in missing for slug in known))
    there = [slug for slug in known if states[text.name, slug] not in missing]
    if not there:
        return [(f"rosetta new framework NAME --text {text.name}", "write its first version")]
    first = [slug for slug in there if known[slug].default] or there
    commands = [
        (
            f"rosetta read {text.name} {' '.join((first + [slug for slug in there if slug not in first])[:2])}",
            "the same sections side by side",
        ),
        (f"rosetta prove {text.name}", "is it the same model?"),
        (f"rosetta compare {text.name}", "how fast, and how good?"),
    ]
    if any(states[text.name, slug] in ("not run", "changed") for slug in first):
        commands.insert(0, commands.pop(1))
    return commands
