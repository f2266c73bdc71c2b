"""What people see of a visit: the machine, what frameworks reach of its roof, and what is wrong."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text as Styled

from dlrosetta import console


def show(document: dict[str, Any]) -> None:
    """Facts of the machine, what frameworks reach on it, and what is wrong with what to change."""
    screen, machine, roof = console.out(), document["machine"], document["roof"]
    memory = f"{machine['free'] / 2**30:.0f} of {machine['memory'] / 2**30:.0f} GB free"
    cores = f"{machine['allowed']} of {machine['cores']} cores"
    screen.print(f"{machine['cpu']}: {cores}, {document['vector']}; {memory}")
    for gpu in machine["gpus"]:
        screen.print(f"{gpu['name']}, driver {gpu['driver']}, {gpu['uuid']}")
        for one in gpu["instances"]:
            size = "" if one["memory"] is None else f", {one['memory'] / 2**30:.0f} GB"
            screen.print(f"  MIG {one['profile'] or one['index']}{size}, {one['uuid'] or 'of no known uuid'}")
    screen.print()
    if roof["flops_per_s"]:
        screen.print(table_of(document))
        screen.print()
    alike: dict[str, list[str]] = {}
    for slug, reason in sorted(roof["reasons"].items()):
        alike.setdefault(reason, []).append(slug)
    for slug, step in sorted(document["steps"].items()):
        if "reason" in step:
            alike.setdefault(f"no step: {step['reason']}", []).append(slug)
    for reason, slugs in alike.items():
        screen.print(f"{', '.join(slugs)}: {reason}", style="dim")
    unproven = [slug for slug, step in sorted(document["steps"].items()) if step.get("proven") is False]
    if unproven:
        told = f"Not proven here, so their steps may be another model's: {', '.join(unproven)}"
        screen.print(f"{told} (rosetta prove {document['text']})", style="dim")
    for slug in document["not_ready"]:
        screen.print(f"{slug}: no environment here (rosetta env create {slug})", style="dim")
    for one in document["findings"]:
        screen.print(Styled("✗ ", style=console.STYLES["differs"]).append(one["wrong"], style="bold"))
        screen.print(f"  {one['change']}")
    if not document["findings"]:
        screen.print(
            Styled("✓ ", style=console.STYLES["proven"]).append("nothing is wrong that this looks for", style="bold")
        )


def table_of(document: dict[str, Any]) -> Table:
    """What each framework reaches, as shares of the roof: the best product and the best copy."""
    roof, work = document["roof"], document["work"]
    products, copies = roof["flops_per_s"], roof["bytes_per_s"]
    top, fastest = max(products.values()), max(copies.values())
    limits = {
        "product": (products, top),
        "convolution": (roof["convolution_flops_per_s"], top),
        "copy": (copies, fastest),
        f"{document['text']} step": (
            {slug: step.get("flops_per_s") for slug, step in document["steps"].items()},
            min(top, fastest * work["flops_per_item"] / work["bytes_per_item"]),
        ),
    }
    title = f"Of the roof: a product of {top / 1e9:.3g} GFLOP/s, a copy of {fastest / 1e9:.3g} GB/s, float32"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.padding = (0, 2, 0, 0)
    table.add_column("framework", no_wrap=True)
    for name in ("version", "device", "threads", *limits):
        table.add_column(name, justify="right", no_wrap=True)
    for slug in sorted(products):
        worker = document["machine"]["workers"].get(slug, {})
        row = [slug, *(str(worker.get(key) or "").split("-")[0] for key in ("version", "device", "threads"))]
        table.add_row(*row, *(f"{rates[slug] / of:.0%}" if rates.get(slug) else "" for rates, of in limits.values()))
    return table
