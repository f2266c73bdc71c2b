"""The data sets of the texts, in the publishers' own layouts: standard library and numpy only, importable by every
version.

Reading never downloads. Where the data folder has the real set it is read; where it does not, a small real sample that
ships with the package stands in, and `where` says which. `ROSETTA_DATA` names the folder; the word `sample` in its
place always gives the sample.
"""

from dlrosetta.data.cifar import cifar10, cifar10_sample
from dlrosetta.data.errors import DataError
from dlrosetta.data.photos import photos, photos_sample
from dlrosetta.data.reviews import imdb, imdb_bytes, imdb_bytes_sample, imdb_sample
from dlrosetta.data.sources import data_dir, fetch, where
from dlrosetta.data.xrays import chestxray, chestxray_classes, chestxray_sample

# By the name that text.toml gives in `data`: readers of the packaged sample, for proofs.
SAMPLES = {
    "chestxray": chestxray_sample,
    "cifar10": cifar10_sample,
    "imdb": imdb_sample,
    "imdb_bytes": imdb_bytes_sample,
    "photos": photos_sample,
}

__all__ = [
    "SAMPLES",
    "DataError",
    "chestxray",
    "chestxray_classes",
    "chestxray_sample",
    "cifar10",
    "cifar10_sample",
    "data_dir",
    "fetch",
    "imdb",
    "imdb_bytes",
    "imdb_bytes_sample",
    "imdb_sample",
    "photos",
    "photos_sample",
    "where",
]
