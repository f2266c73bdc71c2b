"""Interpreters are found where people have them, and asked, because names lie."""

import os
import sys
from pathlib import Path

import pytest

from dlrosetta import interpreters
from dlrosetta.errors import RosettaError

RUNNING = "{}.{}".format(*sys.version_info[:2])


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine with no Python at all: an empty PATH, no pyenv, nothing of uv's, no download."""
    for name in [name for name in os.environ if name.startswith(("UV_", "PYENV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "managed"))
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    return tmp_path


def pretend(path: Path, version: str) -> Path:
    """Plant a program that answers as an interpreter of `version` would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho {version}\necho "{path}"\n')
    path.chmod(0o755)
    return path


def test_the_running_interpreter_will_do_and_is_not_an_environment(nowhere):
    found = interpreters.find(RUNNING)
    assert found.exists()
    assert not found.is_relative_to(sys.prefix) or sys.prefix == sys.base_prefix


def test_a_shim_that_refuses_and_one_that_lies_are_passed_over(nowhere, monkeypatch):
    folders = [nowhere / name for name in ("refuses", "lies", "true")]
    pretend(folders[0] / "python3.98", "").write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    pretend(folders[1] / "python3.98", "3.97")
    real = pretend(folders[2] / "python3.98", "3.98")
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
    assert interpreters.find("3.98") == real


def test_the_newest_of_pyenv(nowhere, monkeypatch):
    for number in (2, 10, 9):
        pretend(nowhere / f".pyenv/versions/3.98.{number}/bin/python", "3.98")
    pretend(nowhere / ".pyenv/versions/3.98-dev/bin/python", "3.98")
    assert interpreters.find("3.98") == nowhere / ".pyenv/versions/3.98.10/bin/python"
    elsewhere = pretend(nowhere / "elsewhere/versions/3.98.1/bin/python", "3.98")
    monkeypatch.setenv("PYENV_ROOT", str(nowhere / "elsewhere"))
    assert interpreters.find("3.98") == elsewhere


def test_what_uv_manages(nowhere, monkeypatch):
    monkeypatch.setattr(interpreters, "sys", type("other", (), {"version_info": (3, 99), "executable": "none"}))
    managed = nowhere / f"managed/cpython-{RUNNING}.{sys.version_info[2]}-linux-x86_64-gnu/bin/python{RUNNING}"
    managed.parent.mkdir(parents=True)
    managed.symlink_to(getattr(sys, "_base_executable", sys.executable))
    assert interpreters.find(RUNNING).exists()
    managed.unlink()
    with pytest.raises(RosettaError):
        interpreters.find(RUNNING)


@pytest.mark.parametrize(("version", "command"), [("3.99", "uv python install 3.99"), ("3.6", "pyenv install 3.6")])
def test_a_missing_one_is_one_line_and_a_command(nowhere, version, command):
    with pytest.raises(RosettaError) as caught:
        interpreters.find(version)
    assert str(caught.value) == f"Expected Python {version}. Received: none on the PATH, in pyenv or from uv."
    assert caught.value.hint == command
