"""Energy of the processors, where the machine tells: RAPL's counters, which Linux shows below /sys/class/powercap.

They count microjoules of whole packages (and of memory, where the processor has a counter for it), so whatever else
runs counts too, and they begin anew at their range. Most systems let only root read them; virtual machines have none.
https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def read(powercap: Path | None = None) -> dict[str, tuple[int, int]]:
    """Microjoules counted so far and the range of the counter, by name of a package or of its memory; {} if none."""
    found = {}
    for zone in sorted((powercap or POWERCAP).glob("*rapl:*")):
        try:
            name = (zone / "name").read_text(encoding="ascii").strip()
            if not name.startswith(("package", "dram")):  # cores and graphics are counted within their package
                continue
            numbers = [int((zone / file).read_text(encoding="ascii")) for file in ("energy_uj", "max_energy_range_uj")]
        except (OSError, ValueError):
            continue
        found[zone.name] = (numbers[0], numbers[1])
    return found


def joules(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float | None:
    """Energy between two readings; a counter that is behind where it was has begun anew once. None without any."""
    both = before.keys() & after.keys()
    if not both:
        return None
    spent = 0
    for zone in both:
        counted = after[zone][0] - before[zone][0]
        spent += counted if counted >= 0 else counted + after[zone][1]
    return spent / 1e6
