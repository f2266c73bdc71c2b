"""Where each data set lies on this machine, where its publisher has it, and what stands in for it."""

import importlib
import os
import sys
from collections import namedtuple

from dlrosetta.data.errors import DataError

Where = namedtuple("Where", "name kind path")
Where.__doc__ = "`name` for people, `kind` 'real' or 'sample', `path` of the folder or None."

# Name: the module that reads it and knows when it is complete, folder below the data folder, for people, publisher's
# archive (None: whatever people put there), its checksum, its size in bytes, the sample.
_Source = namedtuple("_Source", "module folder title address checksum size sample")
SOURCES = {
    "cifar10": _Source(
        "cifar",
        "cifar-10-batches-bin",
        "CIFAR-10",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "md5:c32a1d4ab5d03f1284b67883e8d87530",  # stated on https://www.cs.toronto.edu/~kriz/cifar.html
        170052171,
        "handwritten digits, the sample that ships with dlrosetta",
    ),
    "imdb": _Source(
        "reviews",
        "aclImdb",
        "IMDb reviews",
        "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
        # Checksum and size: the publisher states none; this is Hugging Face's, in its dataset_infos of imdb 1.0.0.
        # torchtext has md5:7c2ac02c03563afcf9b574c7e56c153a of the same file,
        # https://github.com/pytorch/text/blob/003eae6f1eed2665451c972107b135abd7e731d6/torchtext/datasets/imdb.py
        "sha256:c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
        84125825,
        "paragraphs of two novels by Jane Austen, the sample that ships with dlrosetta",
    ),
    # 42 GB in twelve archives behind a page that asks to be read: nothing that a program should fetch unasked.
    "chestxray": _Source(
        "xrays",
        "chestxray",
        "chest X-rays",
        None,
        None,
        0,
        "synthetic X-rays, the sample that ships with dlrosetta",
    ),
    "photos": _Source("photos", "photos", "photos", None, None, 0, "four photos, the sample that ships with dlrosetta"),
}
# Other forms of the same set, which is fetched and locked under its own name.
FORMS = {"imdb_bytes": "imdb"}


def data_dir():
    """The data folder: `ROSETTA_DATA`, else `dlrosetta/data` in the user's folder for data."""
    named = os.environ.get("ROSETTA_DATA")
    if named:
        return os.path.abspath(os.path.expanduser(named))
    if sys.platform == "darwin":
        return os.path.expanduser("~/Library/Application Support/dlrosetta/data")
    return os.path.join(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "dlrosetta", "data")


def folder(name):
    """The folder of the real set called `name`, or None where only the sample is there."""
    source = _source(name)
    if os.environ.get("ROSETTA_DATA") == "sample":
        return None
    path = os.path.join(data_dir(), source.folder)
    # Imported here, since it imports this module.
    module = importlib.import_module("dlrosetta.data." + source.module)
    return path if module.is_complete(path) else None


def where(name):
    """Which data a version would read now: a `Where`."""
    path = folder(name)
    source = _source(name)
    return Where(source.title, "real", path) if path else Where(source.sample, "sample", None)


def fetch(name, progress=None, address=None, checksum=None, **patience):
    """Download and unpack the set called `name` unless it is there; return its folder. `progress(done, total)` hears of
    bytes.

    `address` and `checksum` take the place of the publisher's; `patience` is `tries`, `stall` and `pause` of
    `download`. Raises DataError.
    """
    from dlrosetta.data.download import download, locked, unpack

    source = _source(name)
    root = data_dir()
    if os.environ.get("ROSETTA_DATA") == "sample":
        raise DataError("expected a data folder to fetch into, received ROSETTA_DATA=sample", "unset ROSETTA_DATA")
    with locked(root, FORMS.get(name, name)):
        path = folder(name)
        if path:
            return path
        if source.address is None:
            raise DataError("expected %s in %s. Received: none" % (source.title, os.path.join(root, source.folder)))
        archive = os.path.join(root, os.path.basename(source.address))
        download(address or source.address, archive, checksum or source.checksum, 2 * source.size, progress, **patience)
        unpack(archive, root, source.folder)
        os.unlink(archive)
    return os.path.join(root, source.folder)


def _source(name):
    if name not in SOURCES and name not in FORMS:
        known = ", ".join(sorted([*SOURCES, *FORMS]))
        raise DataError("expected a data set: %s. Received: %r" % (known, name))
    return SOURCES[FORMS.get(name, name)]
