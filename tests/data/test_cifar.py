"""CIFAR-10 and its stand-in: shapes, ranges, and a damaged copy that is not taken for an absent one."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dlrosetta import data
from dlrosetta.data import cifar

PACKAGE = Path(data.__file__).parent


def test_the_set_at_hand_has_the_form_that_the_texts_expect():
    where = data.where("cifar10")
    (images, labels), (test_images, test_labels) = data.cifar10()
    assert images.dtype == np.float32 and labels.dtype == np.int32
    assert images.shape[1:] == test_images.shape[1:] == (3, 32, 32)
    assert images.min() == 0 and images.max() == 1
    if where.kind == "real":
        assert np.bincount(labels).tolist() == [5000] * 10 and np.bincount(test_labels).tolist() == [1000] * 10
        # The published channel means, https://www.cs.toronto.edu/~kriz/cifar.html and every copy since.
        assert images.mean((0, 2, 3), dtype=np.float64) == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
    else:
        assert (len(labels), len(test_labels)) == (1437, 360)


def test_the_sample_is_the_digits(monkeypatch):
    monkeypatch.setenv("ROSETTA_DATA", "sample")
    (images, labels), (test_images, test_labels) = data.cifar10()
    assert (len(images), len(test_images)) == (1437, 360)
    assert labels[:10].tolist() == list(range(10))
    assert np.array_equal(images[:, 0], images[:, 2])
    assert np.array_equal(images[:, :, ::4, ::4].repeat(4, 2).repeat(4, 3), images)
    assert np.bincount(np.concatenate([labels, test_labels])).tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]
    (last, _), _ = data.cifar10(channels_last=True)
    assert np.array_equal(last, images.transpose(0, 2, 3, 1)) and last.flags["C_CONTIGUOUS"]
    assert data.where("cifar10").kind == "sample"


def test_a_damaged_copy_is_an_error(monkeypatch, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(b"x" * 100)
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match=r"data_batch_1\.bin: expected 30730000 bytes\. Received: 100") as caught:
        data.cifar10()
    assert str(folder) in caught.value.hint


def test_an_unknown_set_is_named():
    with pytest.raises(data.DataError, match="expected a data set: chestxray, cifar10"):
        data.where("cifar11")


def test_nothing_but_the_standard_library_and_numpy_is_imported():
    script = (
        "import sys; before = set(sys.modules); import numpy; numpys = set(sys.modules);"
        "import dlrosetta.data, dlrosetta.data.download;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - numpys})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - set(sys.stdlib_module_names) == {"dlrosetta"}


@pytest.mark.parametrize(
    "path", sorted([*PACKAGE.glob("*.py"), *(PACKAGE.parent / "worker").glob("*.py")]), ids=lambda path: path.name
)
def test_old_interpreters_can_read_it(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 6))


def test_the_sample_is_plain_bytes():
    records = np.fromfile(cifar.SAMPLE, np.uint8).reshape(1797, 65)
    assert records[:, 0].max() == 9 and records[:, 1:].max() == 16
