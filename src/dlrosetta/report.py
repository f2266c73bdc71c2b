"""`rosetta report`: what was measured, as one HTML page that needs nothing beside it, and as PNG charts.

A chart holds what may be compared: one text, machine, device, precision, data set, either training or the evaluation
pass, and one run, beside which a run of the tuned track may stand. The page has no scripts, and its policy forbids
them; whatever a result file says is text to it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from dlrosetta import __version__, charts, console, device_notes, listing, paths
from dlrosetta.errors import RosettaError
from dlrosetta.proof import HOLDING
from dlrosetta.results import Filters, Today, changes
from dlrosetta.site import words
from dlrosetta.tables import Row, Tables

PAGE, CHARTS = "report.html", "charts"
MARK = '<meta name="generator" content="dlrosetta report'  # by which an earlier report is known
GIB = 2**30


@dataclass
class Chart:
    """One figure: `kind` is the end of its file's name."""

    kind: str
    title: str
    caption: str
    spec: charts.Spec
    file: str = ""
    svg: str = ""


@dataclass
class Group:
    """Cells that may be compared, and what is shown of them."""

    name: str  # of files
    text: str
    title: str
    facts: str
    unit: str
    metric: str
    rows: list[Row]
    said: charts.Said  # the words that it is shown in
    dates: str = ""
    tuned: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    went: list[str] = field(default_factory=list)  # how the runs went
    charts: list[Chart] = field(default_factory=list)


def show(
    named: tuple[str, ...],
    wanted: Filters,
    output: str | None,
    stone: tuple[str, ...],
    frameworks_dir: tuple[str, ...],
) -> int:
    """Write the page and the charts, and say where."""
    tables, found = listing.gather(named, wanted, stone, frameworks_dir)
    listing.warn(found)
    groups = groups_of(tables, Today(stone, frameworks_dir))
    if not groups:
        raise RosettaError("Expected results to report on. Received: none that fit.", "rosetta results")
    folder = Path(output) if output else paths.results_dir() / "report"
    with console.err().status("drawing"):
        page = write(groups, folder, wanted)
    count = sum(len(group.charts) for group in groups)
    console.out().print(
        f"wrote {page} and {count} charts beside it, in {folder / CHARTS}", soft_wrap=True, markup=False
    )
    return 0


def write(groups: Sequence[Group], folder: Path, wanted: Filters) -> Path:
    """Draw all charts; write them and the page. Charts of an earlier report there go."""
    page = folder / PAGE
    (folder / CHARTS).mkdir(parents=True, exist_ok=True)
    if page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace"):
        for old in (folder / CHARTS).glob("*.png"):
            old.unlink()
    for group in groups:
        for chart in group.charts:
            chart.file = f"{CHARTS}/{group.name}-{chart.kind}.png"
            paths.write(folder / chart.file, charts.png(chart.spec))
            chart.svg = charts.svg(chart.spec)
    paths.write(page, render(groups, wanted).encode())
    return page


def render(groups: Sequence[Group], wanted: Filters) -> str:
    """The page. All but the drawings, which vl-convert escapes, is escaped by Jinja."""
    import jinja2
    from markupsafe import Markup

    style = (paths.PACKAGE / "report.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.PACKAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {
        "drawing": Markup,
        "per_second": console.per_second,
        "seconds": seconds,
        "gibibytes": partial(gibibytes, on_gpu=words.load(words.LANGUAGES[0])["report"]["on_gpu"]),
    }
    return environment.get_template("report.html.j2").render(
        texts=[(title, list(some)) for title, some in groupby(groups, key=lambda group: group.title)],
        style=Markup(style),
        digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        version=__version__,
        date=f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        filters=", ".join(_told(wanted)),
    )


def _told(wanted: Filters) -> list[str]:
    told = [f"text {name}" for name in wanted.texts] + [f"framework {name}" for name in wanted.frameworks]
    told += [f"machine {wanted.machine!r}"] if wanted.machine else []
    return told + [f"{word} {day}" for word, day in (("since", wanted.since), ("before", wanted.until)) if day]


def seconds(value: float) -> str:
    """ "12 ms", "0.38 s", "92 min": a duration with two or three figures."""
    if value < 0.1:
        return f"{value * 1000:.2g} ms" if value < 0.01 else f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


# -- what may be compared ----------------------------------------------------------------------------------------------


def groups_of(tables: Tables, today: Today, language: str = words.LANGUAGES[0]) -> list[Group]:
    """Every cell, in groups of what may be compared: texts, machines, precisions and frameworks in alphabetical order;
    told in a language.
    """
    said = words.load(language)["report"]
    rows = [row for row in tables.cells() if row["speed"] is not None and row["verdict"] in HOLDING]
    rows.sort(key=lambda row: (row["text"], row["dtype"] != "float32", _together(row), row["framework"], row["track"]))
    groups = []
    for _, some in groupby(rows, key=_together):
        for number, together in enumerate(_side_by_side(list(some))):
            groups.append(_group(together, tables, today, number, said))
    return groups


def _side_by_side(rows: list[Row]) -> Iterator[list[Row]]:
    """Rows that were measured side by side: those of a run, in the first group also those of a run of the tuned track.

    Seconds of one day say little beside those of another, when the machine was busier. The run that has most current
    cells goes first, the later of two; a run that has what it lacks, or trained what it timed, comes whole in a group
    of its own: a speed tells little without those beside which it was measured.
    """
    shown: dict[tuple[str, str], float | None] = {}
    while added := [row for row in rows if _adds(row, shown)]:
        chosen = [_best([row for row in added if row["track"] == track]) for track in ("default", "tuned")]
        runs = [run for run in chosen if run is not None] if not shown else [_best(added)]
        together = [row for row in rows if row["run"] in runs]
        for row in together:
            if shown.get(place := (row["framework"], row["track"])) is None:
                shown[place] = row["accuracy"]
        yield together


def _adds(row: Row, shown: dict[tuple[str, str], float | None]) -> bool:
    """Whether it is not shown yet, or has been trained where what is shown was only timed."""
    place = row["framework"], row["track"]
    return place not in shown or (row["accuracy"] is not None and shown[place] is None)


def _best(rows: list[Row]) -> int | None:
    """The run with most current cells, then most cells, then the latest; None where there are no rows."""

    def rank(run: int) -> tuple[Any, ...]:
        its = [row for row in rows if row["run"] == run]
        return sum(row["changed"] == "" for row in its), len(its), its[0]["date"], run

    return max({row["run"] for row in rows}, key=rank, default=None)


def _together(row: Row) -> tuple[Any, ...]:
    device = (row["device"] or "cpu").lower()
    device = row["gpu"] or "GPU" if device.startswith(device_notes.KINDS) else device.upper()
    data, batch = row["data"] or "", row["batch_size"] or 0
    return row["text"], row["machine"], device, row["dtype"], row["scope"], data, batch


def _group(rows: list[Row], tables: Tables, today: Today, number: int, said: charts.Said) -> Group:
    name, machine, device, dtype, scope, data, batch = _together(rows[0])
    text = today.text(name)
    for row in rows:
        row["label"] = row["framework"] + (said["and_tuned"] if row["track"] == "tuned" else "")
        row["label"] += " †" if row["changed"] else ""
        row["since"] = changes(row["changed"])
        row["release"] = (row["version"] or "").partition("-")[0]  # OpenVINO's goes on with its build and branch
        row["losses"] = next((_losses(cell) for cell in _cells(row, tables)), [])
    what = "evaluation" if scope == "evaluation" else "training" if text is None or text.trains else "forward"
    precision = said["mixed"] if dtype == "bfloat16" else dtype
    facts = said["facts"].format(
        machine=machine, what=said[what], precision=precision, batch=batch, device=device, data=data
    )
    parts = (name, dtype, "evaluation" if scope == "evaluation" else "", machine, device, data, batch)
    dates = sorted({f"{row['date']:%Y-%m-%d %H:%M}" for row in rows})
    apart = [dates[-1]] if number else []
    file = re.sub(r"[^a-z0-9_]+", "-", " ".join(map(str, [*parts, *apart])).lower()).strip("-")
    group = Group(
        file,
        name,
        text.title if text else name,
        facts,
        rows[0]["unit"] or "items",
        text.metric if text else "metric",
        rows,
        said,
    )
    group.dates = said["and"].join(dates)
    group.tuned = [
        f"{row['framework']}: {row['switches'] or said['nothing']}" for row in rows if row["track"] == "tuned"
    ]
    group.same = _same(rows, tables, said)
    group.went = _went(rows, tables)
    group.charts = [chart for make in MAKERS if (chart := make(group, tables)) is not None]
    return group


def _cells(row: Row, tables: Tables) -> list[dict[str, Any]]:
    """What the row's result file says of it."""
    return [cell for cell in tables.results[row["run"]].document["cells"] if cell["framework"] == row["framework"]]


def _losses(cell: dict[str, Any]) -> list[float | None]:
    return list((cell.get("training") or {}).get("losses") or [])


def _same(rows: list[Row], tables: Tables, said: charts.Said) -> list[str]:
    """Of which two, measured side by side, no difference was found."""
    shown = {(row["run"], row["framework"]): row["label"] for row in rows}
    runs = sorted({row["run"] for row in rows})
    _, found = tables.ask(
        "select run, a, b, ratio, low, high from pairs where not differ and run in "
        f"({', '.join(map(str, runs))}) order by a, b, run"
    )
    return [
        said["pair"].format(
            a=shown[run, a], b=shown[run, b], ratio=f"{ratio:.2f}", low=f"{low:.2f}", high=f"{high:.2f}"
        )
        for run, a, b, ratio, low, high in found
        if (run, a) in shown and (run, b) in shown
    ]


def _went(rows: list[Row], tables: Tables) -> list[str]:
    """What a reader must know of each run: why its rounds ended, and what the machine did meanwhile."""
    documents = {row["track"]: tables.results[row["run"]].document for row in rows}
    told = []
    for track, document in documents.items():
        if "rounds" in document:  # results of before 29 November 2026 did not say
            lines = [f"Rounds: {console.ended(document)}.", *console.how_it_went(document)]
            told += [" ".join(lines) if len(documents) == 1 else f"{track.capitalize()} track. {' '.join(lines)}"]
    return told


# -- charts ------------------------------------------------------------------------------------------------------------


def _speed(group: Group, tables: Tables) -> Chart:
    said = group.said
    rows = [{**_drawn(row, said), **{key: row[key] for key in ("speed", "low", "high")}} for row in group.rows]
    for row in rows:
        row["shown"] = (
            f"{console.per_second(row['speed'])} ({'–'.join(console.per_second(row[key]) for key in ('low', 'high'))})"
        )
    caption = said["speed_caption"].format(unit=group.unit)
    both = {row["track"] for row in group.rows} == {"default", "tuned"}
    caption += said["tuned_caption"] if both else ""
    return Chart("speed", said["title_speed"], caption, charts.speed(rows, group.unit, said))


def _compile(group: Group, tables: Tables) -> Chart | None:
    rows, said = [], group.said
    for row in group.rows:
        if row["first_call_s"] is None or row["step_s"] is None:
            continue
        extra = row["first_call_s"] - row["step_s"]
        one = {**_drawn(row, said), "compile": extra if extra > 0 else None, "step": row["step_s"]}
        told = said["compile_shown"].format(seconds=seconds(extra), count=count(extra / row["step_s"]))
        rows.append({**one, "shown": told if extra > 0 else said["compile_none"]})
    if not rows:
        return None
    return Chart("compile", said["title_compile"], said["compile_caption"], charts.compiling(rows, said))


def _memory(group: Group, tables: Tables) -> Chart | None:
    said = group.said
    rows = [
        {**_drawn(row, said), "memory": row["peak_memory_bytes"] / GIB, "shown": gibibytes(row, said["on_gpu"])}
        for row in group.rows
        if row["peak_memory_bytes"]
    ]
    if not rows:
        return None
    caption = said["memory_caption"]
    if any(row["peak_device_memory_bytes"] for row in group.rows):
        caption += said["memory_gpu"]
    return Chart("memory", said["title_memory"], caption, charts.memory(rows, said))


def _loss(group: Group, tables: Tables) -> Chart | None:
    lines = [row for row in group.rows if any(loss is not None for loss in row["losses"])]
    if not lines:
        return None
    said = group.said
    return Chart("loss", said["title_loss"], said["loss_caption"], charts.losses(lines, said))


def _accuracy(group: Group, tables: Tables) -> Chart | None:
    said = group.said
    rows = [
        {**_drawn(row, said), "minutes": row["training_s"] / 60, "accuracy": row["accuracy"]}
        for row in group.rows
        if row["accuracy"] is not None and row["training_s"]
    ]
    if not rows:
        return None
    for row in rows:
        row["shown"] = row["label"]
    drawn = charts.accuracy(rows, group.metric, said)
    return Chart("accuracy", said["title_accuracy"], said["accuracy_caption"], drawn)


def _roofline(group: Group, tables: Tables) -> Chart | None:
    """Of cells whose run has measured a roof and counted the work, be it a train step's or the forward pass's; the best
    roof of these runs holds for all.
    """
    part = "_forward" if group.rows[0]["scope"] == "evaluation" else ""
    found = []
    for run in sorted({row["run"] for row in group.rows}, key=lambda run: (tables.results[run].document["date"], run)):
        document = tables.results[run].document
        roof, counted = document.get("roof") or {}, document.get("work") or {}
        best = [max(roof.get(rate, {}).values(), default=0.0) for rate in ("flops_per_s", "bytes_per_s")]
        one = [run, *best, *(counted.get(f"{what}_per_item{part}", 0.0) for what in ("flops", "bytes"))]
        found += [one] if all(value > 0 for value in one[1:]) else []
    if not found:
        return None
    known = {run: rest for run, *rest in found}
    flops, moved = max(one[0] for one in known.values()), max(one[1] for one in known.values())
    work, traffic = known[found[-1][0]][2:]
    bound = min(flops, moved * work / traffic)
    rows, said = [], group.said
    for row in group.rows:
        if row["run"] in known and known[row["run"]][2:] == [work, traffic]:
            rate = row["speed"] * work
            told = said["roof_shown"].format(label=row["label"], share=share(rate / bound))
            rows.append({**_drawn(row, said), "flops_per_s": rate, "shown": told})
    caption = said["roof_caption"].format(
        product=f"{flops / 1e9:.3g}",
        copy=f"{moved / 1e9:.3g}",
        unit=group.unit,
        work=f"{work / 1e9:.3g}",
        traffic=f"{traffic / 1e6:.3g}",
    )
    return Chart("roofline", said["title_roofline"], caption, charts.roofline(rows, work / traffic, flops, moved, said))


def gibibytes(row: Row, on_gpu: str) -> str:
    """ "1.20 GiB", or "1.20 GiB, 3.40 on the GPU" in words of the language; nothing where it is not known."""
    held, own = row["peak_memory_bytes"], row["peak_device_memory_bytes"]
    return (f"{held / GIB:.2f} GiB" if held else "") + (on_gpu.format(gib=f"{own / GIB:.2f}") if own else "")


def share(value: float) -> str:
    """ "0.4%", "58%"."""
    return f"{100 * value:.2g}%" if value < 0.1 else f"{value:.0%}"


def count(value: float) -> str:
    """ "0.04", "0.3", "12", "530"."""
    return f"{value:.1g}" if value < 0.1 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _drawn(row: Row, said: charts.Said) -> Row:
    return {"label": row["label"], "track": said[row["track"]]}


MAKERS: tuple[Callable[[Group, Tables], Chart | None], ...] = (_speed, _compile, _memory, _roofline, _loss, _accuracy)
