"""What each side may stand on: the command line on next to nothing, worker and data on Python 3.6 and numpy alone."""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlrosetta import environments, frameworks, paths, texts
from dlrosetta.proof import run

HEAVY = {
    "altair", "autograd", "duckdb", "filelock", "jinja2", "jsonschema", "jupytext", "markdown_it", "numpy", "psutil",
    "pygments", "rich", "safetensors", "scipy", "uv", "vl_convert",
    "platformdirs", "tomllib", "importlib.metadata", "asyncio", "subprocess", "json",
}  # fmt: skip
# Runs the command and then says what it imported.
PROBE = """
import atexit, sys
atexit.register(lambda: print("imported:", *sorted(sys.modules)))
sys.argv[:] = ["rosetta", *sys.argv[1:]]
from dlrosetta.cli import main
main()
"""
OLD = sorted([*(paths.PACKAGE / "worker").glob("*.py"), *(paths.PACKAGE / "data").glob("*.py")])


def imported(*arguments):
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shown, _, names = done.stdout.rpartition("imported: ")
    assert shown.strip()
    return set(names.split())


@pytest.mark.parametrize("arguments", [["--help"], ["prove", "--help"], ["env", "-h"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    found = imported(*arguments)
    assert "dlrosetta.cli" in found and "click" in found
    assert found & HEAVY == set()
    ours = {name for name in found if name.split(".")[0] == "dlrosetta"}
    assert ours == {
        "dlrosetta",
        "dlrosetta.cli",
        "dlrosetta.cli_machine",
        "dlrosetta.cli_results",
        "dlrosetta.cli_site",
        "dlrosetta.errors",
        "dlrosetta.options",
    }


def test_that_test_would_notice():
    assert {"rich", "platformdirs", "json", "subprocess"} <= imported("env", "list")


# -- Python 3.6 --------------------------------------------------------------------------------------------------------


@functools.cache
def python36():
    """A real CPython 3.6, which CNTK's cells need as well, or None: from pyenv or the PATH, as `interpreters` would
    find it, but never downloaded.
    """
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    on_path = [Path(folder) / "python3.6" for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for candidate in (*sorted((root / "versions").glob("3.6.*/bin/python"), reverse=True), *on_path):
        if candidate.exists():
            done = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
            if done.stdout.startswith("Python 3.6."):
                return candidate
    return None


def test_worker_and_data_are_there():
    assert {"__main__.py", "session.py", "tensors.py", "run.py", "cifar.py", "reviews.py", "download.py"} <= {
        path.name for path in OLD
    }


@pytest.mark.parametrize("path", OLD, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_old_interpreters_can_read_it(path):
    """The grammar at least; and where a real 3.6 is at hand, that one."""
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))
    if python36():
        code = "import sys; compile(open(sys.argv[1], encoding='utf-8').read(), sys.argv[1], 'exec', dont_inherit=True)"
        done = subprocess.run([python36(), "-c", code, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_that_test_would_notice_too():
    with pytest.raises(SyntaxError):
        ast.parse("if (n := 3): pass", feature_version=(3, 6))


@pytest.mark.parametrize("path", OLD, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_it_imports_nothing_but_the_standard_library_numpy_and_itself(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add(node.module.split(".")[0])
            if node.module.startswith("dlrosetta"):
                assert node.module.split(".")[1] in ("worker", "data")
    assert roots - set(sys.stdlib_module_names) <= {"numpy", "dlrosetta"}


def test_the_pipe_works_on_a_real_3_6(tmp_path):
    """Without numpy, which few have for it: the worker's end of the pipe alone."""
    assert python36(), "expected CPython 3.6 on the PATH or in pyenv, as for CNTK"
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from protocol import Channel\n"
        "channel = Channel(int(sys.argv[2]), int(sys.argv[3]))\n"
        "while True: channel.send({'id': channel.receive()['id'], 'ok': True, 'result': {'é': 0.1}})"
    )
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = [python36(), "-c", code, paths.PACKAGE / "worker", str(theirs_in), str(theirs_out)]
    with subprocess.Popen(command, pass_fds=(theirs_in, theirs_out)) as process:
        os.close(theirs_in), os.close(theirs_out)
        with os.fdopen(ours_in) as answers:
            for number in (1, 2):
                os.write(ours_out, b'{"id": %d, "op": "hello", "args": {}}\n' % number)
                assert answers.readline() == f'{{"id": {number}, "ok": true, "result": {{"\\u00e9": 0.1}}}}\n'
            os.close(ours_out)
            assert process.wait(10) == 3  # nobody is left to answer


@pytest.mark.frameworks
def test_a_version_is_proven_on_a_real_3_6(place):
    """The worker, the data and the version in numpy of that time."""
    assert python36(), "expected CPython 3.6 on the PATH or in pyenv, as for CNTK"
    python = 'python = "{}.{}"'.format(*sys.version_info[:2])
    place.plant("old", toml=[(python, 'python = "3.6"')], environment=False)
    (place.frameworks / "old" / "requirements.lock").write_text("numpy==1.19.5\n", encoding="utf-8")
    old, text = frameworks.load(place.frameworks / "old"), texts.load(place.stone / "mine")
    environments.ensure(old)
    cells = run.prove(text, [old], ["float32", "float64"])
    assert [(cell.verdict, cell.reason) for cell in cells] == [("proven", None)] * 2
    assert cells[0].facts["python"].startswith("3.6.")
    assert cells[0].facts["numpy"] == "1.19.5"
