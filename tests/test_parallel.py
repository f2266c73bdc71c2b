"""Two devices make the parameters of one: real processes that average gradients, real sharding. Faults are caught."""

import shutil

import pytest

from dlrosetta import frameworks, paths, texts
from dlrosetta.proof import run

KNOWN = frameworks.find()
TEXTS = {name: texts.load(folder) for name, folder in texts.find(paths.stone_dirs()).items()}
PARALLEL = [
    (name, slug)
    for name, text in TEXTS.items()
    for slug, one in KNOWN.items()
    if text.data_parallel and "data-parallel" in one.can and run.version_of(text, one).is_file()
]
USUAL = ("flax", "torch")
FAULTS = [
    # Each process trains alone, on its part: nobody averages.
    ("torch", ("DistributedDataParallel(model) if REPLICAS > 1 else model", "model"), "step 1 of process 1"),
    # A loss that is made larger by the number of processes, as if gradients were averaged twice.
    ("torch", ("    loss.backward()", "    (loss * REPLICAS).backward()"), "step 1/m/"),
    # Every device does everything.
    ("flax", ('PartitionSpec("devices")', "PartitionSpec()"), "devices"),
]


@pytest.mark.frameworks
@pytest.mark.parametrize(
    ("name", "slug"), [pytest.param(*one, marks=[] if one[1] in USUAL else [pytest.mark.wide]) for one in PARALLEL]
)
def test_two_devices_are_one(name, slug):
    cells = run.prove(TEXTS[name], [KNOWN[slug]], list(run.DTYPES), devices=2)
    for cell in cells:
        if cell.dtype in KNOWN[slug].dtypes:
            variant = TEXTS[name].variant_for(slug, 2)
            expected = "waived" if variant and variant["constants"] else "proven"
            assert cell.verdict == expected, (cell.reason, cell.detail)
            assert {"devices", "losses", "trained logits"} <= {check.name for check in cell.checks}


def prove_edited(folder, slug, old, new):
    """The cell on two devices, in float32, of a copy of the version with one place changed."""
    (text,) = [text for text in TEXTS.values() if text.data_parallel]
    shutil.copytree(text.folder, folder / text.name)
    version = folder / text.name / KNOWN[slug].version_file(text.name)
    source = version.read_text(encoding="utf-8")
    assert old in source
    version.write_text(source.replace(old, new), encoding="utf-8")
    (cell,) = run.prove(texts.load(version.parent), [KNOWN[slug]], ["float32"], devices=2)
    return cell


@pytest.mark.frameworks
@pytest.mark.parametrize(("slug", "edit", "first"), FAULTS)
def test_a_fault_is_caught(tmp_path, slug, edit, first):
    cell = prove_edited(tmp_path, slug, *edit)
    assert cell.verdict == "differs", (cell.reason, cell.detail)
    wrong = [check.name for check in cell.checks if check.verdict == "differs"]
    assert any(name.startswith(first) for name in wrong), wrong
    assert cell.first_departure["section"] == "Train step"


@pytest.mark.frameworks
def test_of_processes_the_one_that_failed_is_told(tmp_path):
    """The other one is ended, for it would wait in vain; that explains nothing."""
    fails = "    if RANK == 1:\n        raise ValueError('only here')\n    loss.backward()"
    cell = prove_edited(tmp_path, "torch", "    loss.backward()", fails)
    assert (cell.verdict, cell.reason) == ("failed", "ValueError: only here")
    assert cell.first_departure["section"] == "Train step"


def test_what_is_not_spread_says_so(place):
    place.plant("tiny")
    cells = place.prove("tiny", arguments=("--dtype", "float32", "--devices", "2"))[1]
    assert (cells["tiny"]["verdict"], cells["tiny"]["reason"]) == (
        "cannot",
        "no version of `mine` spreads a batch over devices",
    )
