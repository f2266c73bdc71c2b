"""What the instrument itself costs, beside what it measures: the figures of docs/method.md.

    uv run python benchmarks/overheads.py                      planted frameworks of nothing but numpy
    uv run python benchmarks/overheads.py TEXT FRAMEWORK ...   start and memory of real cells, proven before

(a) the harness's share of a step of 5 ms; (b) seconds from the start of a comparison to its first timed round, where
environment and proof are there, beyond the framework's import and its first two calls; (c) the largest memory of the
process `rosetta compare` itself; (d) how long it takes to tell two frameworks apart that differ by 5 %.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
OVERHEAD, START_S, MEMORY_MB, APART_S = 0.01, 3.0, 150, 120.0  # the bars

# Runs `rosetta` in this very process, and notes when the first round began and how large the process became. The high
# water mark is of this process alone: what getrusage tells begins with that of whoever started it.
WRAPPER = """
import json, os, re, sys, time
from dlrosetta import compare

begun, out, marks, real = float(sys.argv[1]), sys.argv[2], {}, compare.compare

def timed(text, wanted, profile, budget, patience, say, *rest):
    def heard(line):
        if line.startswith("warming"):
            marks.setdefault("warming_s", time.time() - begun)
        if line.startswith("round 1"):
            marks.setdefault("round_s", time.time() - begun)
            marks.setdefault("worked_s", time.process_time())
        say(line)
    return real(text, wanted, profile, budget, patience, heard, *rest)

compare.compare = timed
sys.argv[:] = ["rosetta", *sys.argv[3:]]
from dlrosetta.cli import main
try:
    main()
finally:
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
    loaded = sorted({name.split(".")[0] for name in sys.modules})
    json.dump({**marks, "peak_bytes": peak, "loaded": loaded}, open(out, "w"))
"""


def noted(*arguments: str, environ: dict[str, str], before: str = "") -> tuple[str, dict]:
    """Run `rosetta`; return what it prints, its `peak_bytes`, and the packages that were `loaded`; of a comparison also
    seconds until warming (`warming_s`) and until the first round (`round_s`), and those that the process itself worked
    until then (`worked_s`). `before` is run first.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "told.json")
        command = [sys.executable, "-c", before + WRAPPER, str(time.time()), str(out), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        if not done.stdout:
            sys.exit(done.stderr)
        return done.stdout, json.loads(out.read_text(encoding="utf-8"))


def compared(*arguments: str, environ: dict[str, str]) -> dict:
    """The document of a comparison, with the same."""
    shown, told = noted("compare", *arguments, "--json", environ=environ)
    return {**json.loads(shown), **told}


def start_s(document: dict) -> float:
    """Seconds from the start of the process to the first round, less those of import and first two calls. Warming is in
    it: the version's train steps until they are as fast as they become.
    """
    cells = [cell for cell in document["cells"] if cell["items_per_second"]]
    theirs = sum(cell["import_s"] + cell["first_call_s"] + cell["second_call_s"] for cell in cells)
    return document["round_s"] - theirs


def planted(folder: Path, **steps: str):
    """A machine (tests/planted.py) with a framework a keyword, whose step does that first; and its variables."""
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    import planted as module

    module.template(folder / "template")
    place = module.Place(folder / "machine", folder / "template")
    os.environ["ROSETTA_CACHE"] = str(place.cache)
    begin = "    loss = loss_fn(model, images, labels)\n    optimizer.step"
    for slug, code in steps.items():
        place.plant(slug, (begin, f"    {code}\n{begin}"))
    return place


def main() -> None:
    from dlrosetta import machine
    from dlrosetta.selftest import timing

    print(f"{machine.kind()}; load {os.getloadavg()[0]:.1f}")
    share = timing.check_fence_costs_nothing()
    say("a", "harness on a step of 5 ms, at most 1 %", share.held, share.seen)
    with tempfile.TemporaryDirectory() as folder:
        place = planted(Path(folder), a="import time; time.sleep(0.05)", b="import time; time.sleep(0.0525)")
        options = ("mine", "--frameworks", "a,b", "--budget", "60")
        compared(*options[:-1], "1", environ=place.environ())  # proves
        begun = time.monotonic()
        found = compared("mine", "--frameworks", "a", "--budget", "1", environ=place.environ())
        start, memory = start_s(found), found["peak_bytes"] / 1e6
        say(
            "b",
            f"start of a cell, at most {START_S:.0f} s",
            start <= START_S,
            f"{start:.1f} s ({found['worked_s']:.1f} s of work)",
        )
        say("c", f"memory of the core, at most {MEMORY_MB} MB", memory <= MEMORY_MB, f"{memory:.0f} MB")
        begun = time.monotonic()
        found = compared(*options, environ=place.environ())
        seconds, (pair,) = time.monotonic() - begun, found["pairs"]
        seen = (
            f"ratio {pair['ratio']:.3f}, {pair['low']:.3f} to {pair['high']:.3f}, in {seconds:.0f} s with start and end"
        )
        say("d", "5 % told apart in two minutes", pair["low"] > 1 and seconds <= APART_S, seen)


def real(text: str, slugs: list[str]) -> None:
    from dlrosetta import machine

    print(f"{machine.kind()}; load {os.getloadavg()[0]:.1f}")
    for slug in slugs:
        with tempfile.TemporaryDirectory() as folder:
            environ = {**os.environ, "ROSETTA_RESULTS": folder}
            found = compared(text, "--frameworks", slug, "--budget", "1", environ=environ)
        if not found["cells"][0]["import_s"]:
            print(f"    {text} {slug}: failed")
            continue
        warm, memory = found["round_s"] - found["warming_s"], found["peak_bytes"] / 1e6
        print(f"    {text} {slug}: {start_s(found) - warm:.1f} s, then {warm:.1f} s of warming; {memory:.0f} MB")


def say(part: str, claim: str, held: bool, seen: str) -> None:
    print(f"({part}) {claim}: {seen}{'' if held else '  ✗'}")


if __name__ == "__main__":
    real(sys.argv[1], sys.argv[2:]) if len(sys.argv) > 2 else main() if len(sys.argv) == 1 else sys.exit(__doc__)
