"""A grid on an existing Ray cluster: `rosetta compare … --on ray`. Needs the extra `dlrosetta[ray]`, here and there.

One cell at a time has a node, and it has all of the node's CPUs: whatever ran beside it would be in its seconds. Ray
cannot be asked for "all CPUs of whichever node", so this program gives each idle node its next cell by name (node
affinity) with as many CPUs as that node offers, and Ray keeps everybody else away, other users of the cluster too.

Ray repeats nothing of its own accord (`max_retries=0`): a cell that fails by its own fault comes home as a document
that says so, and only what Ray reports as lost (a node or its process is gone) is given to another node. So attempts
are counted, and a cell that runs a node out of memory is not tried on all of them.

Program, texts and frameworks travel with the job (`py_modules`), so that nodes measure exactly what is here. Each node
makes the environments in its own cache and proves the cells on its own processor. What dlrosetta itself depends on must
be installed on the nodes as Ray must: an image has both.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dlrosetta import client, compare, console, grid, paths
from dlrosetta.errors import RosettaError, UsageError, did_you_mean
from dlrosetta.grid import Cell, Grant, Queue, Results, Terms, program_hash
from dlrosetta.journal import Journal

ATTEMPTS = 3  # of a cell whose nodes die under it
LOOK_EVERY = 2.0  # seconds between looks at which nodes are there: of a thousand, a look may take half a second
SUSPECT_S = 30.0  # seconds that a node gets nothing after a cell was lost on it: it may be dead, not yet known to be
NODES_WAIT = 60.0  # seconds without any node that could take a cell that waits, until it is given up
INSTALL = "pip install 'dlrosetta[ray]', here and on the nodes; or --on local"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: its name there, and what it offers."""

    name: str
    cpus: float
    gpus: float
    memory: int

    @property
    def devices(self) -> tuple[str, ...]:
        return ("cpu", "cuda") if self.gpus >= 1 else ("cpu",)

    def grant(self) -> Grant:
        return Grant(max(1, int(self.cpus)), min(client.MEMORY, self.memory // 2))


def load() -> Any:
    """Import Ray. Raises RosettaError with the command that installs it."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # under `uv run`, nodes would be sent this project
    try:
        import ray
    except ImportError as error:
        raise RosettaError(f"Expected Ray, for --on ray. Received: {error}.", INSTALL) from error
    return ray


def check(address: str) -> str:
    """What `ray.init` calls the cluster that `--on` names. Raises UsageError."""
    if address == "ray":
        return "auto"
    if address.startswith("ray://"):
        _port(address)
        return address
    near = did_you_mean(address, ("local", "ray"))
    raise UsageError(f"Expected --on local, ray, or ray://HOST:PORT. Received: {address!r}.{near}", "--on ray")


def _port(address: str) -> tuple[str, int]:
    """HOST and PORT of ray://HOST:PORT. Raises UsageError."""
    found = urlsplit(address)
    try:
        if found.hostname and found.port:
            return found.hostname, found.port
    except ValueError:  # no number
        pass
    raise UsageError(f"Expected --on ray://HOST:PORT. Received: {address!r}.", "--on ray://HOST:10001")


def ship(folder: Path, stone: tuple[str, ...], frameworks_dir: tuple[str, ...]) -> Path:
    """Copy the program with all texts and frameworks below `folder`, as a wheel carries them; return the package."""
    package = folder / paths.PACKAGE.name
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", "_shipped", ".*")
    shutil.copytree(paths.PACKAGE, package, ignore=unwanted)
    for name, parents in (("stone", paths.stone_dirs(stone)), ("frameworks", paths.frameworks_dirs(frameworks_dir))):
        for parent in parents:
            for one in sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")):
                target = package / "_shipped" / name / one.name
                if any((one / file).is_file() for file in ("text.toml", "framework.toml")):  # it replaces ours
                    shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(one, target, ignore=unwanted, dirs_exist_ok=True)
    return package


def run(
    cells: Iterable[Cell],
    terms: Terms,
    address: str,
    stone: tuple[str, ...] = (),
    frameworks_dir: tuple[str, ...] = (),
    say: Say = lambda line: None,
    results: Results | None = None,
) -> tuple[Results, list[dict[str, Any]]]:
    """Measure the cells on the cluster but those that `results` has; return it, with what came home, and `grid.lost` of
    what did not.
    """
    ray, wanted = load(), list(cells)
    results = Results() if results is None else results
    queue = Queue(cell for cell in wanted if cell not in results.home)
    if results.home:
        say(f"{len(results.home)} of {len(wanted)} came home before")
    if not queue:
        return results, []
    with tempfile.TemporaryDirectory() as folder:
        module = ship(Path(folder), stone, frameworks_dir)
        # What is shipped is all that there is; ours must not be found a second time by a node's own settings.
        runtime = {"py_modules": [str(module)], "env_vars": {"ROSETTA_STONE": "", "ROSETTA_FRAMEWORKS": ""}}
        _connect(ray, address, runtime)
        try:
            return _drive(ray, queue, terms, say, results)
        finally:
            ray.shutdown()


def _connect(ray: Any, address: str, runtime: dict[str, Any]) -> None:
    name = check(address)
    try:
        if name.startswith("ray://"):  # Ray itself would knock for half a minute
            socket.create_connection(_port(name), timeout=10).close()
        ray.init(name, runtime_env=runtime, log_to_driver=False, logging_level="ERROR")
    except (RuntimeError, OSError, ValueError) as error:  # a connection's errors are of the system's kind
        said = _said(getattr(error, "strerror", None) or error)
        raise RosettaError(
            f"Expected a Ray cluster for --on {address}. Received: {said}.",
            "start one (ray start --head), or name another with --on ray://HOST:PORT, or RAY_ADDRESS for --on ray",
        ) from error


def _said(error: object) -> str:
    """What it comes to: of a cluster's own traceback, the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    return client.one_line(f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") else lines[0]).rstrip(".")


def _nodes(ray: Any) -> dict[str, Node]:
    """The nodes that live and offer a CPU, by name."""
    found = {}
    for one in ray.nodes():
        has = one["Resources"]
        if one["Alive"] and has.get("CPU", 0) > 0:
            name = one["NodeID"]
            found[name] = Node(name, has["CPU"], has.get("GPU", 0), int(has.get("memory", 0)))
    return found


def _drive(ray: Any, queue: Queue, terms: Terms, say: Say, results: Results) -> tuple[Results, list[dict[str, Any]]]:
    remote, total, program = ray.remote(grid.measure), len(queue) + len(results.home), program_hash()
    running: dict[Any, tuple[str, Cell, int]] = {}
    lost: list[dict[str, Any]] = []
    suspect: dict[str, float] = {}
    nodes: dict[str, Node] = {}
    idle = time.monotonic()
    looked = idle - LOOK_EVERY
    while len(queue) or running:
        busy = {node for node, _, _ in running.values()}
        busy |= {node for node, since in suspect.items() if time.monotonic() - since < SUSPECT_S}
        if time.monotonic() - looked >= LOOK_EVERY:
            nodes, looked = _nodes(ray), time.monotonic()
        for node in nodes.values():
            next_one = queue.take(node.name, node.devices) if node.name not in busy else None
            if next_one:
                cell, attempt = next_one
                answer = _alone(ray, remote, node, cell).remote(cell, terms, node.grant(), program)
                running[answer] = (node.name, cell, attempt)
        if running:
            idle = time.monotonic()
        elif time.monotonic() - idle > NODES_WAIT:
            break
        else:
            time.sleep(LOOK_EVERY)
            continue
        done, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_EVERY)
        for answer in done:
            node_name, cell, attempt = running.pop(answer)
            try:
                document = json.loads(ray.get(answer))
            except ray.exceptions.RayError as error:
                number, what = results.number(node_name), _what(ray, error)
                if _nodes_fault(ray, error):
                    suspect[node_name] = time.monotonic()
                if _nodes_fault(ray, error) and attempt < ATTEMPTS:
                    say(f"{cell}: lost with node {number} ({what}); once more, attempt {attempt + 1}")
                    queue.put(cell, attempt + 1)
                else:
                    lost.append(grid.lost(cell, attempt, what))
                    say(f"{cell}: failed: {what} ({_count(results, lost)} of {total})")
                continue
            home = results.add(cell, node_name, attempt, document)
            told = f"{_count(results, lost)} of {total}, node {results.number(node_name)}"
            say(f"{cell}: {_told(home, document)} ({told}{f', attempt {attempt}' if attempt > 1 else ''})")
    while (rest := queue.take("", ("cpu", "cuda"))) is not None:
        cell, attempt = rest
        reason = f"no node of the cluster with a {'GPU' if cell.device == 'cuda' else 'CPU'} for {NODES_WAIT:.0f} s"
        lost.append(grid.lost(cell, attempt - 1, reason))
        say(f"{cell}: failed: {reason}")
    return results, lost


def _alone(ray: Any, remote: Any, node: Node, cell: Cell) -> Any:
    """The task on just this node, with all of its CPUs, and the GPU that it may need."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return remote.options(
        name=f"rosetta {cell}",
        num_cpus=node.cpus,
        num_gpus=1 if cell.device == "cuda" else 0,
        memory=node.grant().memory,
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node.name, soft=False),
    )


def _nodes_fault(ray: Any, error: Exception) -> bool:
    """Whether the machine is to blame: not an exception of our own function, nor a cell that took all memory."""
    return not isinstance(error, (ray.exceptions.RayTaskError, ray.exceptions.OutOfMemoryError))


def _what(ray: Any, error: Exception) -> str:
    """An error of Ray's in a line, without the addresses and names that Ray's own words are full of."""
    cause = getattr(error, "cause", None) if isinstance(error, ray.exceptions.RayTaskError) else None
    if isinstance(cause, RosettaError):
        return f"{cause.message} {cause.hint or ''}".strip()
    if isinstance(error, ray.exceptions.RuntimeEnvSetupError):  # the same on each node, and of the user's making
        return f"{type(error).__name__}: {_said(str(error).splitlines()[-1])}"
    return client.one_line(f"{type(cause).__name__}: {cause}") if cause else type(error).__name__


def _count(results: Results, lost: list[dict[str, Any]]) -> int:
    return len(results.home) + len(lost)


def _told(home: dict[str, Any], document: dict[str, Any]) -> str:
    speed = home["items_per_second"]
    figure = f", {console.per_second(speed['median'])} {document['unit']}/s" if speed else ""
    return f"{home['verdict']}{figure}" + (f": {home['reason']}" if home["verdict"] == "failed" else "")


def show(
    address: str,
    text: str,
    names: str | None,
    profile: str,
    budget: float,
    resume: bool,
    axes: dict[str, tuple],
    as_json: bool,
    patience: float,
    stone: tuple[str, ...],
    frameworks_dir: tuple[str, ...],
) -> int:
    """`rosetta compare --on ray`: a line on stderr a cell that comes home, then a table a machine and text. Its journal
    stays until every cell is home and saved.
    """
    from dlrosetta import frameworks, texts

    check(address)
    load()
    known = {one.name: one for one in texts.select(text, texts.find(paths.stone_dirs(stone)))}
    wanted = frameworks.select(names, frameworks.find(frameworks_dir))
    compare.check_batches(known.values(), profile, axes["batches"])
    batches, devices = axes["batches"] or (None,), axes["devices"] or ("cpu",)
    cells = grid.cells(known.values(), wanted, axes["dtypes"], axes["tracks"], batches, devices)
    if not cells:
        raise RosettaError(f"None of the frameworks named has a version of {text}.", "rosetta")

    def say(line: str) -> None:
        console.err().print(line, markup=False, highlight=False, soft_wrap=True)

    terms = Terms(profile, budget, patience)
    journal = Journal(grid.journal_key(cells, terms), resume, say)
    results = Results(journal, grid.proofs(known.values(), wanted, cells))
    results, lost = run(cells, terms, address, stone, frameworks_dir, say, results)
    if as_json:
        console.print_json({"schema": 1, "texts": results.documents, "lost": lost})
    else:
        for document, path in zip(results.documents, results.paths, strict=True):
            console.show_comparison(known[document["text"]], document, path)
            console.out().print()
    if results.unsaved:
        raise results.unsaved
    if lost:
        say(f"Next: the same command with --resume, which measures the {len(lost)} that did not come home")
    else:
        results.done()
    return 0 if results.good() and not lost else 1
