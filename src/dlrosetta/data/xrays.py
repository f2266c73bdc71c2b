"""Chest X-rays with their findings from the publisher's layout, and synthetic ones in the same form.

Source: X. Wang et al., ChestX-ray8, CVPR 2017; https://nihcc.app.box.com/v/ChestXray-NIHCC. `Data_Entry_2017.csv` names
each image and its findings, joined by `|`; the images lie in `images/`. Which are for training says a column `Split`
(train, test) of that table, where there is one, else the publisher's `train_val_list.txt` and `test_list.txt`.

Paths only: how an image is decoded, scaled, cut and flipped is each framework's own affair, and part of what is proven.
"""

import csv
import os
from pathlib import Path

import numpy as np

from dlrosetta.data import sources
from dlrosetta.data.errors import DataError

TABLE = "Data_Entry_2017.csv"
NOTHING = "No Finding"
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
SAMPLE = Path(os.path.dirname(os.path.abspath(__file__))) / "sample" / "synthetic_xrays"


def chestxray():
    """Return `(train_paths, train_labels), (test_paths, test_labels)`.

    Paths are lists, labels int32 (N, C): 1 where the image has the finding, in the order of `chestxray_classes()`. With
    the sample, whose images are synthetic, N is 32 and 16 (see `where`). Raises DataError where the data folder holds a
    damaged copy.
    """
    return _read(_folder())


def chestxray_classes():
    """The findings that the publisher's table names, in alphabetical order; "No Finding" is none."""
    return _classes(_rows(_folder()))


def chestxray_sample():
    """What `chestxray` returns of the packaged sample: synthetic images that only look like X-rays from afar."""
    return _read(SAMPLE)


def is_complete(folder):
    """Whether the table is in `folder`, and the images beside it."""
    return os.path.isfile(os.path.join(folder, TABLE)) and os.path.isdir(os.path.join(folder, "images"))


def _folder():
    folder = sources.folder("chestxray")
    return SAMPLE if folder is None else Path(folder)


def _rows(folder):
    with open(str(folder / TABLE), newline="") as lines:
        rows = list(csv.DictReader(lines))
    for name in ("Image Index", "Finding Labels"):
        if not rows or name not in rows[0]:
            raise DataError("%s: expected a column %r. Received: none" % (folder / TABLE, name))
    return rows


def _classes(rows):
    return tuple(sorted({name for row in rows for name in row["Finding Labels"].split("|")} - {NOTHING}))


def _read(folder):
    rows, images = _rows(folder), folder / "images"
    classes = _classes(rows)
    lists = None
    if "Split" not in rows[0]:
        lists = {part: set((folder / name).read_text().split()) for part, name in LISTS.items()}
    sets = []
    for part in ("train", "test"):
        chosen = [row for row in rows if (row["Image Index"] in lists[part] if lists else row["Split"] == part)]
        missing = [row["Image Index"] for row in chosen if not (images / row["Image Index"]).is_file()]
        if missing:
            raise DataError("expected %s in %s and %d others. Received: none" % (missing[0], images, len(missing) - 1))
        labels = [[name in row["Finding Labels"].split("|") for name in classes] for row in chosen]
        paths = [images / row["Image Index"] for row in chosen]
        sets.append((paths, np.array(labels, np.int32).reshape(len(paths), len(classes))))
    return tuple(sets)
