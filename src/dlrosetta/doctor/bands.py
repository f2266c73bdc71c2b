"""What machines of this class reach: bands of rates from published results.

Speeds travel within a class of machine alone: the same processor as it numbers itself, the same vector instructions, as
many cores (`machine.kind`, which results carry as `machine.class`; those from before they did count for none). What ran
on a GPU is left out, for the class says nothing of it. A band goes from the lowest to the highest of the results; each
is of a proven cell.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlrosetta import machine, results, roof
from dlrosetta.proof import HOLDING

Bands = dict[str, dict[str, tuple[float, float]]]  # rate, framework: lowest and highest


def find(folders: Iterable[Path], text: str) -> Bands:
    """Bands of products, copies, convolutions, and of FLOPs a second of a text's steps in float32."""
    found: dict[tuple[str, str], list[float]] = {}
    for one in results.find(folders).results:
        if one.document["machine"].get("class") == machine.kind():
            for rate, slug, value in _rates(one.document, text):
                found.setdefault((rate, slug), []).append(value)
    bands: Bands = {}
    for (rate, slug), values in sorted(found.items()):
        bands.setdefault(rate, {})[slug] = min(values), max(values)
    return bands


def _rates(document: dict[str, Any], text: str) -> Iterable[tuple[str, str, float]]:
    holding = {cell["framework"]: cell for cell in document["cells"] if cell["verdict"] in HOLDING}
    on_cpu = {
        slug for slug, cell in holding.items() if str(cell["facts"].get("device", "cpu")).lower().startswith("cpu")
    }
    reached, work = document.get("roof") or {}, document.get("work")
    for rate in roof.RATES:
        yield from ((rate, slug, value) for slug, value in reached.get(rate, {}).items() if slug in on_cpu)
    same = (document["text"], document["dtype"], document["track"]) == (text, "float32", "default")
    if not (same and work) or document.get("batch"):
        return
    for slug in on_cpu:
        cell = holding[slug]
        flops = work["flops_per_item_forward" if cell["scope"] == "evaluation" else "flops_per_item"]
        if cell["items_per_second"]:
            yield "step_flops_per_s", slug, cell["items_per_second"]["median"] * flops
