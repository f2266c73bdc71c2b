"""`rosetta compare --on ray` on a real cluster: a head that measures nothing and two nodes, one of which is killed.

All of it runs on this machine, on loopback. A node has a cache of its own, as a machine has; frameworks are numpy's, so
that a cell takes a second or two.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jsonschema
import planted
import pytest
from planted import STEP, TEXT

from dlrosetta import on_ray

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "schema" / "compare.schema.json"
NODES = Path(__file__).with_name("ray_nodes.py")
# A cluster's client server that is started below `uv run`, as CI's tests are, would hand on what `uv run` runs in. And
# as where Ray makes no clusters of machines, this one's address is that of loopback.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def free_port():
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Cluster:
    """Two nodes and the head of `ray_nodes.py`."""

    def __init__(self, place):
        self.place, self.temp = place, tempfile.mkdtemp(prefix="ray")  # short: a socket's path has a hundred letters
        port = free_port()
        self.client = f"ray://127.0.0.1:{port}"
        self.log = (place.folder / "ray.log").open("wb")
        # What is shipped must do.
        own = {"ROSETTA_STONE": None, "ROSETTA_FRAMEWORKS": None, "RAY_TMPDIR": self.temp}
        own["RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S"] = "200"  # beside other tests, 30 s have been too few
        self.process = subprocess.Popen(
            [sys.executable, NODES, str(port)], env=place.environ(**place.closed(**own, **QUIET)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )  # fmt: skip
        self.address = self.answer()
        for number in (0, 1):
            assert self.ask(f"join {self.cache(number)}") == "joined"

    def cache(self, number):
        return self.place.folder / f"node{number}"

    def environ(self):
        """What finds it by `--on ray`."""
        return {**self.place.closed(), **QUIET, "RAY_ADDRESS": self.address}

    def answer(self):
        line = self.process.stdout.readline().strip()
        assert line, Path(self.log.name).read_text()
        return line

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        return self.answer()

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0
        self.process.stdout.close()
        self.log.close()
        shutil.rmtree(self.temp)


COUNT = (
    "    model.count = getattr(model, 'count', 0) + 1\n    if model.count == 60:\n        "  # a proof takes 24 at most
)


def timed(place, slug, code="pass"):
    """An edit: whoever is timed writes down where, and then runs `code`, which may ask `again`."""
    log = place.folder / f"attempts-{slug}"
    note = f"log = {str(log)!r}; again = os.path.exists(log); print(os.getcwd(), file=open(log, 'a')); {code}"
    return (STEP, f"    import os, time\n{COUNT}{note}\n{STEP}")


def attempts(place, slug):
    """The number of the node of each attempt at a cell."""
    log = place.folder / f"attempts-{slug}"
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split("/node")[1][0]) for line in lines]


def wait_for(what, seconds=300):  # beside other tests on two cores, a cell takes ten times as long
    for _ in range(seconds * 10):
        if what():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, template):
    place = planted.Place(tmp_path_factory.mktemp("ray"), template)
    for slug, code in {
        "crashes": "os._exit(9)",
        "early": "pass",
        "late": "pass",
        "other": "pass",
        "stuck": "time.sleep(0 if again else 100)",  # until its node is killed
    }.items():
        place.plant_real(slug, timed(place, slug, code))
    found = Cluster(place)
    yield found
    found.close()


@pytest.fixture(scope="module")
def killed(cluster):
    """A grid whose driver is killed once a cell has come home, and what it left; then the same with --resume."""
    place, environ = cluster.place, cluster.environ()
    command = ("compare", TEXT, "--frameworks", "early,late", "--budget", "1", "--on", "ray")
    driver = place.start(*command, **environ)
    line = driver.stderr.readline()
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    journal, home = journal_of_the_grid(place)
    kept = results(place)
    resumed = place.call(*command, "--resume", timeout=300, **environ)
    tried = {slug: len(attempts(place, slug)) for slug in ("early", "late")}
    for path in place.folder.glob("attempts-*"):
        path.unlink()
    return line, home, kept, resumed, tried, results(place), journal


def journal_of_the_grid(place):
    """Its path, and the frameworks that had come home. A cell under way on a node keeps one of its own."""
    for path in (place.results / "unfinished").glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if lines and all("home" in line for line in lines):
            return path, [line["home"]["framework"] for line in lines]
    raise AssertionError("no journal of a grid")


def results(place):
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in place.results.glob("*.json")}


@pytest.fixture(scope="module")
def done(cluster, killed):
    """A grid of all of them, and the node of `stuck` killed on the way."""
    place = cluster.place
    frameworks = ("--frameworks", "crashes,early,late,other,stuck")
    options = ("--budget", "1", "--batch", "32", "--json", "--on", cluster.client)
    driver = place.start("compare", TEXT, *frameworks, *options, **cluster.environ())
    wait_for(lambda: attempts(place, "stuck") or driver.poll() is not None)
    if driver.poll() is not None:
        pytest.fail("\n".join(driver.communicate()))  # all of it
    (node,) = attempts(place, "stuck")
    assert cluster.ask(f"kill {node}") == "killed"
    stdout, stderr = driver.communicate(timeout=300)
    return place, node, driver.returncode, json.loads(stdout or "{}"), stderr


def homes(document):
    return {cell["framework"]: (cell, text) for text in document["texts"] for cell in text["cells"]}


def test_all_cells_come_home(done):
    _, _, _, document, stderr = done
    assert document["lost"] == []
    assert {slug: cell["verdict"] for slug, (cell, _) in homes(document).items()} == {
        "crashes": "failed", "early": "proven", "late": "proven", "other": "proven", "stuck": "proven",
    }, stderr  # fmt: skip
    assert "(5 of 5, node " in stderr.splitlines()[-1]


def test_a_killed_node_costs_its_cell_one_retry_and_the_others_nothing(done):
    place, node, _, document, stderr = done
    assert attempts(place, "stuck") == [node, 1 - node]
    for slug in ("crashes", "early", "late", "other"):
        assert len(attempts(place, slug)) == 1, slug
    tried = {slug: cell["grid"]["attempt"] for slug, (cell, _) in homes(document).items()}
    assert tried == {"crashes": 1, "early": 1, "late": 1, "other": 1, "stuck": 2}
    (line,) = [line for line in stderr.splitlines() if "once more" in line]
    assert line.startswith(f"{TEXT} stuck float32 cpu batch 32: lost with node ") and line.endswith("attempt 2")


def test_a_framework_that_fails_is_reported_and_not_tried_again(done):
    place, _, status, document, stderr = done
    cell, _ = homes(document)["crashes"]
    assert status == 1 and cell["grid"]["attempt"] == 1 and len(attempts(place, "crashes")) == 1
    assert cell["reason"].startswith("exited with status 9 in the middle of a request")
    assert f"{TEXT} crashes float32 cpu batch 32: failed: exited with status 9" in stderr


def test_what_comes_home_says_that_nothing_was_side_by_side(done):
    place, _, _, document, _ = done
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    validator.validate(document)
    saved = [json.loads(path.read_text(encoding="utf-8")) for path in place.results.glob("*-batch32-*")]
    for text in document["texts"]:
        assert text in saved  # on one machine a text has one document
        assert (text["pairs"], text["grid"]["measured"], text["batch"]) == ([], "alone", 32)
    nodes = [text["grid"]["node"] for text in document["texts"]]
    assert sorted(nodes) == sorted(set(nodes)) and set(nodes) <= {1, 2}
    assert cluster_names(place).isdisjoint(json.dumps(document).split('"'))
    for cell, _ in homes(document).values():
        assert cell["batch_size"] in (32, None) and cell["facts"].get("threads", 1) == 1  # what a node offers


def cluster_names(place):
    """What must not be in a result: where it was measured."""
    return {socket.gethostname(), str(place.folder), "127.0.0.1"}


def test_what_has_come_home_stays_when_the_driver_is_killed(killed):
    line, home, kept, *_ = killed
    assert "(1 of 2, node 1)" in line
    cells = [cell for document in kept.values() for cell in document["cells"]]
    assert len(cells) >= 1 and {cell["framework"] for cell in cells} <= set(home)
    assert all(cell["verdict"] == "proven" for cell in cells)


def test_a_killed_driver_s_grid_goes_on_and_repeats_nothing_that_came_home(killed):
    _, home, kept, resumed, tried, found, journal = killed
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.startswith(f"{len(home)} of 2 came home before\n")
    assert [line.split()[1] for line in resumed.stderr.splitlines()[1:]] == sorted({"early", "late"} - set(home))
    assert all(tried[slug] == 1 for slug in home), tried
    cells = [cell for document in found.values() for cell in document["cells"]]
    assert sorted(cell["framework"] for cell in cells) == ["early", "late"]  # each in one document
    for name, document in kept.items():  # which grew on in the same file
        assert all(cell in found[name]["cells"] for cell in document["cells"])
    assert not journal.exists()


def test_a_cluster_that_is_not_there(place):
    place.plant("tiny")
    address = f"127.0.0.1:{free_port()}"
    done = place.call("compare", TEXT, "--frameworks", "tiny", "--on", f"ray://{address}", **QUIET)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Error: Expected a Ray cluster for --on ray://{address}. Received: Connection refused." in done.stderr
    assert "Next: start one (ray start --head), or name another" in done.stderr


def test_of_a_cluster_s_traceback_the_last_line_is_told():
    error = ConnectionAbortedError(
        "Initialization failure from server:\nTraceback:\n  File a\nRuntimeError: no channel.\n"
    )
    assert on_ray._said(error) == "Initialization failure from server: RuntimeError: no channel"


def test_why_what_was_shipped_could_not_be_used_is_told():
    import ray

    error = ray.exceptions.RuntimeEnvSetupError(
        "[Node 7] Traceback:\n  File a\nOSError: Failed to download a package.\n"
    )
    assert on_ray._what(ray, error) == "RuntimeEnvSetupError: OSError: Failed to download a package"


def test_without_ray_it_says_what_to_install(place):
    place.plant("tiny")
    code = "import sys; sys.modules['ray'] = None; sys.argv[0] = 'rosetta'; from dlrosetta.cli import main; main()"
    for on in ("ray", "ray://127.0.0.1:10001"):
        done = place.call("compare", TEXT, "--on", on, command=(sys.executable, "-c", code))
        assert done.returncode == 1
        assert "Error: Expected Ray, for --on ray. Received: " in done.stderr
        assert "Next: pip install 'dlrosetta[ray]', here and on the nodes; or --on local" in done.stderr


def test_words_of_a_wrong_call(place):
    done = place.call("compare", TEXT, "--on", "rey")
    assert done.returncode == 2
    assert "Expected --on local, ray, or ray://HOST:PORT. Received: 'rey'. Did you mean 'ray'?" in done.stderr
    done = place.call("compare", TEXT, "--on", "ray", "--device", "cuda:1")
    assert done.returncode == 2 and "Expected --device cpu or cuda with --on ray" in done.stderr
    done = place.call("compare", TEXT, "--batch", "8", "--profile", "full")
    assert done.returncode == 2 and "Expected --batch with --profile quick" in done.stderr
