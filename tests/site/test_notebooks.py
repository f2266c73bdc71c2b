"""Versions as notebooks: valid, complete, and one of them run from top to bottom."""

import ast
import json
import subprocess

import nbformat
import pytest

from dlrosetta import environments, frameworks, paths, sections, texts
from dlrosetta.site import notebooks

KNOWN = frameworks.find()
TEXTS = {name: texts.load(folder) for name, folder in texts.find(paths.stone_dirs(())).items()}


KERNEL = """
import json, sys
from dlrosetta import data
whole = data.cifar10
data.cifar10 = lambda: tuple((images[:96], labels[:96]) for images, labels in whole())
for cell in json.load(open(sys.argv[1])):
    exec(compile(cell, "<cell>", "exec"))
"""


def code(made):
    return [cell["source"] for cell in made["cells"] if cell["cell_type"] == "code"]


def whole(source):
    return source if isinstance(source, str) else "".join(source)


@pytest.mark.parametrize("slug", KNOWN)
@pytest.mark.parametrize("name", TEXTS)
def test_a_notebook_is_its_version(name, slug):
    framework, text = KNOWN[slug], TEXTS[name]
    path = text.folder / framework.version_file(name)
    made = notebooks.notebook(text, framework)
    if not path.is_file() or path.suffix != ".py" or framework.python == "3.6":
        assert made is None
        return
    nbformat.validate(nbformat.from_dict(made))
    source = path.read_text(encoding="utf-8")
    parts = [part for part in sections.split(source) if part.name]
    cells = [(cell["cell_type"], whole(cell["source"])) for cell in made["cells"]]
    assert [text for kind, text in cells[2:] if kind == "markdown"] == [f"## {part.name}" for part in parts]
    assert [text for kind, text in cells[2:] if kind == "code"] == ["\n".join(part.lines).strip("\n") for part in parts]
    assert cells[0][1].startswith("# ") and cells[1][1].startswith("%pip install")
    joined = "\n".join(text for kind, text in cells[2:] if kind == "code")
    assert ast.dump(ast.parse(joined)) == ast.dump(ast.Module(ast.parse(source).body[1:], []))


def test_it_is_the_same_every_time():
    assert notebooks.notebook(TEXTS["cnn"], KNOWN["torch"]) == notebooks.notebook(TEXTS["cnn"], KNOWN["torch"])


def test_what_it_installs():
    first = whole(code(notebooks.notebook(TEXTS["cnn"], KNOWN["keras_jax"]))[0])
    assert '"keras==3.15.1"' in first and '"jax==0.10.2"' in first and "#" not in first
    assert first.splitlines()[1] == "%pip install --quiet --no-deps dlrosetta"
    assert 'os.environ["KERAS_BACKEND"] = "jax"' in first and "KERAS_HOME" not in first
    tensorflow = whole(code(notebooks.notebook(TEXTS["cnn"], KNOWN["keras_tensorflow"]))[0])
    assert "\"tensorflow==2.21.0; sys_platform != 'linux' or platform_machine != 'x86_64'\"" in tensorflow
    assert "import os" not in whole(code(notebooks.notebook(TEXTS["cnn"], KNOWN["torch"]))[0])


@pytest.mark.frameworks
def test_it_runs_from_top_to_bottom(tmp_path):
    """PyTorch's, in PyTorch's environment, one epoch of the first 96 of the packaged sample. A kernel runs cell after
    cell in one `__main__`.
    """
    installing, *cells = [whole(source) for source in code(notebooks.notebook(TEXTS["cnn"], KNOWN["torch"]))]
    assert installing.startswith("%pip")
    (tmp_path / "cells.json").write_text(json.dumps([cell.replace("EPOCHS = 10", "EPOCHS = 1") for cell in cells]))
    (tmp_path / "kernel.py").write_text(KERNEL)
    environment = {
        "PYTHONPATH": str(paths.PACKAGE.parent), "ROSETTA_DATA": "sample", "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1", "HOME": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [environments.ensure(KNOWN["torch"]), tmp_path / "kernel.py", tmp_path / "cells.json"],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "epoch 1: loss" in done.stdout and "test accuracy 0." in done.stdout
