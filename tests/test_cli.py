"""The command line as its users meet it: the installed `rosetta`, in a process of its own."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlrosetta import __version__, manual

ROSETTA = Path(sys.executable).with_name("rosetta")
DOCS = Path(__file__).resolve().parents[1] / "docs"
HEAVY = (
    "numpy", "rich", "scipy", "safetensors", "psutil", "pygments", "jsonschema", "autograd", "uv", "duckdb", "altair",
    "vl_convert", "jinja2",
)  # fmt: skip
PROBE = "import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"


def call(*arguments, command=(ROSETTA,), **environ):
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **environ},
        check=False,
    )


def test_help_answers_at_once():
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        assert call("--help").returncode == 0
        times.append(time.perf_counter() - begin)
    print(f"rosetta --help: {min(times):.3f} s")
    assert min(times) < 0.2


def imported(module):
    done = call("-I", "-c", PROBE.format(module=module, heavy=HEAVY), command=(sys.executable,))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_command_line_imports_nothing_heavy():
    assert imported("dlrosetta.cli") == []


def test_that_test_would_notice():
    assert {"numpy", "rich"} <= set(imported("dlrosetta.console"))


def test_version_and_module():
    assert call("--version").stdout == f"rosetta, version {__version__}\n"
    assert call("--version", command=(sys.executable, "-m", "dlrosetta")).stdout == f"rosetta, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prov", "cnn"], "Did you mean 'prove'?"),
        (["xyzzy"], "Expected a command: read, prove, compare,"),
        (["env", "remov", "torch"], "Did you mean 'remove'?"),
        (["env"], "The frameworks' environments"),
        (["new", "frame", "x"], "Did you mean 'framework'?"),
        (["prove", "cnn", "--framwork", "torch"], "Did you mean"),
        (["prove", "cnn", "--dtype", "float16"], "'float16' is not one of 'float32', 'float64', 'bfloat16'."),
        (["prove", "cnn", "--dtype", "bfloat16", "--devices", "2"], "Expected --devices in float32 or float64."),
        (["compare", "cnn", "--dtype", "float64"], "'float64' is not one of 'float32', 'bfloat16'."),
        (["prove"], "Missing argument 'TEXT'"),
        (["prove", "cn"], "Did you mean 'cnn'?"),
        (["prove", "cnn", "--frameworks", "troch"], "Did you mean 'torch'?"),
        (["compare", "cn"], "Did you mean 'cnn'?"),
        (["golden", "cn"], "Did you mean 'cnn'?"),
        (["run", "cnn", "troch"], "Did you mean 'torch'?"),
        (["run", "all", "torch"], "Expected one text: cnn"),
        (["env", "create", "troch"], "Did you mean 'torch'?"),
        (["env", "remove", "troch"], "Did you mean 'torch'?"),
        (["env", "lock", "troch"], "Did you mean 'torch'?"),
        (["--stone", ".", "prove", "cnn"], "Expected --stone and --frameworks-dir behind the command"),
        (["prove", "cnn", "--stone", "/no/such/folder"], "Expected a folder of texts. Received: /no/such/folder"),
    ],
)
def test_a_wrong_call_is_2_and_says_what_is_right(arguments, message, tmp_path):
    done = call(*arguments, ROSETTA_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_environments_are_listed(tmp_path):
    done = call("env", "list", ROSETTA_CACHE=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"(?m)^torch +3\.\d+ +missing ", done.stdout)
    done = call("env", "remove", "all", ROSETTA_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = call("env", "remove", "torch", ROSETTA_CACHE=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "torch: no environment was there\n")


def test_every_command_says_what_it_is_for():
    pages = dict(manual.helps(manual.rosetta, "rosetta"))
    assert {"rosetta", "rosetta read", "rosetta run", "rosetta env lock", "rosetta new text"} <= set(pages)
    for name, text in pages.items():
        summary = text.split("\n\n")[1]
        assert summary.startswith("  ") and summary.strip().endswith((".", "?")), name
        _, _, listed = text.partition("Commands:")
        assert "..." not in listed, f"{name}: a summary is cut off"
    assert max(len(line) for text in pages.values() for line in text.splitlines()) <= manual.WIDTH


def test_the_page_of_commands_is_the_program_s_own():
    written = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert written == manual.render(), "Next: python -m dlrosetta.manual > docs/commands.md"
