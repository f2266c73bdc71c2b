"""`rosetta results`: what was measured before, as a table or as an answer to a question of the user's own."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlrosetta import console, paths
from dlrosetta.errors import UsageError, did_you_mean
from dlrosetta.results import Filters, Found, Today, changes, find, folders

if TYPE_CHECKING:
    from rich.table import Table

    from dlrosetta.tables import Row, Tables


def gather(
    named: Sequence[str], filters: Filters, stone: tuple[str, ...], frameworks_dir: tuple[str, ...]
) -> tuple[Tables, Found]:
    """Read folders into tables. Raises UsageError where no result at all has a name that is asked for."""
    from dlrosetta.tables import Tables

    found = find(folders(named))
    documents = [one.document for one in found.results]
    known = {
        "text": {document["text"] for document in documents},
        "framework": {cell["framework"] for document in documents for cell in document["cells"]},
    }
    for kind, wanted in (("text", filters.texts), ("framework", filters.frameworks)):
        for name in wanted:
            if documents and name not in known[kind]:
                there = ", ".join(sorted(known[kind]))
                raise UsageError(
                    f"Expected a {kind} that there are results of: {there}. Received: {name!r}."
                    f"{did_you_mean(name, known[kind])}"
                )
    return Tables(found.results, Today(stone, frameworks_dir), filters), found


def filters(
    text: str | None,
    framework: str | None,
    machine: str | None,
    since: datetime.datetime | None,
    until: datetime.datetime | None,
) -> Filters:
    """What the options say: names separated by commas; `until` without a time of day includes that day."""
    if until is not None and until.time() == datetime.time():
        until += datetime.timedelta(days=1)
    return Filters(_names(text), _names(framework), machine, since, until)


def _names(given: str | None) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in (given or "").split(",")) if name)


def show(
    named: tuple[str, ...],
    wanted: Filters,
    sql: str | None,
    as_json: bool,
    stone: tuple[str, ...],
    frameworks_dir: tuple[str, ...],
) -> int:
    """`rosetta results`: the table of cells, or what `sql` answers. Files that are no results are named on stderr."""
    tables, found = gather(named, wanted, stone, frameworks_dir)
    warn(found)
    unreadable = [{"file": str(path), "reason": reason} for path, reason in found.unreadable]
    if sql is not None:
        columns, rows = tables.ask(sql)
        plain = [[_plain(value) for value in row] for row in rows]
        if as_json:
            console.print_json({"schema": 1, "columns": columns, "rows": plain, "unreadable": unreadable})
        else:
            console.out().print(answer_table(columns, plain))
        return 0
    cells = tables.cells()
    if as_json:
        told = [{key: _plain(value) for key, value in cell.items()} for cell in cells]
        console.print_json({"schema": 1, "cells": told, "unreadable": unreadable})
        return 0
    screen = console.out()
    if not cells:
        looked = ", ".join(map(str, folders(named))) or str(paths.results_dir())
        screen.print(f"No result fits. Looked in {looked}", soft_wrap=True, markup=False)
        screen.print("Next: rosetta compare cnn")
        return 0
    width = max(len(cell["framework"]) for cell in cells)
    for machine in sorted({cell["machine"] for cell in cells}):
        screen.print(_safe(machine), style="bold")
        here = [cell for cell in cells if cell["machine"] == machine]
        for run in sorted({cell["run"] for cell in here}, key=lambda run: _order(here, run)):
            screen.print(run_table([cell for cell in here if cell["run"] == run], width))
            screen.print()
    line = "speed: items a second, median and 95 % interval; to be compared within one table."
    screen.print(line, style="dim")
    screen.print("changed since: what the speed was measured with and is otherwise now. Dates in UTC.", style="dim")
    return 0


def warn(found: Found) -> None:
    """A line on stderr for each file that is no result."""
    for path, reason in found.unreadable:
        console.err().print(f"{path}: {reason}", style="yellow", soft_wrap=True, markup=False)


def _order(cells: list[Row], run: int) -> tuple[Any, ...]:
    """By text, then date."""
    return next((cell["text"], cell["date"], run) for cell in cells if cell["run"] == run)


def run_table(cells: list[Row], width: int) -> Table:
    """What one comparison measured, a row a cell: its speeds were measured in turns, others were not. A name takes
    `width` columns, so that tables stand in line.
    """
    from rich.table import Table
    from rich.text import Text as Styled

    one = cells[0]
    batches = sorted({cell["batch_size"] for cell in cells if cell["batch_size"] is not None})
    told = [one["text"], one["dtype"], *(["tuned"] if one["track"] == "tuned" else []), one["profile"]]
    told += [f"batches of {' and '.join(map(str, batches))}"] if batches else []
    title = _safe(f"{', '.join(told)}, {one['date']:%Y-%m-%d}")
    table = Table(title=title, title_justify="left", title_style="", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("framework", no_wrap=True, min_width=width)
    for name, least in (("speed", 6), ("interval", 11), ("accuracy", 8)):
        table.add_column(name, justify="right", no_wrap=True, min_width=least)
    table.add_column("changed since")
    for cell in cells:
        speed = console.verdict(cell["verdict"])
        interval = ""
        if cell["speed"] is not None:
            speed = Styled(console.per_second(cell["speed"]))
            interval = f"{console.per_second(cell['low'])}–{console.per_second(cell['high'])}"
        accuracy = "" if cell["accuracy"] is None else f"{cell['accuracy']:.3f}"
        changed = Styled(changes(cell["changed"]), style="yellow" if cell["changed"] else "dim")
        if cell["scope"] == "evaluation":
            changed = Styled("evaluation pass alone; ", style="dim") + changed
        table.add_row(_safe(cell["framework"]), speed, interval, accuracy, changed)
    return table


def answer_table(columns: list[str], rows: list[list[Any]]) -> Table:
    """What a question of the user's own gives: numbers to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        numbers = all(isinstance(row[number], (int, float)) for row in rows if row[number] is not None)
        table.add_column(_safe(name), justify="right" if numbers and rows else "left", overflow="fold")
    for row in rows:
        table.add_row(
            *(
                _safe("" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value))
                for value in row
            )
        )
    return table


def _safe(value: str) -> Any:
    """A text that was read from a file: neither markup nor control characters reach the terminal."""
    from rich.text import Text as Styled

    return Styled("".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in value))


def _plain(value: Any) -> Any:
    """A value of DuckDB's as JSON knows it."""
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
