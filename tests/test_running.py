"""`rosetta run`: the version's own output, exit status and end, in a planted framework that is this Python."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planted import gone

from dlrosetta import environments, frameworks, machine, paths, texts

ROSETTA = Path(sys.executable).with_name("rosetta")
TOML = f"""
title = "Tiny"
language = "python"
python = "{sys.version_info[0]}.{sys.version_info[1]}"
status = "living"
can = ["train"]
devices = ["cpu"]
dtypes = ["float32"]
homepage = "https://tiny.example"
threads = ["TINY_THREADS"]
release = {{ version = "1.0", date = "2026-01-31" }}
layout = {{ conv = "OIHW", dense = "OI", activations = "channels_first" }}
env = {{ TINY_HOME = "{{environment}}/home" }}
"""
# Writes the process ids of itself, a child, and a child in a session of its own; both shrug off Ctrl-C. Then it waits.
FAMILY = """
import os, signal, subprocess, sys, time
child = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"]
family = [os.getpid(), subprocess.Popen(child).pid, subprocess.Popen(child, start_new_session=True).pid]
time.sleep(0.5)  # until they shrug
print(*family, flush=True)
while True:
    time.sleep(1)
"""


class Place:
    """A text `cnn` whose version in the framework `tiny` is whatever source is given."""

    def __init__(self, folder):
        self.stone, self.frameworks, self.cache = folder / "stone", folder / "frameworks", folder / "cache"
        self.version = self.stone / "cnn" / "cnn_tiny.py"
        self.version.parent.mkdir(parents=True)
        shutil.copy(texts.find(paths.stone_dirs())["cnn"] / "text.toml", self.version.parent)
        (self.frameworks / "tiny").mkdir(parents=True)
        (self.frameworks / "tiny" / "framework.toml").write_text(TOML, encoding="utf-8")
        (self.frameworks / "tiny" / "requirements.lock").write_text("\n", encoding="utf-8")

    def make_environment(self):
        """This very interpreter, under the name of the framework's environment."""
        self.folder = environments.folder(frameworks.load(self.frameworks / "tiny"))
        python = self.folder / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
        python.chmod(0o755)

    def command(self):
        return [ROSETTA, "run", "cnn", "tiny", "--stone", self.stone, "--frameworks-dir", self.frameworks]

    def run(self, source, **environ):
        self.version.write_text(source, encoding="utf-8")
        environ = {**os.environ, **environ}
        return subprocess.run(self.command(), capture_output=True, text=True, env=environ, check=False)

    def start(self, source):
        """Start it as a shell starts a foreground job, in a process group of its own."""
        self.version.write_text(source, encoding="utf-8")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command(), text=True, start_new_session=True, **pipes)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ROSETTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROSETTA_DATA", "sample")
    found = Place(tmp_path)
    found.make_environment()
    return found


def test_it_runs_as_its_author_wrote_it(place):
    source = 'import sys\nprint(__name__, __file__, sys.argv)\nprint("loss", file=sys.stderr)\nraise SystemExit\n'
    done = place.run(source)
    assert done.stdout == f"__main__ {place.version} {[str(place.version)]}\n"
    assert done.stderr.endswith("\nloss\n")
    assert done.returncode == 0


def test_it_says_first_which_data_it_will_use(place):
    done = place.run('import sys\nprint("begun", file=sys.stderr)\n')
    assert done.stderr == "Data: handwritten digits, the sample that ships with dlrosetta\nbegun\n"


def test_it_finds_the_data_and_its_own_folder_but_not_the_program(place):
    source = """
import os, sys
import dlrosetta
from dlrosetta import data
(images, labels), _ = data.cifar10()
print(images.shape[1:], len(images) == len(labels))
print(hasattr(dlrosetta, "__version__"))  # the installed package's __init__ was not run
print(sys.path[0] == os.path.dirname(__file__), [entry for entry in sys.path if entry.endswith("worker")])
"""
    assert place.run(source).stdout.splitlines() == ["(3, 32, 32) True", "False", "True []"]


def test_its_environment_is_that_of_a_worker_with_every_core(place):
    done = place.run("import json, os\nprint(json.dumps(dict(os.environ)))", SECRET_TOKEN="x", TERM="vt100")
    environ = json.loads(done.stdout)
    assert environ["TINY_THREADS"] == environ["ROSETTA_THREADS"] == str(machine.threads())
    assert environ["TINY_HOME"] == f"{place.folder}/home"
    assert (environ["ROSETTA_DATA"], environ["TERM"]) == ("sample", "vt100")
    assert not {"SECRET_TOKEN", "PYTHONPATH", "VIRTUAL_ENV"} & set(environ)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys\nsys.exit(7)", "Error: cnn_tiny.py ended with status 7.\n"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "Error: cnn_tiny.py was ended by SIGSEGV.\n"),
        ("def f():\n    1 / 0\nf()", "ZeroDivisionError: division by zero\n"),
        ("def f(:\n", "SyntaxError"),
    ],
)
def test_a_version_that_fails_makes_1(place, source, message):
    done = place.run(source)
    assert done.returncode == 1
    assert message in done.stderr
    assert "runpy" not in done.stderr  # what its author sees is the version alone


def test_a_traceback_names_the_version_s_lines(place):
    done = place.run("def f():\n    1 / 0\nf()\n")
    assert f'File "{place.version}", line 3, in <module>' in done.stderr
    assert f'File "{place.version}", line 2, in f' in done.stderr


def test_nothing_is_written_beside_the_version(place):
    (place.version.parent / "helper.py").write_text("x = 1\n", encoding="utf-8")
    assert place.run("import helper\nprint(helper.x)").stdout == "1\n"
    assert not [path for path in place.version.parent.iterdir() if path.name == "__pycache__"]


def interrupted(process, send):
    """The processes that lived, and how it ended."""
    family = [int(word) for word in process.stdout.readline().split()]
    assert len(family) == 3
    assert not any(map(gone, family))
    send(process.pid)
    _, said = process.communicate(timeout=30)
    deadline = time.monotonic() + 5
    while not all(map(gone, family)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in family if not gone(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left, process.returncode, said


def test_ctrl_c_leaves_no_process_behind(place):
    process = place.start(FAMILY)
    left, status, said = interrupted(process, lambda pid: os.killpg(pid, signal.SIGINT))
    assert (left, status) == ([], 130)
    assert said.endswith("Interrupted.\n")
    assert "Traceback" not in said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_program_alone_ends_all_too(place, number, status):
    process = place.start(FAMILY)
    left, ended, said = interrupted(process, lambda pid: os.kill(pid, number))
    assert (left, ended) == ([], status)
    assert "Traceback" not in said


def test_a_version_that_shrugs_is_ended_all_the_same(place):
    source = FAMILY.replace(
        "import os,", "import os, time, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nimport os,", 1
    )
    source = source.replace("family = [", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nfamily = [", 1)
    process = place.start(source)
    left, status, _ = interrupted(process, lambda pid: os.killpg(pid, signal.SIGINT))
    assert (left, status) == ([], 130)


def test_an_environment_that_is_broken_is_an_error_with_a_way_out(place):
    (place.folder / "bin" / "python").write_text("#!/no/such/shell\n", encoding="utf-8")
    done = place.run("")
    assert done.returncode == 1
    assert "cnn_tiny.py could not be run" in done.stderr
    assert "Next: rosetta env" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_of_its_own_gets_the_version_as_its_last_argument(place):
    toml = place.frameworks / "tiny" / "framework.toml"
    command = 'command = ["/bin/sh", "{folder}/start.sh", "{data}"]\n'
    toml.write_text(command + toml.read_text(encoding="utf-8"), encoding="utf-8")
    (toml.parent / "start.sh").write_text('echo "$@" "${ROSETTA_READ-alone}" "$TINY_HOME"; exit 4\n', encoding="utf-8")
    done = place.run("no Python")
    assert done.stdout == f"{paths.PACKAGE / 'data'} {place.version} alone {place.folder}/home\n"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "Error: cnn_tiny.py ended with status 4.")


def test_a_framework_that_python_does_not_run(place):
    toml = place.frameworks / "tiny" / "framework.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace("python = ", "# "), encoding="utf-8")
    done = place.run("")
    assert done.returncode == 1
    assert "Expected a framework that Python runs. Received: tiny" in done.stderr
