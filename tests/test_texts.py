"""What text.toml may say, and what is refused by name."""

import re

import pytest
from planted import TEXT

from dlrosetta import draws, reference, texts
from dlrosetta.errors import RosettaError


@pytest.fixture
def folder(template, tmp_path):
    import shutil

    shutil.copytree(template / "stone" / TEXT, tmp_path / TEXT)
    return tmp_path / TEXT


def edited(folder, *edits):
    path = folder / "text.toml"
    content = path.read_text(encoding="utf-8")
    for old, new in edits:
        assert content.count(old) == 1, old
        content = content.replace(old, new)
    path.write_text(content, encoding="utf-8")
    return texts.load(folder)


SIZED = [("SEED = 0\n", "SEED = 0\nHIDDEN = 16\n"), ("shape = [16, 3072]", 'shape = ["HIDDEN", 3072]')]


def test_a_proof_has_sizes_of_its_own(folder):
    text = edited(folder, *SIZED, ("[inputs.images]", "[proof.constants]\nHIDDEN = 4\n\n[inputs.images]"))
    assert (text.parameters["fc1.weight"]["shape"], text.full_parameters["fc1.weight"]["shape"]) == (
        [4, 3072],
        [16, 3072],
    )
    assert text.shapes["fc2.weight"] == (10, 16)
    assert draws.initial_parameters(text)["fc1.weight"].shape == (4, 3072)
    assert reference.load(text).HIDDEN == 4


@pytest.mark.parametrize(("entry", "shape"), [('"HIDDEN"', [16]), ('"3 HIDDEN"', [48]), ("7", [7])])
def test_a_shape_may_name_constants(entry, shape):
    assert texts.sized([entry.strip('"') if entry.startswith('"') else int(entry)], {"HIDDEN": 16}) == shape


SHAPE = "shape = [16, 3072]"
START = '3072], role = "dense", initial = "glorot_uniform"'
INPUTS = "[inputs.images]"
WAIVED = '[[waivers]]\nframeworks = ["torch"]\ndtype = "float32"\nchecks = ["loss"]\nbound = 1e-5\nreason = "x"\n'
REFUSED = [
    ([(SHAPE, 'shape = ["WIDTH", 3072]')], "a constant or a multiple of one in a shape. Received: 'WIDTH'"),
    ([(SHAPE, 'shape = ["x HIDDEN", 3072]'), SIZED[0]], "Received: 'x HIDDEN'"),
    ([(START, '3072], role = "lines", initial = "zeros"')], "expected a role of conv, dense"),
    ([(START, '3072], role = "dense", initial = "noughts"')], "expected an initial of"),
    ([(START, '3072], role = "dense", initial = "normal"')], "expected std = a real number"),
    ([(INPUTS, f"[proof.constants]\nWIDTH = 4\n\n{INPUTS}")], "expected constants of the proof to be hyperparameters"),
    ([("steps = 20\n", "")], "steps"),
    ([(INPUTS, f"{WAIVED}some_cpus = 1\n\n{INPUTS}")], "some_cpus"),
    ([(INPUTS, WAIVED.replace("bound = 1e-5", "bound = 1") + INPUTS)], "bound"),
]


@pytest.mark.parametrize(("edits", "message"), REFUSED)
def test_what_is_refused(folder, edits, message):
    with pytest.raises(RosettaError, match=re.escape(message)):
        edited(folder, *edits).layers  # noqa: B018


@pytest.mark.parametrize("initial", ["he_uniform", "uniform", "normal", "ones"])
def test_parameters_are_drawn_as_wide_as_they_start(folder, initial):
    more = {"uniform": ", bound = 0.5", "normal": ", std = 0.5"}.get(initial, "")
    text = edited(folder, (START, f'3072], role = "dense", initial = "{initial}"{more}'))
    values = draws.initial_parameters(text)["fc1.weight"]
    centre = float(initial == "ones")
    half = {"he_uniform": (6 / 3072) ** 0.5, "uniform": 0.5, "normal": 3**0.5 / 2, "ones": 0.1}[initial]
    assert 0.99 * half < abs(values - centre).max() <= half * 1.0001


def test_tokens_are_padded_in_front(folder):
    text = edited(
        folder,
        ('shape = [3, 32, 32]\ndraw = "patch"              # black but for one square of pixels in [0, 1)\npatch = 8\n',
         'shape = [12]\ndraw = "tokens"\nclasses = 50\npadded = true\n'),
    )  # fmt: skip
    tokens = draws.batch(text, "x", 300)["images"]
    assert tokens.shape == (300, 12) and tokens.min() == 0 and tokens.max() == 49
    first = [int((row != 0).argmax()) for row in tokens]
    assert min(first) == 0 and max(first) >= 10  # from none to nearly all
    assert sum((row[start:] == 0).mean() for row, start in zip(tokens, first, strict=True)) / 300 < 0.1
