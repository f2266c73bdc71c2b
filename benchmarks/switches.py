"""What a switch of the tuned track is worth: speed with it over speed without, as the median of paired ratios with its
95 % interval.

    uv run python benchmarks/switches.py TEXT FRAMEWORK SWITCH[+SWITCH] ...

Two workers, with and without, take turns on all cores. A switch is worth its line in `[tuned]` of text.toml where the
interval lies above 1. NAME=VALUE in the place of a switch is a variable of the worker's environment.
"""

import os
import random
import sys
from dataclasses import replace

from dlrosetta import environments, frameworks, intervals, machine, paths, texts
from dlrosetta.proof import run

ROUNDS = int(os.environ.get("ROUNDS", "20"))
ROUND_S = 0.5


def opened(text, framework, python):
    """A worker that is ready to time, and how many steps make a round."""
    worker = run.start(framework, python, machine.threads(), patience=600)
    worker.ask("hello", layout=dict(framework.layout))
    worker.ask(
        "open",
        version=str(run.version_of(text, framework)),
        dtype="float32",
        layers=text.full_layers,
        constants=list(text.hyperparameters),
        names=text.names_for(framework.slug, framework.version),
        trains=text.trains,
        labels=text.trains,
        files=text.files,
        switches=list(framework.switches),
    )
    worker.ask("create", seed=0)
    worker.ask("prepare", count=4 if text.trains and not text.files else 1)
    seconds = [worker.ask("steps", count=2)["seconds"] for _ in range(3)]
    return worker, max(1, round(ROUND_S / (seconds[-1] / 2)))


def main() -> None:
    name, slug, *tried = sys.argv[1:]
    (text,) = texts.select(name, texts.find(paths.stone_dirs()))
    (framework,) = frameworks.select(slug, frameworks.find())
    python = environments.ensure(framework)
    plain, steps = opened(text, framework, python)
    order = random.Random(0)
    for switches in tried:
        parts = switches.split("+")
        variables = dict(part.split("=", 1) for part in parts if "=" in part)
        named = tuple(part for part in parts if "=" not in part)
        with_it = replace(framework, switches=named, env={**framework.env, **variables})
        tuned, _ = opened(text, with_it, python)
        samples = {plain: [], tuned: []}
        for _ in range(ROUNDS):
            turn = [plain, tuned]
            order.shuffle(turn)
            for worker in turn:
                worker.ask("steps", count=1)
                samples[worker].append(steps / worker.ask("steps", count=steps)["seconds"])
        tuned.close()
        found = intervals.ratio(samples[tuned], samples[plain])
        what = f"{name} {slug} {switches}"
        print(f"{what:48} {found.median:.3f}  [{found.low:.3f}, {found.high:.3f}]", flush=True)
    plain.close()


if __name__ == "__main__":
    main()
