"""What the harness costs: a train step under the worker against the same step in the version's own loop.

    uv run python benchmarks/overhead.py [FRAMEWORK ...]

In one worker process, on the same model and batches, rounds of `Session.steps` (what `rosetta compare` times) alternate
with rounds of the loop that the version's `main` writes. Prints the median of the paired ratios with its bootstrap 95 %
interval. The bar is 1 %.
"""

import json
import subprocess
import sys
from pathlib import Path

from dlrosetta import client, environments, frameworks, intervals, machine, paths, texts
from dlrosetta.proof import run

ROUNDS, STEPS = 30, 4


def main() -> None:
    text = texts.select("cnn", texts.find(paths.stone_dirs()))[0]
    for framework in frameworks.select(",".join(sys.argv[1:]) or None, frameworks.find()):
        python = environments.ensure(framework)
        env = client.worker_environment(framework.environ(machine.threads(), python.parent.parent), machine.threads())
        job = {
            "worker": str(paths.PACKAGE / "worker"),
            "adapter": str(framework.adapter),
            "layout": dict(framework.layout),
            "version": str(run.version_of(text, framework)),
            "layers": text.layers,
            "constants": list(text.hyperparameters),
            "rounds": ROUNDS,
            "steps": STEPS,
        }
        script = Path(__file__).with_name("overhead_worker.py")
        env["ROSETTA_DATA"] = "sample"
        done = subprocess.run([python, script, json.dumps(job)], env=env, capture_output=True, text=True, check=True)
        harness, own = json.loads(done.stdout.splitlines()[-1])
        found = intervals.ratio(harness, own)
        interval = f"{found.median:.4f}  [{found.low:.4f}, {found.high:.4f}]"
        print(f"{framework.slug:18} harness / own loop {interval}  {STEPS} steps a round")


if __name__ == "__main__":
    main()
