"""What a person sees: tables on stdout, progress and errors on stderr, and nothing but the document where JSON was
asked for.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from dlrosetta import device_notes
from dlrosetta import machine as machines
from dlrosetta.proof import HOLDING
from dlrosetta.proof.cell import Cell

STYLES = {
    "proven": "green",
    "evaluates": "green",
    "waived": "yellow",
    "differs": "bold red",
    "failed": "red",
    "cannot": "dim",
    "not run": "dim",
    "stale": "yellow",
}
MUCH_OTHERS = 0.05  # share of the processors that others may take before a reader is told
MARKS = {"proven": "✓", "waived": "~", "differs": "✗", "failed": "!", "cannot": "–"}


def out() -> Console:
    return Console(highlight=False)


def err() -> Console:
    return Console(stderr=True, highlight=False)


LEAF = re.compile(r"\{\n[^][{}]*\n *\}")  # of JSON with an indent: words in it have no line's end of their own


def print_json(document: dict[str, Any]) -> None:
    """Write one JSON document to stdout. An object that holds no other, as each of a proof's checks, takes one line."""
    text = json.dumps(document, indent=1, allow_nan=False)
    sys.stdout.write(LEAF.sub(lambda leaf: re.sub(r"\n *", " ", leaf[0]), text) + "\n")


def verdict(name: str) -> Styled:
    """A verdict with its mark, so that colour is never all that tells."""
    return Styled(f"{MARKS.get(name, '·')} {name}", style=STYLES.get(name, ""))


def number(value: float) -> str:
    """An error or a bound in three characters and an exponent; exact zero as 0."""
    return "0" if value == 0 else f"{value:.1e}" if value == value and abs(value) != float("inf") else "∞"


def per_second(speed: float) -> str:
    """A speed without decimals, or with as many as give it three figures."""
    return f"{speed:.0f}" if speed >= 100 else f"{speed:.1f}" if speed >= 10 else f"{speed:.2f}"


def proof_table(title: str, cells: Iterable[Cell]) -> Table:
    """One row a cell: the verdict, and the check that comes nearest to its bound or breaks it first."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name, justify in (
        ("framework", "left"),
        ("precision", "left"),
        ("verdict", "left"),
        ("error", "right"),
        ("bound", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("in its worst check", overflow="fold")
    for cell in cells:
        worst = worst_check(cell)
        row = (number(worst.error), number(worst.bound), worst.name) if worst else ("", "", "")
        table.add_row(cell.framework, cell.dtype, verdict(cell.verdict), *row)
    return table


def worst_check(cell: Cell) -> Any:
    """The first check that differs, else the one that used most of its bound; exact checks that hold say nothing."""
    for wanted in ("differs", "waived"):
        wrong = [check for check in cell.checks if check.verdict == wanted]
        if wrong:
            return wrong[0] if wanted == "differs" else max(wrong, key=lambda check: check.error)
    largest = 1.0 if cell.dtype == "bfloat16" else 1e-2  # of a tensor's bound; those of other checks are beyond
    tensors = [check for check in cell.checks if 0 < check.bound < largest]
    return max(tensors, key=lambda check: check.error / check.bound, default=None)


def reasons(cells: Iterable[Cell]) -> list[Styled]:
    """A line for each cell that is not simply proven: what, why, and where to look."""
    lines = []
    for cell in cells:
        if cell.verdict == "proven":
            continue
        line = Styled(f"{cell.framework} {cell.dtype} ", style="bold").append_text(verdict(cell.verdict))
        where = cell.first_departure
        if where:
            layer = f" at {where['layer']}" if where["layer"] else ""
            line.append(f"{layer} in section {where['section'] or '?'}, line {where['line']}", style="")
        if cell.reason:
            line.append(f": {cell.reason}", style="")
        lines.append(line)
    return lines


def evaluated(cells: Iterable[Cell]) -> Styled | None:
    """Of which frameworks the evaluation pass alone was asked about; None where of none."""
    slugs = dict.fromkeys(cell.framework for cell in cells if cell.scope == "evaluation" and cell.checks)
    if not slugs:
        return None
    return Styled(f"Of {', '.join(slugs)} the evaluation pass alone: no loss, gradients or training.", style="dim")


def checks_table(cell: Cell) -> Table:
    """Every check of one cell, for --verbose."""
    table = Table(
        title=f"{cell.framework} {cell.dtype}", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for name, justify in (("check", "left"), ("error", "right"), ("bound", "right"), ("verdict", "left")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for check in cell.checks:
        table.add_row(check.name, number(check.error), number(check.bound), verdict(check.verdict))
    return table


def show_comparison(text: Any, document: dict[str, Any], path: Any) -> None:
    """The table of a comparison, of the evaluation pass another where frameworks do not train; what does not differ, on
    which data and machine, and where the result lies.
    """
    screen = out()
    machine, unit = document["machine"], document["unit"]
    precision = "" if document["dtype"] == "float32" else f" in {document['dtype']}"
    precision += ", tuned" if document["track"] == "tuned" else ""
    precision += f", {document['batch']} a batch" if "batch" in document else ""
    alone = "grid" in document
    asked = {"all": "how fast{}?", "evaluation": "how fast is its evaluation pass{}?"}
    scopes = [scope for scope in asked if any(cell["scope"] == scope for cell in document["cells"])]
    for scope in scopes:
        cells = [cell for cell in document["cells"] if cell["scope"] == scope]
        title = f"{text.title}: {asked[scope].format(precision)}"
        table = comparison_table(title, unit, cells, alone, roof_limit(document, scope))
        wanted = screen.measure(table, options=screen.options.update(max_width=1000)).maximum
        if wanted > screen.width:  # of a terminal of 80 columns every one counts
            table.padding = (0, 1, 0, 0)
        screen.print(table)
        if any(cell["input"]["both"] for cell in cells):
            screen.print()
            screen.print(input_table(unit, cells))
        if scope != scopes[-1]:
            screen.print()
    if document["profile"] == "full":
        for table in [training_table(text.metric, document)] if text.trains else agreement_tables(text.unit, document):
            screen.print()
            screen.print(table)
    same = [pair for pair in document["pairs"] if not pair["differ"]]
    screen.print()
    for cell in document["cells"]:
        if cell["verdict"] not in HOLDING:
            screen.print(
                Styled(f"{cell['framework']} ", style="bold")
                .append_text(verdict(cell["verdict"]))
                .append(f": {cell['reason']}", style="")
            )
    for pair in same:
        interval = f"{pair['low']:.2f} to {pair['high']:.2f}"
        screen.print(f"{pair['a']} and {pair['b']}: no difference (ratio {pair['ratio']:.2f}, {interval})")
    for line in how_it_went(document):
        screen.print(line, style="yellow")
    how = "in shuffled turns; share: of the fastest;"
    if alone:
        number, device = document["grid"]["node"], document["grid"]["device"]
        how = f"of a cell alone on node {number} ({device}), after one another: nothing here was measured side by side;"
    screen.print(f"{unit}/s: median and 95 % interval of {_rounds(document)} rounds {how}", style="dim")
    screen.print(
        f"of roof: of what the best product or copy here allows this model; {ended(document)}.",
        style="dim",
    )
    mixed = "bfloat16 and float32 mixed" if document["dtype"] == "bfloat16" else "float32"
    track = document["track"]
    screen.print(
        f"first: first call, with compilation; memory: largest of the process; {mixed}, {track} track.", style="dim"
    )
    if track == "tuned":
        told = {cell["framework"]: ", ".join(cell["switches"]) or "nothing" for cell in document["cells"]}
        screen.print("Tuned: " + "; ".join(f"{name}: {said}" for name, said in told.items()) + ".", style="dim")
    if document["weights"]:
        screen.print(f"Weights: {document['weights']}.", style="dim")
    device = f" Device: {document['device']}." if "device" in document else ""
    where = f"Data: {document['data']}. Machine: {machines.title(machine)}.{device}"
    screen.print(where, style="dim")
    if path:
        screen.print(f"Result: {path}", style="dim", soft_wrap=True)


def how_it_went(document: dict[str, Any]) -> list[str]:
    """What a reader must know of the machine before trusting the table: that it changed, or had other work."""
    went, lines = document["rounds"], []
    drifted = went["drift"]
    if drifted and drifted["alarm"]:
        slower = "slower" if drifted["factor"] < 1 else "faster"
        factor = drifted["factor"] if drifted["factor"] >= 1 else 1 / drifted["factor"]
        lines.append(
            f"Drift: from round {drifted['round']} on everything was {factor:.2f} times {slower}. Ratios hold, for "
            "they are taken within rounds; speeds are those of two machines. Compare again when it is quiet."
        )
    if went["others"] is not None and went["others"] > MUCH_OTHERS:
        lines.append(f"Busy: others took {went['others']:.0%} of this machine's processors meanwhile.")
    return [*lines, *device_notes.notes(document["cells"])]


def ended(document: dict[str, Any]) -> str:
    """Why the rounds of a run ended."""
    budget = document.get("budget_s", document["rounds"]["seconds"])  # a published copy may lack it
    return {
        "narrow": "every interval is within ±2 %",
        "budget": f"the budget of {budget:.0f} s ended the rounds, not all intervals are within ±2 %",
        "rounds": "the most rounds were taken, not all intervals are within ±2 %",
        "nothing": "nothing was timed",
    }[document["rounds"]["why"]]


def show_check(check: Any) -> None:
    """One claim of a self-test, and below it what was seen."""
    mark = Styled("✓ ", style=STYLES["proven"]) if check.held else Styled("✗ ", style=STYLES["differs"])
    out().print(mark.append(check.name, style="bold"))
    out().print(f"  {check.seen}", style="dim")


def show_roof(document: dict[str, Any]) -> None:
    """The table of `rosetta roof`, alphabetical, and why a framework is not in it."""
    screen, roof, machine = out(), document["roof"], document["machine"]
    table = Table(title="The roof of this device", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.padding = (0, 2, 0, 0)
    table.add_column("framework", no_wrap=True)
    for name in ("product GFLOP/s", "share", "copy GB/s", "share", "convolution GFLOP/s"):
        table.add_column(name, justify="right", no_wrap=True)
    convolutions = roof["convolution_flops_per_s"]
    for slug in sorted(roof["flops_per_s"]):
        row = [slug]
        for rates in (roof["flops_per_s"], roof["bytes_per_s"]):
            row += [f"{rates[slug] / 1e9:.1f}", f"{rates[slug] / max(rates.values()):.0%}"]
        table.add_row(*row, f"{convolutions[slug] / 1e9:.1f}" if slug in convolutions else "")
    screen.print(table)
    screen.print()
    for slug, reason in sorted(roof["reasons"].items()):
        screen.print(Styled(f"{slug} ", style="bold").append_text(verdict("failed")).append(f": {reason}", style=""))
    screen.print("Fastest of several rounds in float32; share: of the best, which is the roof.", style="dim")
    screen.print(f"Machine: {machines.title(machine)}.", style="dim")


def comparison_table(
    title: str, unit: str, cells: list[dict[str, Any]], alone: bool = False, limit: float | None = None
) -> Table:
    """One row a cell, alphabetical: verdict, speed with its interval, share of the fastest (unless each was measured
    alone) and of the `limit` that the roof sets in items a second, first call, import, peak memory, and where any
    framework tells it that on the device.
    """
    fastest = max((cell["items_per_second"]["median"] for cell in cells if cell["items_per_second"]), default=0.0)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("framework", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    on_device = any("peak_device_memory_bytes" in cell for cell in cells)
    more = ["on device"] if on_device else []
    for name in (f"{unit}/s", "interval", "share", "of roof", "first", "import", "memory", *more):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in cells:
        speed = cell["items_per_second"]
        row = [cell["framework"], verdict(cell["verdict"])]
        if speed:
            low, median, high = (per_second(speed[key]) for key in ("low", "median", "high"))
            row += [median, f"{low}–{high}", "" if alone else f"{speed['median'] / fastest:.0%}"]
            row += [f"{speed['median'] / limit:.0%}" if limit else ""]
            row += [
                f"{cell['first_call_s']:.1f} s",
                f"{cell['import_s']:.1f} s",
                f"{cell['peak_memory_bytes'] / 2**30:.1f} GB",
            ]
            held = cell.get("peak_device_memory_bytes")
            row += [f"{held / 2**30:.1f} GB" if held else ""] if on_device else []
        table.add_row(*row)
    return table


def input_table(unit: str, cells: list[dict[str, Any]]) -> Table:
    """What feeding costs, a row a cell: the loader alone, train steps that it feeds, and those as a share of the speed
    with batches that are in memory.
    """
    table = Table(title="With its input pipeline", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.padding = (0, 2, 0, 0)
    table.add_column("framework", no_wrap=True)
    for name in (f"loader {unit}/s", f"fed {unit}/s", "interval", "of unfed"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in cells:
        speed, load, both = cell["items_per_second"], cell["input"]["load"], cell["input"]["both"]
        if speed and load and both:
            low, median, high = (per_second(both[key]) for key in ("low", "median", "high"))
            share = both["median"] / speed["median"]
            table.add_row(cell["framework"], per_second(load["median"]), median, f"{low}–{high}", f"{share:.0%}")
    return table


def roof_limit(document: dict[str, Any], scope: str) -> float | None:
    """Items a second at the roof: of products or of copies, whichever is lower; None where it was not measured."""
    rates, part = document.get("roof"), "" if scope == "all" else "_forward"
    if not rates or not rates["flops_per_s"] or "work" not in document:
        return None
    flops, moved = (document["work"][f"{kind}_per_item{part}"] for kind in ("flops", "bytes"))
    return min(max(rates["flops_per_s"].values()) / flops, max(rates["bytes_per_s"].values()) / moved)


def training_table(metric: str, document: dict[str, Any]) -> Table:
    """What the full profile adds, apart, so that no terminal is too narrow for it: seconds of training, the metric."""
    table = Table(title="Trained as the text says", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.padding = (0, 2, 0, 0)
    table.add_column("framework", no_wrap=True)
    for name in ("epochs", "training", "last loss", metric):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in document["cells"]:
        done = cell["training"]
        if done:
            figures = (done["losses"][-1] if done["losses"] else None, cell["accuracy"])  # none where it was NaN
            shown = ["–" if value is None else f"{value:.3f}" for value in figures]
            table.add_row(cell["framework"], str(len(done["losses"])), f"{done['seconds']:.0f} s", *shown)
    return table


def agreement_tables(unit: str, document: dict[str, Any]) -> list[Table]:
    """What the full profile adds where nothing is trained: how far each two frameworks are apart on all examples. None
    where there are no two.
    """
    pairs = document["agreement"]
    if not pairs:
        return []
    table = Table(
        title=f"Features of {pairs[0]['examples']} {unit}", title_justify="left", title_style="bold", box=None
    )
    table.pad_edge, table.padding = False, (0, 2, 0, 0)
    table.add_column("frameworks")
    for name in ("largest error", "same nearest neighbour"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in pairs:
        table.add_row(f"{pair['a']} and {pair['b']}", number(pair["error"]), f"{pair['neighbours']:.1%}")
    return [table]


def _rounds(document: dict[str, Any]) -> int:
    return max(
        (len(cell["items_per_second"]["samples"]) for cell in document["cells"] if cell["items_per_second"]), default=0
    )
