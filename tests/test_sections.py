"""Sections: cut the same way in every language, and the line that is to blame found by name."""

import pytest

from dlrosetta import sections

SOURCE = '''"""A title."""

# %% Imports
import this

# %% Model
class Net:
    def __init__(self):
        self.conv1 = Conv(3, 50)
        self.conv10 = Conv(3, 50)

    def forward(self, x):
        return self.conv10(self.conv1(x))


def build_model():
    return Net()

# %% Run
main()
'''


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "cnn_tiny.py"
    file.write_text(SOURCE, encoding="utf-8")
    return file


def test_a_source_is_cut_at_its_marks_and_lines_keep_their_numbers():
    cut = sections.split(SOURCE)
    assert [(part.name, part.start, len(part.lines)) for part in cut] == [
        ("", 1, 2), ("Imports", 4, 2), ("Model", 7, 12), ("Run", 20, 1),
    ]  # fmt: skip
    lines = SOURCE.splitlines()
    for part in cut:
        assert list(part.lines) == lines[part.start - 1 : part.start - 1 + len(part.lines)]


@pytest.mark.parametrize(
    "mark", ["# %% Model", "#%%Model", "// %% Model", "-- %% Model", "  # %%  Model  ", "% %% Model"]
)
def test_every_language_may_mark_with_its_own_comment(mark):
    assert [part.name for part in sections.split(f"{mark}\nx\n")] == ["", "Model"]


@pytest.mark.parametrize("line", ["x = 1  # %% Model", "# % Model", "#%%", "# 100 %% Model", '"%% Model"'])
def test_what_only_looks_like_a_mark_is_none(line):
    assert [part.name for part in sections.split(line)] == [""]


def test_the_section_of_a_line(path):
    assert [sections.section_of(path, line) for line in (None, 1, 4, 9, 20)] == ["", "", "Imports", "Model", "Run"]


def test_the_line_to_blame(path):
    assert sections.locate(path, "Model", "conv1") == 9  # where it is made, and not conv10's line
    assert sections.locate(path, "Model", "conv1", use=True) == 13  # where it is called
    assert sections.locate(path, "Model", "conv2") == 16  # not there: the section's function
    assert sections.locate(path, "Run", "nothing") == 20  # no function either: its first line
    assert sections.locate(path, "Loss") == 0  # no such section
