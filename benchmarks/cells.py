"""What a cell of a grid costs beside its rounds: the figures of docs/scale.md.

    uv run python benchmarks/cells.py cell TEXT FRAMEWORK ...    environment, proof, start, warm-up, size of the result
    uv run python benchmarks/cells.py ray                        Ray's part, and ours of a home-coming

Environments and proofs are made in a cache of their own, which is removed; what uv has in its cache is not downloaded.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

CELLS, NODES = 10_000, 1_000


def cell(name: str, slugs: list[str]) -> None:
    """Two runs of each cell, the first on a machine that has nothing, the second where environment and proof are."""
    from dlrosetta import compare, environments, frameworks, machine, paths, texts
    from dlrosetta.proof import HOLDING

    (text,) = texts.select(name, texts.find(paths.stone_dirs()))
    facts = machine.facts()
    print(f"{facts['cpu']}, {facts['cores']} cores, load {facts['load'][0]:.1f}; {name}, seconds")
    columns = ("environment", "proof", "start", "import", "calls", "own", "warm-up", "rounds", "result kB")
    print("".join(f"{column:>12}" for column in ("framework", *columns)))
    for framework in frameworks.select(",".join(slugs), frameworks.find()):
        begun = time.perf_counter()
        environments.create(framework)
        made = time.perf_counter() - begun
        proof = None
        for _ in range(2):
            marks = {"begin": time.perf_counter()}
            found = compare.compare(
                text, [framework], budget=1, say=lambda line, marks=marks: marks.setdefault(line.split()[0], now())
            )
            marks["end"] = time.perf_counter()
            proof = marks["starting"] - marks["begin"] if proof is None else proof
        result = found.document()
        (timed,) = result["cells"]
        if timed["verdict"] not in HOLDING:
            print(f"{framework.slug:>12}  {timed['verdict']}: {timed['reason']}")
            continue
        start = marks["warming"] - marks["starting"]
        calls = timed["first_call_s"] + timed["second_call_s"]
        figures = (
            made, proof, start, timed["import_s"], calls, start - timed["import_s"] - calls,
            marks["round"] - marks["warming"], marks["end"] - marks["round"], len(json.dumps(result)) / 1024,
        )  # fmt: skip
        print(f"{framework.slug:>12}" + "".join(f"{figure:>12.2f}" for figure in figures))


def now() -> float:
    return time.perf_counter()


def nothing(document: str) -> str:
    return document


def on_ray() -> None:
    """A node of this machine's own, with nothing to compute."""
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})  # on loopback
    import ray

    from dlrosetta import frameworks, grid, machine, on_ray

    facts = machine.facts()
    print(f"{facts['cpu']}, {facts['cores']} cores, load {facts['load'][0]:.1f}; Ray {ray.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ROSETTA_RESULTS"] = folder
        begun = now()
        module = on_ray.ship(Path(folder), (), ())
        size = sum(path.stat().st_size for path in module.rglob("*") if path.is_file())
        print(f"shipping: {now() - begun:.2f} s to copy {size / 2**20:.1f} MB")
        ray.init(num_cpus=1, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False,
                 logging_level="ERROR", object_store_memory=80 * 2**20,
                 runtime_env={"py_modules": [str(module)]})  # fmt: skip
        (node,) = on_ray._nodes(ray).values()
        one = grid.Cell("cnn", "torch")
        remote = ray.remote(nothing)
        answer = json.dumps(document())

        def ask():
            return on_ray._alone(ray, remote, node, one).remote(answer)

        begun = now()
        ray.get(ask())
        print(f"first task of a job on a node (unpacks the program, starts a process): {now() - begun:.2f} s")
        each = []
        for _ in range(100):
            begun = now()
            ray.get(ask())
            each.append(now() - begun)
        print(f"a task there and back, with a result of {len(answer) / 1024:.1f} kB: {ms(each)}")
        waiting = [ask() for _ in range(NODES)]
        each = []
        for _ in range(20):
            begun = now()
            ray.wait(waiting, num_returns=len(waiting), timeout=0)
            each.append(now() - begun)
        print(f"ray.wait for {NODES} tasks: {ms(each)}")
        ray.get(waiting)
        each = []
        for _ in range(50):
            begun = now()
            on_ray._nodes(ray)
            each.append(now() - begun)
        print(f"the list of nodes, of one node: {ms(each)}")
        ray.shutdown()
        slugs = list(frameworks.find())
        many = [grid.Cell("cnn", slugs[number % len(slugs)], batch=number) for number in range(CELLS)]
        begun = now()
        queue = grid.Queue(many)
        print(f"a queue of {CELLS} cells: {now() - begun:.2f} s")
        each = []
        while queue:
            begun = now()
            queue.take(str(len(queue) % NODES), ("cpu",))
            each.append(now() - begun)
        print(f"the next cell of it: {ms(each)}")
        results, each = grid.Results(), []
        for number in range(200):
            home = json.loads(answer)
            begun = now()
            results.add(one, str(number % 20), 1, home)
            each.append(now() - begun)
        print(f"a home-coming, result file written anew: {ms(each)}")


def document():
    """A result of one cell with as many samples as there may be."""
    from dlrosetta import compare, frameworks, paths, texts

    (text,) = texts.select("cnn", texts.find(paths.stone_dirs()))
    (framework,) = frameworks.select("torch", frameworks.find())
    timed = compare.Timed(
        framework,
        "proven",
        facts={"threads": 1},
        samples={"steps": [1234.567 + n / 7 for n in range(100)], "load": [], "both": []},
    )
    return compare.Comparison(text, "quick", "the sample", [timed], "2026-01-01T00:00:00+00:00").document()


def ms(seconds: list[float]) -> str:
    return f"{1000 * statistics.median(seconds):.2f} ms (largest {1000 * max(seconds):.1f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["cell"]:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["ROSETTA_CACHE"] = cache
            cell(sys.argv[2], sys.argv[3:])
    elif sys.argv[1:] == ["ray"]:
        on_ray()
    else:
        sys.exit(__doc__)
