"""Photos for a network that is not trained: whatever lies in a folder, or a sample of four.

Paths only: how a photo is decoded, scaled and cut is each framework's own affair, and part of what is proven.
"""

import os
from pathlib import Path

from dlrosetta.data import sources

ENDINGS = (".jpg", ".jpeg", ".png")
SAMPLE = Path(os.path.dirname(os.path.abspath(__file__))) / "sample" / "photos"


def photos():
    """Return the paths of all photos (.jpg, .png), in the order of their names: those in the data folder's `photos`,
    else the sample's (see `where`).
    """
    folder = sources.folder("photos")
    return photos_sample() if folder is None else _listed(Path(folder))


def photos_sample():
    """The paths of four photos, in RGB after decoding, each side between 160 and 315 pixels long."""
    return _listed(SAMPLE)


def is_complete(folder):
    """Whether there is a photo in `folder`."""
    return os.path.isdir(folder) and bool(_listed(Path(folder)))


def _listed(folder):
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
