"""`rosetta` alone: what it says of each cell, from remembered proofs and nothing else."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dlrosetta import environments, frameworks, matrix, paths, texts
from dlrosetta.proof import run

ROSETTA = Path(sys.executable).with_name("rosetta")


@pytest.fixture
def stone(tmp_path, monkeypatch):
    """The text `cnn` with torch's version only, no remembered proofs, and the sample for data."""
    ours = texts.find(paths.stone_dirs())["cnn"]
    (tmp_path / "stone" / "cnn").mkdir(parents=True)
    for name in ("text.toml", "golden.npz", "reference.py", "cnn_torch.py"):
        shutil.copy(ours / name, tmp_path / "stone" / "cnn")
    monkeypatch.setenv("ROSETTA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ROSETTA_DATA", "sample")
    return tmp_path / "stone"


@pytest.fixture
def text(stone):
    return texts.load(stone / "cnn")


TORCH = frameworks.find()["torch"]
FLAX = frameworks.find()["flax"]


def remember(text, **verdicts):
    for dtype, verdict in verdicts.items():
        path = run._remembered(text, TORCH, dtype)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cell": {"verdict": verdict, "dtype": dtype}}), encoding="utf-8")


def printed(stone, **environ):
    environ = {
        "PATH": "/usr/bin:/bin",
        "COLUMNS": "120",
        "ROSETTA_DATA": "sample",
        "ROSETTA_CACHE": str(paths.cache_dir()),
        **environ,
    }
    begin = time.perf_counter()
    done = subprocess.run([ROSETTA, "--stone", str(stone)], capture_output=True, text=True, env=environ, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, time.perf_counter() - begin


@pytest.mark.parametrize(
    ("float32", "float64", "state"),
    [
        ("proven", "proven", "proven"),
        ("proven", "differs", "differs"),
        ("waived", "proven", "waived"),
        ("failed", "differs", "failed"),
        ("proven", "cannot", "proven"),
        ("cannot", "cannot", "cannot"),
    ],
)
def test_a_cell_is_as_good_as_its_worst_precision(text, float32, float64, state):
    remember(text, float32=float32, float64=float64)
    assert matrix.cell(text, TORCH) == state


def test_a_cell_that_nobody_looked_at(text):
    assert matrix.cell(text, FLAX) == "none"
    assert matrix.cell(text, TORCH) == "not run"
    remember(text, float32="proven")
    assert matrix.cell(text, TORCH) == "not run"  # half a proof is none


def test_a_text_that_a_framework_lacks_says_why_unless_it_is_there(text):
    known = {"flax": replace(FLAX, lacks={"cnn": "because: https://x"}), "torch": replace(TORCH, lacks={"cnn": "not"})}
    states = {(text.name, slug): matrix.cell(text, one) for slug, one in known.items()}
    assert states == {("cnn", "flax"): "cannot", ("cnn", "torch"): "not run"}
    assert [line.plain for line in matrix.reasons([text], known, states)] == ["∅ flax: cnn: because: https://x"]
    assert matrix.next_commands([text], known, states)[1][0] == "rosetta read cnn torch"


def test_a_verdict_does_not_outlive_a_change(text):
    remember(text, float32="proven", float64="proven")
    version = text.folder / "cnn_torch.py"
    version.write_text(version.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert matrix.cell(text, TORCH) == "changed"


def test_a_cell_is_not_taken_for_one_whose_name_begins_alike(text):
    remember(text, float32="proven", float64="proven")
    folder = paths.cache_dir() / "proofs"
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("cnn-torch-", "cnn-torch_extra-"))
    assert matrix.earlier(text, TORCH) == []


def test_the_table(stone, text):
    remember(text, float32="proven", float64="proven")
    environments.folder(TORCH).joinpath("bin").mkdir(parents=True)
    environments.folder(TORCH).joinpath("bin", "python").touch()
    output, seconds = printed(stone)
    rows = [line.split() for line in output.splitlines()]
    names = [row[0] for row in rows[1 : 1 + len(frameworks.find())]]
    assert names == sorted(frameworks.find())
    torch = ["torch", "ready", *matrix.megabytes(TORCH.size_mb).split(), "✓", "proven"]
    flax = ["flax", "missing", *matrix.megabytes(FLAX.size_mb).split(), "–"]
    assert all(any(row[: len(begin)] == begin for row in rows) for begin in (torch, flax)), output
    assert "Data of cnn: handwritten digits, the sample that ships with dlrosetta" in output
    assert re.search(r"(?m)^rosetta read \w+ \w+.* +the same sections side by side$", output)
    print(f"rosetta: {seconds:.3f} s")


def test_it_is_quick(stone):
    seconds = min(printed(stone)[1] for _ in range(3))
    print(f"rosetta: {seconds:.3f} s")
    assert seconds < 0.7


def test_what_to_type_comes_first_that_is_missing(text):
    def first():
        known = frameworks.find()
        states = {(text.name, slug): matrix.cell(text, one) for slug, one in known.items()}
        return matrix.next_commands([text], known, states)[0][0]

    assert first() == "rosetta prove cnn"
    remember(text, float32="proven", float64="proven")
    assert first() == "rosetta read cnn torch"


@pytest.mark.parametrize("width", [60, 80, 160])
def test_many_texts_shrink_to_marks_that_are_explained(text, width):
    found = [texts.load(text.folder) for _ in range(6)]
    known = {"keras_tensorflow": FLAX, "torch": TORCH}
    states = {(text.name, "keras_tensorflow"): "differs", (text.name, "torch"): "proven"}
    screen = Console(width=width, file=io.StringIO())
    with screen.capture() as capture:
        screen.print(matrix.table(screen, found, known, states))
    lines = capture.get().splitlines()
    assert len(lines) == 3  # nothing wraps
    assert lines[2].split()[-6:] == (["✓"] * 6 if width < 160 else ["✓", "proven"] * 3)
    assert matrix.legend(states.values()).plain == "✓ the same model   ✗ not the same"


def test_a_framework_that_died_or_is_not_locked_says_so(stone, tmp_path):
    folder = tmp_path / "frameworks" / "tiny"
    shutil.copytree(TORCH.folder, folder)
    toml = folder / "framework.toml"
    toml.write_text(toml.read_text(encoding="utf-8").replace('"living"', "{dead = 2019}"), encoding="utf-8")
    (folder / "requirements.lock").unlink()
    output, _ = printed(stone, ROSETTA_FRAMEWORKS=str(tmp_path / "frameworks"))
    assert re.search(r"(?m)^tiny †2019 +not locked +[\d.]+ .B +–", output)


def test_without_any_version_it_says_how_to_begin(text):
    assert matrix.next_commands([], {}, {})[0][0] == "rosetta new text NAME"
    states = {(text.name, "flax"): "none"}
    assert matrix.next_commands([text], {"flax": FLAX}, states)[0][0] == "rosetta new framework NAME --text cnn"
