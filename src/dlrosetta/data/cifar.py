"""CIFAR-10 from the publisher's binary layout, and handwritten digits in its shape.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; https://www.cs.toronto.edu/~kriz/cifar.html.
Each record is one label byte and 3072 bytes of pixels: red, green, blue planes of 32×32, row by row.
"""

import os

import numpy as np

from dlrosetta.data import sources
from dlrosetta.data.errors import DataError

TRAIN_FILES = tuple("data_batch_%d.bin" % number for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
RECORDS = 10000  # a file
RECORD_BYTES = 1 + 3 * 32 * 32
SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample", "digits.bin")
SAMPLE_BYTES = 1 + 8 * 8  # of a record: the label and the pixels
SAMPLE_TRAIN = 1437


def cifar10(channels_last=False):
    """Return `(train_images, train_labels), (test_images, test_labels)`.

    Images are float32 in 0–1, (N, 3, 32, 32) or with `channels_last` (N, 32, 32, 3); labels int32 (N,). With the real
    set N is 50,000 and 10,000, with the sample 1,437 and 360 (see `where`). Raises DataError where the data folder
    holds a damaged copy.
    """
    folder = sources.folder("cifar10")
    if folder is None:
        return cifar10_sample(channels_last)
    return _read(folder, TRAIN_FILES, channels_last), _read(folder, TEST_FILES, channels_last)


def cifar10_sample(channels_last=False):
    """The packaged stand-in: 1,797 handwritten digits of 8×8, each pixel repeated 4×4 in three equal channels. Same
    form as `cifar10`.
    """
    records = np.fromfile(SAMPLE, np.uint8).reshape(-1, SAMPLE_BYTES)
    small, labels = records[:, 1:].reshape(-1, 8, 8), records[:, 0].astype(np.int32)
    grey = (small.astype(np.float32) / 16).repeat(4, axis=1).repeat(4, axis=2)  # (N, 32, 32)
    images = np.stack([grey] * 3, axis=3 if channels_last else 1)
    cut = SAMPLE_TRAIN
    return (images[:cut].copy(), labels[:cut].copy()), (images[cut:].copy(), labels[cut:].copy())


def is_complete(folder):
    """Whether `folder` holds the set. A file of the wrong size is an error, not an absence."""
    paths = [os.path.join(folder, name) for name in TRAIN_FILES + TEST_FILES]
    present = [path for path in paths if os.path.isfile(path)]
    if not present:
        return False
    for path in paths:
        size = os.path.getsize(path) if os.path.isfile(path) else 0
        if size != RECORDS * RECORD_BYTES:
            expected = RECORDS * RECORD_BYTES
            raise DataError(
                "%s: expected %d bytes. Received: %d" % (path, expected, size), "remove %s and fetch it again" % folder
            )
    return True


def _read(folder, names, channels_last):
    count = RECORDS * len(names)
    images = np.empty((count, 32, 32, 3) if channels_last else (count, 3, 32, 32), np.float32)
    labels = np.empty(count, np.int32)
    for number, name in enumerate(names):
        records = np.fromfile(os.path.join(folder, name), np.uint8).reshape(RECORDS, RECORD_BYTES)
        here = slice(number * RECORDS, (number + 1) * RECORDS)
        labels[here] = records[:, 0]
        pixels = records[:, 1:].reshape(RECORDS, 3, 32, 32)
        images[here] = pixels.transpose(0, 2, 3, 1) if channels_last else pixels
    images /= 255
    return images, labels
