"""Environments, with the real uv and a planted framework whose only package is a wheel made here: no network."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from planted import wheel

from dlrosetta import environments, frameworks
from dlrosetta.errors import RosettaError

PYTHON = "{}.{}".format(*sys.version_info[:2])
TOML = f"""
title = "Tiny"
language = "python"
python = "{PYTHON}"
status = "living"
can = ["train"]
devices = ["cpu"]
dtypes = ["float32"]
homepage = "https://tiny.example"
size_mb = 1
release = {{ version = "1.0", date = "2026-01-31" }}
layout = {{ conv = "OIHW", dense = "OI", activations = "channels_first" }}
"""
# The adapter of a framework that compiles itself when it is loaded: FIRST comes before it does.
COMPILES = """
import os, pathlib, time
FIRST
home = pathlib.Path(os.environ["TINY_HOME"])
home.mkdir()
(home / "kernel").write_text(str(home))


def describe():
    return {"version": "1.0", "device": "cpu", "threads": 1}
"""
# What a program does that wants the environment; SIGTERM ends it as it ends the command line.
CHILD = """
import signal, sys
from pathlib import Path
from dlrosetta import environments, frameworks
from dlrosetta.errors import RosettaError
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
LIMIT
said = []
try:
    print(environments.ensure(frameworks.load(Path(sys.argv[1])), said.append))
    print(sum(line.startswith("Installed") for line in said))
except RosettaError as error:
    print(error, error.hint, sep="\\n")
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A framework of one package, and a machine where nothing is configured but the folder of its wheel."""
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "ROSETTA_CACHE": tmp_path / "cache",
        "UV_CACHE_DIR": tmp_path / "uv",
        "UV_HTTP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": tmp_path / "wheels",
        "PIP_NO_INDEX": "1",
        "NO_PROXY": "*",
    }.items():
        monkeypatch.setenv(name, str(value))
    wheel(tmp_path / "wheels")
    folder = tmp_path / "frameworks" / "tiny"
    folder.mkdir(parents=True)
    (folder / "framework.toml").write_text(TOML)
    (folder / "requirements.in").write_text("tiny\n")
    (folder / "requirements.lock").write_text("tiny==1.0\n")
    return frameworks.load(folder)


@pytest.fixture
def compiled(tiny, tmp_path):
    """The same, but it compiles itself; our own packages are lent to it. Call it with what comes first."""
    wheel(tmp_path / "wheels", borrow=True)
    description = TOML + 'compile_s = 90\n[env]\nTINY_HOME = "{environment}/tiny"\n'
    (tiny.folder / "framework.toml").write_text(description)

    def make(first=""):
        (tiny.folder / "adapter.py").write_text(COMPILES.replace("FIRST", first))
        return frameworks.load(tiny.folder)

    return make


def child(framework, limit=""):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD.replace("LIMIT", limit), framework.folder], stdout=subprocess.PIPE, text=True
    )


def version_in(python: Path) -> str:
    program = [python, "-c", "import tiny; print(tiny.VERSION)"]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout.strip()


def left_over() -> list[str]:
    return [path.name for path in environments.root().iterdir() if not path.name.endswith(".lock")]


def test_made_once_and_used_again(tiny):
    said = []
    assert environments.state(tiny) == "missing"
    python = environments.ensure(tiny, said.append)
    assert environments.state(tiny) == "ready"
    assert version_in(python) == "1.0"
    assert any(line.startswith("Installed 1 package") for line in said)
    assert left_over() == [python.parents[1].name]
    assert environments.ensure(tiny, pytest.fail) == python


def test_another_lock_makes_another_environment(tiny, tmp_path):
    old = environments.ensure(tiny)
    wheel(tmp_path / "wheels", version="2.0", ballast=3_000_000)
    tiny.lock.write_text("tiny==2.0\n")
    assert environments.state(tiny) == "stale"
    assert version_in(environments.ensure(tiny)) == "2.0"
    assert version_in(old) == "1.0"
    made = environments.list_all()
    assert [each.slug for each in made] == ["tiny", "tiny"]
    assert sorted(round(each.size_mb) for each in made) == [0, 3]


def test_removing(tiny):
    (environments.root() / "tiny_other-0123456789ab" / "bin").mkdir(parents=True)
    (environments.root() / "tiny_other-0123456789ab" / "bin" / "python").touch()
    python = environments.ensure(tiny)
    assert environments.remove("tiny") == [python.parents[1]]
    assert environments.state(tiny) == "missing"
    assert left_over() == ["tiny_other-0123456789ab"]
    assert environments.remove("tiny") == []


def test_an_environment_whose_interpreter_is_gone_is_made_anew(tiny):
    python = environments.ensure(tiny)
    python.unlink()
    python.symlink_to("/nonexistent/python")
    assert environments.state(tiny) == "missing"
    assert version_in(environments.ensure(tiny)) == "1.0"
    assert left_over() == [python.parents[1].name]


def test_two_programs_at_once_make_one(tiny):
    both = [child(tiny), child(tiny)]
    answers = [process.communicate(timeout=60)[0].split() for process in both]
    assert answers[0][0] == answers[1][0]
    assert sorted(answer[1] for answer in answers) == ["0", "1"]
    assert version_in(Path(answers[0][0])) == "1.0"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_leaves_no_half_environment(tiny, tmp_path, monkeypatch, number):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes calls and never answers
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        process = child(tiny)
        call, _ = silent.accept()
        with call:
            uvs = psutil.Process(process.pid).children(recursive=True)
            assert [part for part in left_over() if part.endswith(".tmp")]
            process.send_signal(number)
            process.communicate(timeout=20)
            assert environments.state(tiny) == "missing"
            if number == signal.SIGKILL:
                assert left_over()  # nobody was there to clean up; below, the next run does
                for orphan in uvs:
                    orphan.kill()
            else:
                assert left_over() == []
            assert uvs
            assert psutil.wait_procs(uvs, timeout=10)[1] == []
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    python = environments.ensure(tiny)
    assert version_in(python) == "1.0"
    assert left_over() == [python.parents[1].name]


def test_who_compiles_itself_has_done_so_when_it_is_made(compiled, capsys):
    tiny = compiled()
    made = environments.ensure_all([tiny])["tiny"]
    assert "Tiny compiles itself once, which may take 90 s." in capsys.readouterr().err
    environment = environments.folder(tiny)
    # Under the name that it keeps, for what is compiled holds paths.
    assert (environment / "tiny" / "kernel").read_text() == str(environment / "tiny")
    assert left_over() == [environment.name]
    assert environments.ensure_all([tiny])["tiny"] == made  # a second time it could not make its folder
    assert capsys.readouterr().err == ""


def test_who_cannot_compile_itself_is_named_with_its_last_lines(compiled):
    error = "g++ failed\nin file op.cc\nno such header: dnnl.h"
    tiny = compiled(f"print('1 of 9 files', flush=True)\nraise RuntimeError({error!r})")
    message = "Tiny could not compile itself: RuntimeError: g++ failed. Its last lines: "
    log = fails(tiny, message, "Log: ")
    assert "1 of 9 files" in log and "in file op.cc" in log
    with pytest.raises(RosettaError, match=r"in file op\.cc … no such header: dnnl\.h$"):
        environments.ensure(tiny)
    assert environments.state(tiny) == "missing"
    dies = compiled("print('no space left', flush=True)\nos._exit(3)")
    message = "Tiny could not compile itself: exited with status 3 in the middle of a request: no space left. Its last "
    fails(dies, message, "Log: ")
    assert environments.state(compiled()) == "missing"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_half_compiled_is_not_ready(compiled, tmp_path, number):
    begun = tmp_path / "begun"
    tiny = compiled(f"pathlib.Path({str(begun)!r}).write_text(str(os.getpid()))\ntime.sleep(60)")
    process = child(tiny)
    while not (begun.exists() and begun.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    worker = psutil.Process(int(begun.read_text()))
    assert environments.state(tiny) == "missing" and environments.list_all() == []
    process.send_signal(number)
    process.communicate(timeout=20)
    assert psutil.wait_procs([worker], timeout=10)[1] == []
    assert environments.state(tiny) == "missing" and environments.list_all() == []
    if number == signal.SIGKILL:
        assert left_over()  # nobody was there to clean up; whoever comes next does
        assert environments.remove("tiny") == []
    assert left_over() == []
    environment = environments.ensure(compiled()).parents[1]
    assert (environment / "tiny" / "kernel").exists() and left_over() == [environment.name]


def test_half_compiled_by_another_program_is_left_alone(tiny):
    half = environments.root() / "other-0123456789ab"
    half.mkdir(parents=True)
    (half / environments.COMPILING).touch()
    with environments._lock(half.name):
        environments.ensure(tiny)
        assert half.exists()
    environments.create(tiny)
    assert not half.exists()


def test_another_programs_half_made_environment_is_left_alone(tiny):
    beside = environments.root() / ".other-0123456789ab.1.tmp"
    beside.mkdir(parents=True)
    with environments._lock("other-0123456789ab"):
        environments.ensure(tiny)
        assert beside.exists()
    environments.create(tiny)
    assert not beside.exists()


def test_a_full_disk(tiny, tmp_path):
    wheel(tmp_path / "wheels", ballast=2_000_000)
    answer, _ = child(tiny, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))").communicate()
    message, hint = answer.splitlines()
    assert message.startswith("Could not make tiny's environment: the disk is full: ")
    assert hint.startswith("Free some room, or set ROSETTA_CACHE and UV_CACHE_DIR")
    assert left_over() == []


def fails(framework, message, hint):
    """Check the error; return what the log that it names holds, or ""."""
    with pytest.raises(RosettaError) as caught:
        environments.ensure(framework)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(message)
    assert hint in caught.value.hint
    named = re.search(r"Log: (.+)$", caught.value.hint)
    assert not environments.root().is_dir() or left_over() == []
    return Path(named[1]).read_text() if named else ""


def test_a_cache_that_cannot_be_written(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROSETTA_CACHE", str(tmp_path / "file" / "cache"))
    fails(tiny, f"Could not write tiny's environment: {tmp_path}/file/cache", "Set ROSETTA_CACHE to a folder")


def test_a_missing_interpreter(tiny):
    description = tiny.folder / "framework.toml"
    description.write_text(TOML.replace(f'python = "{PYTHON}"', 'python = "3.99"'))
    fails(frameworks.load(tiny.folder), "Expected Python 3.99. Received: none", "uv python install 3.99")


LIBC = next(Path("/lib").glob("*-linux-gnu*/libc.so.6"), None)


@pytest.mark.skipif(LIBC is None, reason="glibc is not where Debian has it")
def test_links_to_libraries_by_other_names(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    description = tiny.folder / "framework.toml"
    description.write_text(TOML + '[links]\n"libold.so.1" = "libc.so.6"\n')
    linked = frameworks.load(tiny.folder)
    assert environments.folder(linked) != environments.folder(tiny)  # other links, another environment
    environments.ensure(linked)
    link = environments.folder(linked) / "libraries" / "libold.so.1"
    assert link.is_symlink() and link.samefile(LIBC)

    (tmp_path / "libmine.so.3").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    description.write_text(TOML + '[links]\n"libold.so.1" = "libmine.so.3"\n')
    own = frameworks.load(tiny.folder)
    environments.ensure(own)
    assert (environments.folder(own) / "libraries" / "libold.so.1").readlink() == tmp_path / "libmine.so.3"


def test_a_missing_library(tiny):
    links = '[links]\n"libold.so.1" = "libnowhere.so.9"\n'
    description = tiny.folder / "framework.toml"
    description.write_text(TOML + links)
    message = "Tiny needs the shared library libnowhere.so.9. Received: none of that name."
    fails(frameworks.load(tiny.folder), message, "Install it, or name its folder in LD_LIBRARY_PATH.")
    description.write_text(f'debian = ["libnowhere9"]\n{TOML}{links}')
    fails(frameworks.load(tiny.folder), message, "apt install libnowhere9")
    assert not [path for path in environments.root().iterdir() if path.is_dir()]


def test_no_lock_and_no_python(tiny):
    tiny.lock.unlink()
    fails(tiny, f"Expected {tiny.lock}. Received: no such file.", "rosetta env lock tiny")
    (tiny.folder / "framework.toml").write_text(TOML.replace(f'python = "{PYTHON}"', ""))
    with pytest.raises(RosettaError, match="Tiny is not run by Python"):
        environments.state(frameworks.load(tiny.folder))


def test_locks_that_cannot_be_installed(tiny, monkeypatch):
    tiny.lock.write_text("tiny=1.0 hello\n")
    fails(tiny, "Could not make tiny's environment: its lock is not a list of requirements: ", "rosetta env lock tiny")
    tiny.lock.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    message = "Could not make tiny's environment: a package is not the one that was locked (hash mismatch): "
    assert "Hash mismatch for `tiny==1.0`" in fails(tiny, message, "rosetta env lock tiny")
    tiny.lock.write_text("absent==1.0\n")
    message = "Could not make tiny's environment: a package is not to be had here: "
    assert "absent==1.0" in fails(tiny, message, "PIP_EXTRA_INDEX_URL")


def test_no_network(tiny, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    message = "Could not make tiny's environment: the network, or a package index on it, cannot be reached: "
    assert f":{port}/simple" in fails(tiny, message, "PIP_INDEX_URL")


def test_making_all_goes_on_after_a_failure_and_tells(tiny, tmp_path, capsys):
    bad = tmp_path / "frameworks" / "bad"
    bad.mkdir()
    (bad / "framework.toml").write_text(TOML)
    (bad / "requirements.lock").write_text("absent==1.0\n")
    (tmp_path / "frameworks" / "unlocked").mkdir()
    (tmp_path / "frameworks" / "unlocked" / "framework.toml").write_text(TOML.replace("size_mb = 1", ""))
    every = [frameworks.load(tmp_path / "frameworks" / name) for name in ("bad", "tiny", "unlocked")]
    made = environments.ensure_all(every)
    assert version_in(made["tiny"]) == "1.0"
    assert "not to be had" in str(made["bad"])
    assert "no such file" in str(made["unlocked"])
    output = capsys.readouterr()
    assert output.out == ""
    assert "Making 2 environment(s) under" in output.err
    assert "bad (1 MB), tiny (1 MB); 2 MB in all." in output.err
    assert environments.ensure_all([tiny]) == {"tiny": made["tiny"]}
    assert capsys.readouterr().err == ""


def test_locking_names_no_place(tiny, tmp_path):
    content = wheel(tmp_path / "wheels").read_bytes()
    environments.lock(tiny)
    digest = hashlib.sha256(content).hexdigest()
    expected = (
        f"# Written by: rosetta env lock tiny\ntiny==1.0 \\\n    --hash=sha256:{digest}\n    # via -r requirements.in\n"
    )
    assert tiny.lock.read_text() == expected
    assert version_in(environments.ensure(tiny)) == "1.0"


def test_the_lock_of_torch_leaves_its_build_open(tiny, tmp_path):
    wheel(tmp_path / "wheels", "torch", "2.0+cpu")
    tiny.requirements.write_text("tiny\ntorch==2.0\n")
    environments.lock(tiny)
    text = tiny.lock.read_text()
    assert "\ntorch==2.0\n    # via -r requirements.in\n" in text
    assert text.count("--hash") == 1
    assert version_in(environments.ensure(tiny)) == "1.0"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["error: Failed to install: a.whl", "  cause: failed to copy file: No space left on device (os error 28)"],
            "the disk is full: Failed to install: a.whl failed to copy file: No space left on device (os error 28)",
        ),
        (["Resolved 1 package", "error: Something new", "", "hint: try this"], "uv failed: Something new"),
        (["error: " + 300 * "a" + 300 * "z"], "uv failed: " + 200 * "a" + " … " + 95 * "z"),
    ],
)
def test_what_uv_says_becomes_one_line(tmp_path, lines, message):
    error = environments.failure("tiny", 2, lines, tmp_path / "log")
    assert str(error) == f"Could not make tiny's environment: {message}"
    assert error.hint.endswith(f"Log: {tmp_path / 'log'}")


def test_torchs_build_is_left_to_uv_only_where_nobody_says_where_packages_come_from(tiny, monkeypatch):
    commands = []
    monkeypatch.setattr(environments, "_uv", lambda arguments, **_: commands.append(arguments))

    def flags(lock, **variables):
        commands.clear()
        tiny.lock.write_text(lock)
        with monkeypatch.context() as patch:
            for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX"):
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(RosettaError):  # nothing was made, so nothing can be renamed
                environments.ensure(tiny)
        return [part for part in commands[1] if part.startswith("--torch-backend")]

    assert flags("numpy==2.0\ntorch==2.0\n") == ["--torch-backend=auto"]
    assert flags("torch-other==2.0\ntorchvision==1.0\n") == []
    assert flags("torch==2.0\n", UV_TORCH_BACKEND="cpu") == []
    assert flags("torch==2.0\n", PIP_FIND_LINKS=os.environ["PIP_FIND_LINKS"]) == []
    assert flags("torch==2.0\n", PIP_INDEX_URL="https://a.example/simple") == []
