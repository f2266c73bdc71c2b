"""Two ways to take the same train steps, as the median of paired ratios with its 95 % interval.

    uv run python benchmarks/loops.py overhead TEXT [FRAMEWORK ...]
        the worker's `steps`, which `rosetta compare` times, over the loop of the version's own `main`: the bar is 1.01
    uv run python benchmarks/loops.py plain TEXT [FRAMEWORK ...]
        the loop of the version's own `main` over the plainest loop of the framework's documentation (plain_*.py)

Both ways run in one process on the same batches, in turn, on all cores. Below 1 the first is the faster.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from dlrosetta import client, environments, frameworks, intervals, machine, paths, texts
from dlrosetta.proof import run

ROUNDS = int(os.environ.get("ROUNDS", "30"))
BATCH = int(os.environ.get("BATCH", "0"))  # examples a batch, else the version's own: where one takes minutes on a CPU
STEPS = {"cnn": 4, "gpt": 2, "gru": 16}  # a round: half a second and more, so that what a loop's start costs is little;
FEW = {"mindspore", "mlx", "oneflow", "tinygrad"}  # whose single step takes as long on a CPU
WARM = {"mlx": 1}  # rounds that are not counted, else 3: MLX is compiled on its first, and takes minutes for two
HERE = Path(__file__).parent


def main() -> None:
    kind, name, *names = sys.argv[1:] or ["overhead", "cnn"]
    text = texts.select(name, texts.find(paths.stone_dirs()))[0]
    for framework in frameworks.select(",".join(names) or "all", frameworks.find()):
        python = environments.ensure(framework)
        env = client.worker_environment(framework.environ(machine.threads(), python.parent.parent), machine.threads())
        job = {
            "package": str(paths.PACKAGE),
            "adapter": str(framework.adapter),
            "layout": dict(framework.layout),
            "version": str(run.version_of(text, framework)),
            "text": text.name,
            "layers": text.known_layers,
            "constants": list(text.hyperparameters),
            "names": text.names_for(framework.slug, framework.version),
            "kind": {"trains": text.trains, "labels": text.trains, "files": text.files},
            "plain": str(HERE / f"plain_{framework.version}.py") if kind == "plain" else None,
            "rounds": ROUNDS,
            "batch": BATCH,
            "warm": WARM.get(framework.slug, 3),
            "steps": 1 if framework.slug in FEW else STEPS.get(text.name, 1),
        }
        command = [python, HERE / "loops_worker.py", json.dumps(job)]
        done = subprocess.run(
            command, env={**env, "ROSETTA_DATA": "sample"}, stdout=subprocess.PIPE, text=True, check=True
        )
        first, second = json.loads(done.stdout.splitlines()[-1])
        found = intervals.ratio(first, second)
        name = f"{kind} {text.name} {framework.slug}"
        print(f"{name:40} {found.median:.3f}  [{found.low:.3f}, {found.high:.3f}]", flush=True)


if __name__ == "__main__":
    main()
