"""The speed pages: tables and charts of published results, each figure with its file and the command that makes it
again; and what was printed in 2018, beside today's.

Tables and charts are those of `rosetta report`: what was measured side by side stands together. Rows are alphabetical
and a reader sorts; nothing here ranks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from dlrosetta import charts, paths, report
from dlrosetta.report import Group
from dlrosetta.results import Filters, Today, find
from dlrosetta.site import words
from dlrosetta.site.material import Material
from dlrosetta.site.page import Context, Page
from dlrosetta.tables import Row, Tables
from dlrosetta.texts import Text
from dlrosetta.toml import read_toml

if TYPE_CHECKING:
    from dlrosetta.site.build import Maker

HISTORY = paths.PACKAGE / "site" / "history.toml"
PHOTOS = 1000  # in so many seconds was told how fast features are


def all_pages(everything: Material) -> Iterator[Page]:
    yield Page("speed/", "speed", partial(_overview, everything))
    for text in everything.texts:
        yield Page(f"speed/{text.name}.html", "speeds", partial(_text, everything, text))


def _groups(everything: Material, language: str) -> dict[str, list[Group]]:
    """What may be compared, by text, with charts drawn. Results are read once, for all languages."""
    if not everything.groups and everything.results is not None:
        today = Today(everything.stone, everything.frameworks_dir)
        tables = Tables(find([everything.results]).results, today, Filters())
        for one in words.LANGUAGES:
            groups: dict[str, list[Group]] = everything.groups.setdefault(one, {})
            for group in report.groups_of(tables, today, one):
                for chart in group.charts:
                    chart.svg = drawing(charts.svg(chart.spec), chart.title)
                groups.setdefault(group.text, []).append(group)
    return everything.groups.get(language, {})


def drawing(svg: str, title: str) -> str:
    """A chart for a page: one picture with a name, and nothing that the site's policy forbids."""
    svg = re.sub(r' (?:role|aria-[a-z]+|style|class|xmlns:xlink)="[^"]*"', "", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _overview(everything: Material, maker: Maker) -> Context:
    history, groups = read_toml(HISTORY), _groups(everything, maker.language)
    then = []
    for text in everything.texts:
        cells = [cell for cell in history["cells"] if cell["text"] == text.name]
        if cells:
            rows = _beside(text, cells, groups.get(text.name, []), everything)
            then.append((text, history["range"].get(text.name), history["devices"][text.name], rows))
    return {
        "scripts": [],
        "all_texts": everything.texts,
        "groups": groups,
        "then": then,
        "source": history["source"],
        "accuracies": history["accuracies"],
        "again": again,
        "seconds": report.seconds,
    }


def _beside(text: Text, cells: list[dict[str, Any]], groups: list[Group], everything: Material) -> list[dict[str, Any]]:
    """Rows of then and now, by framework: those of then, and those of now that were not there; of a text that is
    trained, what was trained. Of a framework in several results it is the one that has most others: they were measured
    side by side.
    """
    today: dict[str, Row] = {}
    measured = [row for group in groups for row in group.rows]
    beside = Counter(row["file"] for row in measured)
    for row in sorted(measured, key=lambda row: -beside[row["file"]]):
        whole = row["accuracy"] is not None if text.trains else row["scope"] == "all"
        if whole and row["track"] == "default" and row["dtype"] == "float32":
            today.setdefault(row["framework"], row)
    rows = [{"title": cell["framework"], "then": cell, "now": today.pop(cell.get("slug", ""), None)} for cell in cells]
    known = everything.frameworks
    rows += [
        {"title": known[slug].title if slug in known else slug, "then": None, "now": row} for slug, row in today.items()
    ]
    for row in rows:
        now = row["now"]
        row["file"] = _file(everything, now) if now else None
        row["seconds"] = (now["training_s"] if text.trains else PHOTOS / now["speed"]) if now else None
    return sorted(rows, key=lambda row: row["title"].lower())


def _file(everything: Material, row: Row) -> str:
    assert everything.results is not None
    path = everything.results / row["file"].rpartition("/")[2]
    return everything.file(path, f"results/{path.name}")


def again(text: Text, row: Row) -> str:
    """The command that measures a row anew."""
    options = f"--frameworks {row['framework']}"
    own = int(text.hyperparameters["BATCH_SIZE"])
    options += f" --batch {row['batch_size']}" if row["batch_size"] not in (None, own) else ""
    options += f" --profile {row['profile']}" if row["profile"] != "quick" else ""
    options += f" --dtype {row['dtype']}" if row["dtype"] != "float32" else ""
    options += f" --track {row['track']}" if row["track"] != "default" else ""
    return f"rosetta compare {row['text']} {options}"


def _text(everything: Material, text: Text, maker: Maker) -> Context:
    return {
        "text": text,
        "groups": _groups(everything, maker.language).get(text.name, []),
        "drawing": Markup,
        "seconds": report.seconds,
        "gib": report.GIB,
        "again": again,
        "result": lambda row: maker.root + _file(everything, row),
        "frameworks": everything.frameworks,
    }
