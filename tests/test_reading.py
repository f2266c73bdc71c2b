"""`rosetta read`: every line of a section once, under the file's own number, within the terminal's width."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text as Styled

from dlrosetta import frameworks, paths, reading, texts
from dlrosetta.errors import UsageError

ROSETTA = Path(sys.executable).with_name("rosetta")
FRAMEWORKS = frameworks.find()


@pytest.fixture
def stone(tmp_path):
    """The text `cnn` with three versions: a real one, its copy under another name, and one that lacks sections."""
    folder = tmp_path / "stone" / "cnn"
    ours = texts.find(paths.stone_dirs())["cnn"]
    folder.mkdir(parents=True)
    for name in ("text.toml", "golden.npz", "reference.py", "cnn_torch.py"):
        shutil.copy(ours / name, folder)
    source = (ours / "cnn_torch.py").read_text(encoding="utf-8")
    (folder / "cnn_flax.py").write_text(source.replace("PyTorch", "Flax"), encoding="utf-8")
    (folder / "cnn_keras.py").write_text(
        "# CNN in Keras.\n# %% Configuration\nSEED = 0  # \x1b[31mred\x07\n"
        '# %% Model\nx = """\nlong\n"""\n# %% Extra\ny = 1\n',
        encoding="utf-8",
    )
    return tmp_path / "stone"


def columns(stone, *slugs):
    text = texts.load(stone / "cnn")
    return [reading.load(reading.path_of(text, FRAMEWORKS[slug], FRAMEWORKS), FRAMEWORKS[slug]) for slug in slugs]


def rendered(stone, width, *slugs, only=()):
    found = columns(stone, *slugs)
    screen = Console(width=width, file=io.StringIO())
    return [line.plain for line in reading.render(screen, found, reading.wanted_sections(only, found))]


def read(stone, *arguments, **environ):
    environ = {"PATH": "/usr/bin:/bin", "ROSETTA_CACHE": str(stone / "cache"), **environ}
    return subprocess.run(
        [ROSETTA, "read", *arguments, "--stone", str(stone)], capture_output=True, text=True, env=environ, check=False
    )


@pytest.mark.parametrize("width", [30, 80, 103, 160, 250])
@pytest.mark.parametrize("slugs", [("torch",), ("torch", "flax"), ("flax", "keras_jax", "torch")])
def test_it_fits_the_terminal(stone, width, slugs):
    lines = rendered(stone, width, *slugs)
    assert max(map(cell_len, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]


def test_side_by_side_where_columns_are_wide_enough(stone):
    assert [line for line in rendered(stone, 103, "torch", "flax") if re.search(r"· torch ─* │ ── \w.* · flax", line)]
    below = rendered(stone, 102, "torch", "flax")
    assert not any(reading.BETWEEN in line for line in below)
    heads = [re.search(r"── (.*) · (\w+)", line).groups() for line in below if line.startswith("── ")]
    assert heads[:4] == [
        ("Imports", "torch"),
        ("Imports", "flax"),
        ("Configuration", "torch"),
        ("Configuration", "flax"),
    ]


@pytest.mark.parametrize("width", [40, 100, 200])
def test_nothing_of_a_section_is_lost_and_numbers_are_the_file_s_own(stone, width):
    source = (stone / "cnn" / "cnn_torch.py").read_text(encoding="utf-8").splitlines()
    number, seen = 0, {}
    for line in rendered(stone, width, "torch")[3:]:
        if line.startswith("── "):
            continue
        gutter = re.match(r" {0,2}(\d{1,3})(?:  |$)", line)
        number = int(gutter.group(1)) if gutter else number
        if line:
            seen[number] = seen.get(number, "") + line[5:]
    for number, line in enumerate(source, 1):
        if line.strip() and not line.startswith(("# %%", '"""')):
            assert seen[number].replace(" ", "") == line.replace(" ", ""), number


def test_breaking_a_line():
    def broken(line, width):
        return [piece.plain for piece in reading.fold(Styled(line), width)]

    assert broken("    x = f(g(x), 2)  # (N, 50)", 26) == ["    x = f(g(x), 2)", "        # (N, 50)"]
    assert broken("    value = function(first, second)", 28) == ["    value = function(first,", "        second)"]
    assert broken("a" * 25, 10) == ["a" * 10, "    " + "a" * 6, "    " + "a" * 6, "    aaa"]
    assert broken("short", 10) == ["short"]
    assert broken("", 10) == [""]


def test_sections_are_chosen_by_name_in_any_case(stone):
    lines = rendered(stone, 80, "torch", only=["model", "LOSS"])
    assert [line.split(" · ")[0] for line in lines if line.startswith("── ")] == ["── Model", "── Loss"]
    with pytest.raises(UsageError, match=r"Received: 'modle'\. Did you mean 'Model'\?"):
        reading.wanted_sections(["modle"], columns(stone, "torch"))


def test_a_section_that_a_version_lacks_or_has_besides_is_shown(stone):
    lines = rendered(stone, 120, "torch", "keras_torch")
    head = next(n for n, line in enumerate(lines) if "Loss · keras_torch" in line)
    assert "(no such section)" in lines[head + 1]
    assert any("Extra · keras_torch" in line for line in lines)


def test_titles_in_every_language():
    assert reading.title_of(['"""CNN in Torch.', "More."]) == "CNN in Torch."
    assert reading.title_of(['"""CNN in Torch."""']) == "CNN in Torch."
    for mark in ("# ", "#' ", "// ", "/// ", "/* ", "-- ", "% "):
        assert reading.title_of(["", mark.strip(), f"{mark}CNN in R.", "x"]) == "CNN in R."
    assert reading.title_of(["#!/usr/bin/env Rscript", "# CNN in R."]) == "CNN in R."
    assert reading.title_of([]) == ""


def test_a_file_cannot_write_to_the_terminal(stone):
    lines = rendered(stone, 80, "keras_jax")
    assert not [line for line in lines if re.search(r"[\x00-\x1f\x7f]", line)]
    assert any("SEED = 0  # �[31mred�" in line for line in lines)


def test_what_reaches_a_pipe_has_no_colour(stone):
    plain = read(stone, "cnn", "torch", "keras_torch")
    assert (plain.returncode, plain.stderr) == (0, "")
    assert "\x1b" not in plain.stdout
    assert "Model · keras_torch" in plain.stdout
    assert "\x1b[" in read(stone, "cnn", "torch", FORCE_COLOR="1", TERM="xterm-256color").stdout
    grey = read(stone, "cnn", "torch", FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1").stdout
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38)[;m]", grey)


def test_a_closed_pipe_is_no_crash(stone):
    script = f'"{ROSETTA}" read cnn torch --stone "{stone}" | head -1'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("CNN on CIFAR-10 in PyTorch.\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cmn", "torch"), "Did you mean 'cnn'?"),
        (("all", "torch"), "Expected one text: cnn"),
        (("cnn", "torhc"), "Received: 'torhc'. Did you mean 'torch'?"),
        (("cnn", "torch", "--section", "los"), "Did you mean 'Loss'?"),
        (("cnn", "tensorflow"), "cnn_tensorflow.py. There are versions for: flax, keras_jax, keras_openvino,"),
        (("cnn",), "Missing argument 'FRAMEWORK...'"),
    ],
)
def test_a_wrong_call(stone, arguments, message):
    done = read(stone, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
