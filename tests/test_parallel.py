"""Two devices make the parameters of one: real processes that average gradients, real sharding. Faults are caught."""

import shutil
import subprocess
from dataclasses import replace
from fnmatch import fnmatch

import pytest
from planted import TEXT

from dlrosetta import environments, frameworks, paths, texts
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
    ("keras_jax", ("keras.distribution.set_distribution(keras.distribution.DataParallel())", "pass"), "devices"),
    ("tensorflow", ("tf.split(batch, REPLICAS)", "[batch] * REPLICAS"), "step 1/"),
    ("keras_tensorflow", ('DEVICES > 1 and BACKEND == "tensorflow"', "False"), "step 1/"),
    # Gradients are added up, not averaged.
    ("tensorflow", ("images, labels) / REPLICAS", "images, labels)"), "step 1/m/"),
    # Gradients are averaged twice.
    ("tensorflow", ("images, labels) / REPLICAS", "images, labels) / REPLICAS**2"), "step 1/m/"),
    # As in PyTorch.
    (
        "paddle",
        ("paddle.DataParallel(DenseNet()) if REPLICAS > 1 else DenseNet()", "DenseNet()"),
        "step 1 of process 1",
    ),
    ("paddle", ("    loss.backward()", "    (loss * REPLICAS).backward()"), "step 1/m/"),
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
            waived = [check.name for check in cell.checks if check.verdict == "waived"]
            for waiver in TEXTS[name].waivers:
                if "devices" in waiver and slug in waiver["frameworks"] and cell.dtype == waiver["dtype"]:
                    assert all(any(fnmatch(one, pattern) for one in waived) for pattern in waiver["checks"]), waiver


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
@pytest.mark.parametrize(
    ("slug", "edit", "first"),
    [pytest.param(*one, marks=[] if one[0] in USUAL else [pytest.mark.wide]) for one in FAULTS],
)
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


@pytest.mark.frameworks
@pytest.mark.wide
def test_keras_still_cannot_spread_on_pytorch():
    """Then it has a version, and no longer a reason."""
    one = KNOWN["keras_torch"]
    assert "https://" in one.cannot["data-parallel"]
    python = environments.ensure_all([one])[one.slug]
    command = [python, "-c", "import keras; keras.distribution.DataParallel()"]
    done = subprocess.run(command, env={"KERAS_BACKEND": "torch"}, capture_output=True, text=True, check=False)
    assert "AttributeError" in done.stderr


def test_who_cannot_spread_says_why():
    (text,) = [text for text in TEXTS.values() if text.data_parallel]
    one = replace(KNOWN["keras_torch"], cannot={"data-parallel": "because: https://x"})
    assert (run.why_not(text, one, 1), run.why_not(text, one, 2)) == (None, "because: https://x")


def test_what_is_waived_on_two_devices_is_not_on_one(place):
    place.plant("tiny", ("+ gradient", "+ 1.1 * gradient"))
    toml = place.stone / TEXT / "text.toml"
    waiver = '[[waivers]]\nframeworks = ["tiny"]\ndtype = "float32"\nchecks = ["*"]\nbound = 9.0\nreason = "because"\n'
    for more, verdict in ("devices = 2\n", "differs"), ("", "waived"):
        before = toml.read_text()
        toml.write_text(before + waiver + more)
        assert place.prove("tiny")[1]["tiny"]["verdict"] == verdict
        toml.write_text(before)


def test_what_is_not_spread_says_so(place):
    place.plant("tiny")
    cells = place.prove("tiny", arguments=("--dtype", "float32", "--devices", "2"))[1]
    assert (cells["tiny"]["verdict"], cells["tiny"]["reason"]) == (
        "cannot",
        "no version of `mine` spreads a batch over devices",
    )
