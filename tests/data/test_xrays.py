"""Chest X-rays: the publisher's layout, and the synthetic sample, which is what its generator makes."""

import numpy as np
import pytest
from PIL import Image

from dlrosetta import data, synthetic
from dlrosetta.data import DataError, xrays


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A set of eight and four images in the data folder, in the form of the shipped one."""
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path))
    synthetic.write(tmp_path / "chestxray", 8, 4, 16)
    return tmp_path / "chestxray"


def test_the_sample_is_what_its_generator_makes(tmp_path):
    synthetic.write(tmp_path, 32, 16, 280)
    shipped = sorted(path for path in xrays.SAMPLE.rglob("*") if path.is_file())
    assert len(shipped) == 49
    for path in shipped:
        made = tmp_path / path.relative_to(xrays.SAMPLE)
        if path.suffix == ".png":
            assert np.array_equal(np.asarray(Image.open(made)), np.asarray(Image.open(path))), path.name
        else:
            assert made.read_text() == path.read_text()


def test_every_finding_is_there_both_ways():
    for paths, labels in data.chestxray_sample():
        assert labels.shape == (len(paths), 14)
        assert ((labels.sum(axis=0) > 0) & (labels.sum(axis=0) < len(paths))).all()


def test_classes_come_from_the_table_and_no_finding_is_none(folder):
    table = folder / xrays.TABLE
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(f"{line.split(',')[0]},B|A,0,train" for line in lines[1:3])]) + "\n")
    assert data.chestxray_classes() == ("A", "B")
    (paths, labels), (none, empty) = data.chestxray()
    assert (labels.tolist(), len(paths), none, empty.shape) == ([[1, 1], [1, 1]], 2, [], (0, 2))


def test_without_a_column_the_publishers_lists_say_what_is_for_training(folder):
    table = folder / xrays.TABLE
    rows = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("\n".join(",".join(row[:3]) for row in rows) + "\n")
    (folder / "train_val_list.txt").write_text("\n".join(row[0] for row in rows[1:3]))
    (folder / "test_list.txt").write_text(rows[5][0])
    (train, _), (test, _) = data.chestxray()
    assert [path.name for path in (*train, *test)] == [rows[1][0], rows[2][0], rows[5][0]]


def test_a_missing_image_is_named(folder):
    (folder / "images" / "00000003_000.png").unlink()
    with pytest.raises(DataError, match=r"00000003_000\.png"):
        data.chestxray()
