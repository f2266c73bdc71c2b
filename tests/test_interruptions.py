"""Ctrl-C and SIGTERM at any moment leave no process, no half environment and no half file, and end with 130 or 143.

The moments are exact: an audit hook in the program's own process (the interpreter's events: files opened and renamed,
processes started, modules imported) sends the signal; or a version says that it has begun, and then waits.
"""

import json
import os
import re
import shutil
import signal
import socket
import sys
import time

import planted
import psutil
import pytest
from planted import STEP, TEXT

# Runs `rosetta` and sends itself a signal at the moment of the nth event that matches.
AT = """
import os, re, signal, sys

number, event, pattern, count = int(sys.argv[1]), sys.argv[2], re.compile(sys.argv[3]), int(sys.argv[4])
left = [count]

def hook(name, arguments):
    if name == event and pattern.search(" ".join(map(repr, arguments))):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)

sys.addaudithook(hook)
sys.argv[:] = ["rosetta", *sys.argv[5:]]
from dlrosetta.cli import main
try:
    main()
finally:
    if left[0] > 0:
        print("never came", event, pattern.pattern, file=sys.stderr)
"""
INT, TERM = signal.SIGINT, signal.SIGTERM
STATUS = {INT: 130, TERM: 143}


def at(place, number, event, pattern, *arguments, count=1, **environ):
    """Run `rosetta` with the arguments, and send it the signal at that moment; check how it ended, and what it left."""
    command = (sys.executable, "-c", AT, int(number), event, pattern, count)
    done = place.call(*arguments, command=command, timeout=60, **environ)
    assert "never came" not in done.stderr, done.stderr
    ended_well(place, number, done.returncode, done.stdout, done.stderr)


def ended_well(place, number, status, stdout, stderr):
    assert status == STATUS[number], (status, stdout, stderr)
    assert "Traceback" not in stderr
    assert (stderr.splitlines()[-1:] == ["Interrupted."]) == (number == INT)
    assert stdout == ""
    assert planted.processes_of(place) == []
    assert place.left_over() == []


def begun(place, *arguments, **environ):
    """Start `rosetta`, and wait until the version says that it has begun."""
    process = place.start(*arguments, **environ)
    deadline = time.monotonic() + 40
    while not (place.folder / "begun").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def waiting(place, when="True"):
    """An edit: the train step says that it has begun, and never ends."""
    begin = f"open({str(place.folder / 'begun')!r}, 'w').close(); time.sleep(600)"
    return (STEP, f"    import os, time\n    if {when}: {begin}\n{STEP}")


def verdicts(place):
    return [json.loads(path.read_text())["cell"]["verdict"] for path in (place.cache / "proofs").glob("*.json")]


# -- prove -------------------------------------------------------------------------------------------------------------

PROVE = ("prove", TEXT, "--frameworks", "one,two", "--dtype", "float32")


@pytest.mark.parametrize(
    ("number", "event", "pattern", "count"),
    [
        (INT, "import", r"^'scipy", 1),
        (TERM, "import", r"^'dlrosetta\.proof\.run'", 1),
        (INT, "os.mkdir", r"scratch", 1),
        (INT, "subprocess.Popen", r"worker", 1),
        (TERM, "subprocess.Popen", r"worker", 2),
        (TERM, "os.remove", r"out\.safetensors", 3),
        (TERM, "os.rename", r"proofs", 1),
        (INT, "shutil.rmtree", r"scratch", 1),
    ],
)
def test_a_proof(place, number, event, pattern, count):
    started = event in ("os.mkdir", "subprocess.Popen")
    for slug in ("one", "two"):  # a worker that is started all the same would not end by itself
        place.plant(slug, *([waiting(place)] if started else []))
    at(place, number, event, pattern, *PROVE, count=count)
    assert set(verdicts(place)) <= {"proven"}


# A pool's thread is at work before `submit` has returned: who is interrupted in it never gets the future, while the
# thread is about to start a worker that nobody knows of yet.
LOST = """
import subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
submit, start = ThreadPoolExecutor.submit, subprocess.Popen.__init__

def interrupted(self, *arguments):
    submit(self, *arguments)
    time.sleep(0.2)
    raise SystemExit(143)

def slow(self, *arguments, **more):
    time.sleep(1)
    start(self, *arguments, **more)

ThreadPoolExecutor.submit, subprocess.Popen.__init__ = interrupted, slow
sys.argv[:] = ["rosetta", *sys.argv[1:]]
from dlrosetta.cli import main
main()
"""


def test_a_proof_in_the_midst_of_handing_out_work(place):
    for slug in ("one", "two"):
        place.plant(slug, waiting(place))
    done = place.call(*PROVE, command=(sys.executable, "-c", LOST), timeout=60)
    ended_well(place, TERM, done.returncode, done.stdout, done.stderr)
    assert verdicts(place) == []


@pytest.mark.parametrize(("number", "whom"), [(INT, "group"), (INT, "program"), (TERM, "program")])
def test_a_proof_in_the_midst_of_a_computation(place, number, whom):
    place.plant("one", waiting(place))
    place.plant("two")
    process = begun(place, *PROVE, "--json")
    (os.killpg if whom == "group" else os.kill)(process.pid, number)
    stdout, stderr = process.communicate(timeout=20)
    ended_well(place, number, process.returncode, stdout, stderr)
    assert set(verdicts(place)) <= {"proven"}


def test_an_interruption_is_not_remembered_as_a_failure(place):
    """A cell that was proven before stays proven."""
    place.plant("one", waiting(place, f"os.path.exists({str(place.folder / 'on')!r})"))
    assert place.prove("one")[1]["one"]["verdict"] == "proven"
    assert verdicts(place) == ["proven"]
    (place.folder / "on").touch()
    process = begun(place, *PROVE[:3], "one", *PROVE[4:])
    process.send_signal(INT)
    process.communicate(timeout=20)
    assert verdicts(place) == ["proven"]


def test_pressing_ctrl_c_again_and_again(place):
    for slug in ("one", "two"):
        place.plant(slug, waiting(place))
    process = begun(place, *PROVE)
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(INT)
        time.sleep(0.005)
    if process.poll() is None:
        process.kill()
    process.communicate()
    assert process.returncode in (130, -INT)
    gone(place)


def gone(place):
    deadline = time.monotonic() + 5
    while planted.processes_of(place) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert planted.processes_of(place) == []


# -- compare -----------------------------------------------------------------------------------------------------------

COMPARE = ("compare", TEXT, "--frameworks", "one,two", "--budget", "1", "--json")


SLOW = (STEP, f"    import time; time.sleep(0.05)\n{STEP}")  # so that few steps fill a round


@pytest.fixture(scope="module")
def proofs(tmp_path_factory, template):
    """What is remembered of two versions once they are proven. It holds wherever they lie."""
    place = planted.Place(tmp_path_factory.mktemp("proofs"), template)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROSETTA_CACHE", str(place.cache))
        for slug in ("one", "two"):
            place.plant(slug, SLOW)
    assert {cell["verdict"] for cell in place.prove("one", "two")[1].values()} == {"proven"}
    return place.cache / "proofs"


@pytest.mark.parametrize(
    ("number", "event", "pattern", "count"),
    [
        (INT, "tempfile.mkdtemp", r"scratch", 2),
        (TERM, "subprocess.Popen", r"worker", 2),
        (INT, "shutil.rmtree", r"scratch", 1),
    ],
)
def test_a_comparison(place, proofs, number, event, pattern, count):
    for slug in ("one", "two"):
        place.plant(slug, SLOW)
    shutil.copytree(proofs, place.cache / "proofs")
    at(place, number, event, pattern, *COMPARE, count=count)
    left = [path.relative_to(place.results) for path in place.results.rglob("*") if path.is_file()]
    assert all(str(path.parent) == "unfinished" and path.suffix == ".jsonl" for path in left)  # for --resume
    assert len(left) <= 1
    assert verdicts(place) == ["proven", "proven"]


@pytest.mark.parametrize(("number", "whom"), [(INT, "group"), (TERM, "program"), (signal.SIGKILL, "program")])
def test_a_comparison_that_proves_first(place, number, whom):
    """In a process of its own, which ends with the comparison, however that ends; and so does its worker."""
    place.plant("one", waiting(place))
    place.plant("two")
    process = begun(place, *COMPARE)
    (os.killpg if whom == "group" else os.kill)(process.pid, number)
    stdout, stderr = process.communicate(timeout=20)
    if number == signal.SIGKILL:
        gone(place)
    else:
        ended_well(place, number, process.returncode, stdout, stderr)
    assert verdicts(place) == []


def test_a_proof_that_dies_costs_a_comparison_one_cell(place):
    place.plant("one", waiting(place))
    place.plant("two")
    process = begun(place, *COMPARE)
    (proof,) = psutil.Process(process.pid).children()
    proof.kill()
    stdout, _ = process.communicate(timeout=60)
    one, two = json.loads(stdout)["cells"]
    assert (one["verdict"], one["reason"]) == ("failed", "could not be proven: its process ended with status -9")
    assert two["verdict"] == "proven" and two["items_per_second"]
    gone(place)


@pytest.mark.parametrize("event", ["open", "os.rename", "os.remove"])
def test_a_result_file(place, event):
    found = {"date": "2026-01-31", "text": "mine", "profile": "quick", "track": "default", "dtype": "float32"}
    save = f"import dlrosetta.compare as c; c.save({found})"
    command = (sys.executable, "-c", AT.replace("from dlrosetta.cli import main", f"def main():\n    {save}"))
    done = place.call(int(INT), event, r"mine-quick.*\.tmp'", 1, command=command)
    assert done.returncode == -INT, done.stderr
    assert "never came" not in done.stderr
    assert place.left_over() == []
    assert all(json.loads(path.read_text())["text"] == "mine" for path in place.results.glob("*.json"))


@pytest.mark.parametrize("number", [INT, TERM])
def test_a_comparison_in_the_midst_of_a_round(place, number):
    """The proof takes 24 steps on a model at most; the step that waits is one of the comparison's."""
    place.plant("one", waiting(place, "model.__dict__.setdefault('steps', []).append(1) or len(model.steps) > 30"))
    place.plant("two")
    process = begun(place, *COMPARE)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=20)
    ended_well(place, number, process.returncode, stdout, stderr)


# -- run ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "event", "pattern"), [(TERM, "subprocess.Popen", r"run\.py"), (INT, "import", r"^'psutil'")]
)
def test_a_run_that_has_hardly_begun(place, number, event, pattern):
    place.plant("one", ("# %% Data", "print('begun', flush=True)\nimport time\ntime.sleep(600)\n\n\n# %% Data"))
    if event == "import":  # is part of ending what runs
        process = place.start("run", TEXT, "one")
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
        ended_well(place, number, process.returncode, stdout, stderr)
    else:
        at(place, number, event, pattern, "run", TEXT, "one")


# -- golden ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "event", "pattern"),
    [
        (INT, "import", r"^'autograd"),
        (TERM, "open", r"\.golden\.npz\.\d+\.tmp"),
        (INT, "os.rename", r"golden\.npz"),
        (TERM, "os.remove", r"\.golden\.npz"),
    ],
)
def test_a_golden(place, number, event, pattern):
    file = place.stone / TEXT / "golden.npz"
    before = file.read_bytes()
    if event != "os.remove":  # by then the new one is there
        at(place, number, event, pattern, "golden", TEXT)
        assert file.read_bytes() == before
    else:
        at(place, number, event, pattern, "golden", TEXT)


# -- env create --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "event", "pattern"),
    [
        (INT, "os.mkdir", r"environments"),
        (TERM, "subprocess.Popen", r"'venv'"),
        (INT, "subprocess.Popen", r"'install'"),
        (TERM, "os.rename", r"environments"),
        (INT, "open", r"\.lock'"),
    ],
)
def test_an_environment(place, number, event, pattern):
    place.plant_real("one")
    at(place, number, event, pattern, "env", "create", "one", **place.closed())
    made = list((place.cache / "environments").glob("[!.]*"))
    assert made == []
    done = place.call("env", "create", "one", **place.closed())
    assert (done.returncode, done.stdout.startswith("one: ready, ")) == (0, True)


@pytest.mark.parametrize("number", [INT, TERM])
def test_a_lock(place, number):
    place.plant_real("one")
    folder = place.frameworks / "one"
    (folder / "requirements.in").write_text("borrowed\n", encoding="utf-8")
    before = (folder / "requirements.lock").read_bytes()
    at(place, number, "os.rename", r"requirements\.lock", "env", "lock", "one", **place.closed())
    assert (folder / "requirements.lock").read_bytes() == before


@pytest.mark.parametrize(
    ("command", "number"),
    [(("env", "create", "one"), INT), ((*PROVE[:3], "one"), TERM), (("compare", *PROVE[1:3], "one"), INT)],
    ids=["env", "prove", "compare"],
)
def test_an_environment_whose_download_hangs(place, command, number):
    place.plant_real("one")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes calls and never answers
        links = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        process = place.start(*command, **place.closed(PIP_FIND_LINKS=links))
        silent.settimeout(30)
        call, _ = silent.accept()
        with call:
            assert any("uv" in child.name() for child in psutil.Process(process.pid).children(recursive=True))
            os.killpg(process.pid, number)
            stdout, stderr = process.communicate(timeout=20)
    assert re.match(r"Making 1 environment\(s\) under .*: one \(3 MB\); 3 MB in all\.\n", stderr)
    ended_well(place, number, process.returncode, stdout, stderr)


# -- anywhere ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "count"), [(INT, 1), (TERM, 800), (INT, 1600)])
def test_anywhere_at_all(place, number, count):
    """Whatever the moment is: when it has opened so many files. Before it is set up, it ends as any program does."""
    for slug in ("one", "two"):
        place.plant(slug)
    command = (sys.executable, "-c", AT, int(number), "open", "", count)
    done = place.call(*PROVE, command=command, timeout=60)
    assert done.returncode in (STATUS[number], -number, 0)
    gone(place)
    assert place.left_over() == []
    assert set(verdicts(place)) <= {"proven"}
