"""No network, a full disk, a cache that cannot be written, what is missing or broken, two programs at once.

Each is one clear line and the next thing to do; the cells that it does not concern are proven all the same.
"""

import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import planted
import pytest
from planted import ROSETTA, TEXT

PROVE = ("prove", TEXT, "--dtype", "float32", "--frameworks")
# Runs `rosetta` with files no longer than so many bytes: what a full disk looks like where none can be made.
LIMITED = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); {main}"
LIMITED = LIMITED.format(main="sys.argv[:] = sys.argv[1:]; from dlrosetta.cli import main; main()")


def limited(size):
    return (sys.executable, "-c", LIMITED, size)


@pytest.fixture
def disk(tmp_path):
    """Makes a file system of so many bytes. That is root's right, as a container's user and CI's have it; who has not,
    and is told so, still sees what `limited` shows of a full disk.
    """
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(size):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
        return folder

    yield make
    subprocess.run(["umount", folder], capture_output=True, check=False)


def one_line(done, message, hint):
    """Check that a command failed with one clear line and the next thing to do."""
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert re.fullmatch(f"Error: {message}", lines[0]), lines[0]
    assert re.fullmatch(f"Next: {hint}", lines[1]), lines[1]


# -- a full disk -------------------------------------------------------------------------------------------------------

ROOM = r"Set ROSETTA_CACHE to a folder with room that you may write to"


def test_a_proof_on_a_full_disk(place):
    (place.plant("tiny") / "bytecode").unlink()  # which the limit is to spare
    done = place.call(*PROVE, "tiny", "--json", command=limited(100_000))
    (cell,) = json.loads(done.stdout)["cells"]
    assert (done.returncode, done.stderr, cell["verdict"]) == (1, "", "failed")
    assert re.fullmatch(rf"{place.cache}/scratch/worker-\w+ cannot be written: File too large\. {ROOM}", cell["reason"])
    assert place.left_over() == []


@pytest.mark.parametrize(("size", "who"), [(200_000, "program"), (600_000, "worker")])
def test_a_proof_on_a_disk_that_fills_up(place, disk, size, who):
    """At first the program's own file does not fit; then that does, and what the worker writes does not."""
    environment = place.plant("tiny")
    cache = disk(size)
    (cache / "environments").symlink_to(environment.parent)
    done = place.call(*PROVE, "tiny", "--json", ROSETTA_CACHE=cache)
    (cell,) = json.loads(done.stdout)["cells"]
    assert (done.returncode, done.stderr, cell["verdict"]) == (1, "", "failed")
    writer = rf"{cache}/scratch/worker-\w+ cannot be written: " if who == "program" else r"OSError: \[Errno 28\] "
    assert re.fullmatch(rf"{writer}No space left on device\. {ROOM}", cell["reason"])
    assert list((cache / "scratch").iterdir()) == []


def test_a_golden_on_a_full_disk(place):
    file = place.stone / TEXT / "golden.npz"
    before = file.read_bytes()
    done = place.call("golden", TEXT, command=limited(1000))
    one_line(done, rf"{file}: the golden could not be written: File too large\.", "copy the text's folder .+ --stone")
    assert file.read_bytes() == before and place.left_over() == []


def test_a_result_on_a_full_disk(place, disk):
    """The text has no version in the framework: the document is short, and shown all the same."""
    place.plant("tiny")
    place.version("tiny").unlink()
    results = disk(4096)
    (results / "ballast").write_bytes(b"x" * 4096)
    done = place.call("compare", TEXT, "--frameworks", "tiny", "--json", ROSETTA_RESULTS=results)
    assert json.loads(done.stdout)["cells"][0]["verdict"] == "cannot"
    message = rf"{results}/{TEXT}-quick-.*\.json: the result could not be written: No space left on device"
    one_line(done, message, "set ROSETTA_RESULTS to a folder with room")
    assert [path.name for path in results.iterdir()] == ["ballast"]


@pytest.mark.parametrize("command", [("env", "list"), ("env", "list", "--json"), (), ("read", TEXT, "tiny")])
def test_output_that_does_not_fit(place, command):
    place.plant("tiny")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [ROSETTA, *command], stdout=full, stderr=subprocess.PIPE, text=True, env=place.environ(), check=False
        )
    one_line(done, r"the output cannot be used: No space left on device\.", "free some room, .+")


def test_a_reader_that_has_seen_enough(place):
    process = place.start("env", "list", "--json")
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


# -- a cache that cannot be written ------------------------------------------------------------------------------------


def test_a_proof_without_a_place_for_scratch_files(place):
    place.plant("tiny")
    (place.cache / "scratch").touch()
    done, cells = place.prove("tiny")
    assert (done.returncode, done.stderr, cells["tiny"]["verdict"]) == (1, "", "failed")
    assert cells["tiny"]["reason"] == f"{place.cache}/scratch cannot be written: File exists. {ROOM}"


def test_a_proof_that_cannot_be_remembered_is_a_proof(place):
    place.plant("tiny")
    (place.cache / "proofs").touch()
    done, cells = place.prove("tiny")
    assert (done.returncode, done.stderr, cells["tiny"]["verdict"]) == (0, "", "proven")


def test_a_cache_that_is_no_folder(place):
    place.plant_real("tiny")
    (place.folder / "file").touch()
    environ = place.closed(ROSETTA_CACHE=place.folder / "file")
    done, cells = place.prove("tiny", **environ)
    assert done.returncode == 1
    expected = f"Could not write tiny's environment: {place.folder}/file/environments: Not a directory."
    assert cells["tiny"]["reason"] == f"{expected} Set ROSETTA_CACHE to a folder with room that you may write to."
    done = place.call("env", "create", "tiny", **environ)
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [
        f"tiny: {expected}",
        "  Next: Set ROSETTA_CACHE to a folder with room that you may write to.",
    ]
    assert place.call(**environ).returncode == 0  # the table needs no cache


def test_a_text_that_cannot_be_written(place, disk):
    stone = disk(4_000_000)
    subprocess.run(["cp", "-r", str(place.stone / TEXT), stone / "copy"], check=True)
    subprocess.run(["mount", "-o", "remount,ro", stone], check=True)
    done = place.call("golden", "copy", "--stone", stone)
    one_line(done, r".+/copy/golden\.npz: the golden could not be written: Read-only file system\.", ".+ --stone")


# -- what is missing or broken -----------------------------------------------------------------------------------------


def beside_a_healthy_one(place, broken, **environ):
    """Prove it with a healthy framework beside it; return what stderr and the broken cell say."""
    place.plant("healthy")
    done, cells = place.prove(broken, "healthy", **environ)
    assert done.returncode == 1
    assert cells["healthy"]["verdict"] == "proven"
    assert cells[broken]["verdict"] == "failed"
    assert "\n" not in cells[broken]["reason"]
    return done.stderr, cells[broken]["reason"]


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_no_network_for_an_environment(place):
    place.plant_real("tiny")
    index = f"http://127.0.0.1:{closed_port()}/simple"
    environ = place.closed(PIP_FIND_LINKS=None, PIP_NO_INDEX=None, PIP_INDEX_URL=index)
    stderr, reason = beside_a_healthy_one(place, "tiny", **environ)
    assert reason.startswith(
        "Could not make tiny's environment: the network, or a package index on it, cannot be reached"
    )
    assert "Connect, or name an index or folder of wheels that can be reached: PIP_INDEX_URL, PIP_FIND_LINKS." in reason
    assert stderr.count("\n") == 1 and stderr.startswith("Making 1 environment(s) under ")


def test_no_network_for_a_comparison_is_found_out_once(place):
    for slug in ("one", "two"):
        place.plant_real(slug)
    index = f"http://127.0.0.1:{closed_port()}/simple"
    environ = place.closed(PIP_FIND_LINKS=None, PIP_NO_INDEX=None, PIP_INDEX_URL=index)
    done = place.call("compare", TEXT, "--frameworks", "one,two", "--json", **environ)
    cells = json.loads(done.stdout)["cells"]
    assert [cell["verdict"] for cell in cells] == ["failed", "failed"]
    assert all("cannot be reached" in cell["reason"] and "PIP_INDEX_URL" in cell["reason"] for cell in cells)
    where = re.escape(str(place.cache / "environments"))
    assert re.fullmatch(
        rf"Making 2 environment\(s\) under {where}: one \(3 MB\), two \(3 MB\); 6 MB in all\.\n", done.stderr
    )


def test_no_network_for_data(place):
    """The sample stands in, and the output says so."""
    place.plant("tiny")
    place.version("tiny").write_text("from dlrosetta import data\nprint(data.where('cifar10').kind)\n")
    proxy = {
        "https_proxy": f"http://127.0.0.1:{closed_port()}",
        "no_proxy": None,
        "NO_PROXY": None,
        "HTTPS_PROXY": None,
    }
    done = place.call("run", TEXT, "tiny", ROSETTA_DATA=place.folder / "data", **proxy)
    assert (done.returncode, done.stdout) == (0, "sample\n"), done.stderr
    said = " ".join(done.stderr.split())
    assert "cifar-10-binary.tar.gz" in said
    assert "Using handwritten digits, the sample that ships with dlrosetta." in said
    assert "Traceback" not in said
    assert place.left_over() == []


@pytest.mark.parametrize("command", [("run", TEXT, "tiny"), ("compare", TEXT, "--frameworks", "tiny")])
def test_data_that_is_damaged(place, command):
    place.plant("tiny")
    folder = place.folder / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "data_batch_1.bin").write_bytes(b"x")
    done = place.call(*command, ROSETTA_DATA=folder.parent)
    message = rf"{folder}/data_batch_1\.bin: expected 30730000 bytes\. Received: 1"
    one_line(done, message, f"remove {folder} and fetch it again")


@pytest.mark.parametrize(
    "command", [(*PROVE, "tiny"), ("run", TEXT, "tiny"), ("compare", TEXT, "--frameworks", "tiny")]
)
def test_a_data_set_that_nobody_knows(place, command):
    place.plant("tiny")
    place.edit(place.stone / TEXT / "text.toml", ('data = "cifar10"', 'data = "cifar11"'))
    done = place.call(*command, ROSETTA_DATA=place.folder)
    assert done.returncode == 1
    assert re.match(
        r"Error: [Ee]xpected a data set.*: chestxray, cifar10, imdb.*\. Received: 'cifar11'", done.stderr
    ), done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_interpreter(place):
    python = 'python = "{}.{}"'.format(*sys.version_info[:2])
    place.plant("tiny", toml=[(python, 'python = "3.99"')], environment=False)
    (place.frameworks / "tiny" / "requirements.lock").write_text("\n")
    _, reason = beside_a_healthy_one(place, "tiny", UV_PYTHON_DOWNLOADS="never")
    expected = "Expected Python 3.99. Received: none on the PATH, in pyenv or from uv."
    assert reason == f"{expected} uv python install 3.99"


@pytest.mark.parametrize("needs", ["no-such-compiler", "libnosuch.so.7"])
def test_a_missing_compiler_or_library(place, needs):
    """It is looked for before anything is made or started, and costs its own framework only."""
    line = 'threads = ["OMP_NUM_THREADS"]'
    package = "no-such-package"
    place.plant("well")
    place.plant(
        "lacking", toml=[(line, f'{line}\nneeds = ["sh", "{needs}"]\ndebian = ["{package}"]')], environment=False
    )
    (place.frameworks / "lacking" / "requirements.lock").write_text("\n", encoding="utf-8")
    done, cells = place.prove("well", "lacking")
    assert done.returncode == 1
    assert (cells["well"]["verdict"], cells["lacking"]["verdict"]) == ("proven", "failed")
    assert f"needs sh, {needs}. Not found: {needs}." in cells["lacking"]["reason"]
    assert f"sudo apt-get install {package}" in cells["lacking"]["reason"]
    for command in (["env", "create", "lacking"], ["run", TEXT, "lacking"]):
        done = place.call(*command)
        assert done.returncode == 1
        shown = done.stdout + done.stderr
        assert f"Not found: {needs}." in shown and f"Next: sudo apt-get install {package}" in shown
        assert "Traceback" not in shown
    assert not list((place.cache / "environments").glob("lacking*"))
    assert place.left_over() == []


@pytest.mark.parametrize("needs", ["sh", "libc.so.6"])
def test_a_compiler_or_library_that_is_there(place, needs):
    line = 'threads = ["OMP_NUM_THREADS"]'
    place.plant("well", toml=[(line, f'{line}\nneeds = ["{needs}"]')])
    assert place.prove("well")[1]["well"]["verdict"] == "proven"


def test_a_missing_lock(place):
    place.plant("tiny", environment=False)
    _, reason = beside_a_healthy_one(place, "tiny")
    assert (
        reason == f"Expected {place.frameworks}/tiny/requirements.lock. Received: no such file. rosetta env lock tiny"
    )


def test_an_environment_that_is_broken(place):
    environment = place.plant("tiny")
    (environment / "bin" / "python").write_text("#!/no/such/shell\n")
    _, reason = beside_a_healthy_one(place, "tiny")
    assert reason.startswith("the worker could not run: [Errno 2] No such file or directory: ")
    assert reason.endswith("Next: rosetta env remove tiny, to make it anew")


def test_a_missing_adapter(place):
    place.plant("tiny")
    (place.frameworks / "tiny" / "adapter.py").unlink()
    _, reason = beside_a_healthy_one(place, "tiny")
    assert re.match(r"FileNotFoundError: .+adapter\.py", reason)


def test_a_missing_golden(place):
    place.plant("tiny")
    (place.stone / TEXT / "golden.npz").unlink()
    done = place.call(*PROVE, "tiny")
    one_line(done, rf"Expected a golden at {place.stone}/{TEXT}/golden\.npz\. Received: none", f"rosetta golden {TEXT}")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (f"stone/{TEXT}/text.toml", "title = ", r".+text\.toml: expected readable TOML\. Received: .+"),
        ("frameworks/tiny/framework.toml", "title = ", r".+framework\.toml: expected readable TOML\. Received: .+"),
        (
            "frameworks/tiny/framework.toml",
            "titel = 1",
            r".+framework\.toml: Unknown key 'titel'\. Did you mean 'title'\?.+",
        ),
    ],
)
@pytest.mark.parametrize("command", [(), ("compare", TEXT, "--frameworks", "tiny")])
def test_a_description_that_is_broken(place, file, content, message, command):
    place.plant("tiny")
    (place.folder / file).write_text(content, encoding="utf-8")
    done = place.call(*command)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(f"Error: {message}", done.stderr.strip()), done.stderr


def test_a_limit_that_is_none(place):
    place.plant("tiny")
    done = place.call(*PROVE, "tiny", ROSETTA_MEMORY_GB="lots")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: Expected ROSETTA_MEMORY_GB to be a number of gigabytes. Received: 'lots'.\n"


# -- environments that are made on the way -----------------------------------------------------------------------------


def test_two_programs_at_once_on_an_empty_cache(place):
    """Both work, and the environment is made once."""
    place.plant_real("tiny")
    both = [place.start(*PROVE, "tiny", "--json", **place.closed()) for _ in range(2)]
    for process in both:
        stdout, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr
        assert [cell["verdict"] for cell in json.loads(stdout)["cells"]] == ["proven"]
        assert stderr.startswith("Making 1 environment(s) under ")
    made = [path for path in (place.cache / "environments").iterdir() if not path.name.endswith(".lock")]
    assert len(made) == 1
    assert place.left_over() == []
    assert planted.processes_of(place) == []


def test_a_comparison_says_which_environments_it_makes_and_goes_on(place):
    """Also where nobody watches; and nothing of it gets into the document."""
    place.plant_real("one", ("    loss = loss_fn(model", "    import time; time.sleep(0.05)\n    loss = loss_fn(model"))
    done = place.call("compare", TEXT, "--frameworks", "one", "--budget", "1", "--json", **place.closed())
    (cell,) = json.loads(done.stdout)["cells"]
    assert done.returncode == 0, done.stderr
    assert cell["items_per_second"]["median"] > 0
    where = re.escape(str(place.cache / "environments"))
    assert re.fullmatch(rf"Making 1 environment\(s\) under {where}: one \(3 MB\); 3 MB in all\.\n", done.stderr)


@pytest.mark.parametrize("command", [PROVE, ("compare", TEXT, "--frameworks")], ids=["prove", "compare"])
def test_on_a_terminal_there_is_a_progress_bar(place, command):
    """One bar at a time: while environments are made, no other is drawn over theirs."""
    place.plant_real("tiny", ("def build_model():", "def build_model():\n    raise ValueError"))
    ours, theirs = pty.openpty()
    environ = place.environ(TERM="xterm-256color", **place.closed())
    process = subprocess.Popen([ROSETTA, *command, "tiny"], stderr=theirs, stdout=subprocess.PIPE, env=environ)
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            seen += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    process.communicate(timeout=20)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert process.returncode == 1  # the version is broken
    made, _, after = text.partition("Making 1 environment(s) under ")
    assert made.strip() == ""
    assert "tiny (3 MB); 3 MB in all." in after
    making, then = re.split(r"(?:\S )?(?:proving|\w+: starting)", after, maxsplit=1)
    assert "━" in making and "tiny: " in making  # its bar, and what uv is doing
    assert not set(making) & set("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")  # a spinner of somebody else's
    assert "tiny: " not in then


def test_the_limit_of_these_tests_works(tmp_path):
    """What `limited` stands on: a file that is too long is refused, and so is nothing else."""
    script = LIMITED.split("; sys.argv[:]")[0] + "; import pathlib; pathlib.Path(sys.argv[2]).write_bytes(b'x' * 1500)"
    for size, status in ((1000, 1), (2000, 0)):
        command = [sys.executable, "-c", script, str(size), tmp_path / "file"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "File too large" in done.stderr) == (status, bool(status))
