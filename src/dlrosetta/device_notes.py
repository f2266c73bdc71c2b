"""What a reader must know of the GPUs behind a result: where their own clock disagrees with the wall's, and where two
cells do not compute alike. Asked of result documents, so that a table and a report say the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

KINDS = ("cuda", "gpu", "metal", "rocm")  # what frameworks call one
APART = 0.02  # of the wall time, by which the device's own may differ before a reader is told
WORDS = {"tf32": "TF32 allowed", "autotune": "kernels of convolutions tried out first"}


def share(cell: dict[str, Any]) -> float | None:
    """Seconds by the device's own clock as a share of the wall's: the median of the rounds; None where it has none."""
    speed = cell["items_per_second"] or {}
    pairs = zip(speed.get("samples", []), speed.get("device_samples", []), strict=False)
    return statistics.median([wall / own for wall, own in pairs] or [0.0]) or None


def gpu(document: dict[str, Any], cell: dict[str, Any]) -> str | None:
    """The name of the GPU that a cell ran on: the one that was asked for, else the first; None on a CPU."""
    if not str((cell.get("facts") or {}).get("device") or "cpu").lower().startswith(KINDS):
        return None
    known = [one["name"] for one in document["machine"].get("gpus", [])]
    return document.get("device") or next(iter(known), None)


def notes(cells: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each that matters; none where all ran on CPUs."""
    return [*_clocks(cells), *_arithmetic(cells)]


def _clocks(cells: Sequence[dict[str, Any]]) -> list[str]:
    told = [(cell["framework"], found) for cell in cells if (found := share(cell)) and abs(found - 1) > APART]
    return [
        f"Clocks: of {name}'s wall time its GPU counts {found:.0%} between the first and the last thing submitted; "
        + ("the rest is spent before or behind it." if found < 1 else "one of the two clocks is wrong.")
        for name, found in told
    ]


def _arithmetic(cells: Sequence[dict[str, Any]]) -> list[str]:
    """Switches of the arithmetic that some cells have on and others off; who does not tell is not counted."""
    lines = []
    for switch, words in WORDS.items():
        told: dict[bool, list[str]] = {True: [], False: []}
        for cell in cells:
            value = (cell.get("found") or {}).get("arithmetic", {}).get(switch)
            if cell["items_per_second"] and value is not None:
                told[bool(value)].append(cell["framework"])
        if told[True] and told[False]:
            lines.append(f"Not alike: {words} in {', '.join(told[True])}, not in {', '.join(told[False])}.")
    return lines
