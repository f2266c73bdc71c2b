"""IMDb's reviews from the publisher's layout, as words and as bytes, and paragraphs of two novels in their form.

Source: A. Maas et al., Learning Word Vectors for Sentiment Analysis, ACL 2011;
https://ai.stanford.edu/~amaas/data/sentiment/. Each review is one file, `{train,test}/{neg,pos}/NUMBER_STARS.txt`.

Reviews come in a fixed order that alternates between the classes: the negative review with the lowest number, the
positive one with the lowest, the negative one with the next, and so on. Neighbours are often about the same film, so
training must shuffle them.
"""

import hashlib
import io
import os
import re
import tempfile
from collections import Counter
from itertools import repeat

import numpy as np

from dlrosetta.data import sources
from dlrosetta.data.errors import DataError

LABELS = ("neg", "pos")
FILES = 12500  # in each of train/neg, train/pos, test/neg and test/pos
PADDING, START, UNKNOWN, FIRST_WORD = range(4)
# What Keras's Tokenizer filters, beside tab and newline: all of ASCII's punctuation but the apostrophe,
# https://github.com/keras-team/keras/blob/03e9b406fd7f0e25026e9579d393b8f1f23af3d1/keras/preprocessing/text.py
PUNCTUATION = b'!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'
RULE = 1  # raise it with every change to what `imdb` returns, so that caches of the former rule are not read
SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample", "austen.txt")
SAMPLE_TRAIN = 900

_NAME = re.compile(r"([0-9]+)_[0-9]+\.txt$")
_SPACES = bytes.maketrans(PUNCTUATION, b" " * len(PUNCTUATION))


def imdb(vocabulary=30000, length=150):
    """Return `(train_tokens, train_labels), (test_tokens, test_labels)`.

    Tokens are int32 (N, length), labels int32 (N,): 0 negative, 1 positive. With the real set N is 25,000 and 25,000,
    with the sample 900 and 200 (see `where`). Every second label is 1: shuffle.

    A review is lower-cased, its punctuation becomes spaces, and it is split at ASCII's white space. Words are ranked by
    how often the training reviews have them, equals alphabetically (by code point). 0 is padding, 1 the start of a
    review, 2 a word that is not among the `vocabulary - 3` first; those have the ids from 3 on. Of the start and the
    words that follow it the last `length` ids are kept, with padding in front.

    What was read is kept beside the data as imdb-VOCABULARY-LENGTH.npz, where that folder can be written. Raises
    DataError where the data folder holds a damaged copy.
    """
    _check(vocabulary, length)
    folder = sources.folder("imdb")
    if folder is None:
        return imdb_sample(vocabulary, length)
    cache = os.path.join(os.path.dirname(folder), "imdb-%d-%d.npz" % (vocabulary, length))
    key = _key(folder, vocabulary, length)
    found = _load(cache, key)
    if found is None:
        labels = np.tile(np.arange(2, dtype=np.int32), FILES)
        train, test = _encode(_reviews(folder, "train"), _reviews(folder, "test"), vocabulary, length)
        found = (train, labels), (test, labels.copy())
        _save(cache, key, found)
    return found


def imdb_sample(vocabulary=30000, length=150):
    """The packaged stand-in: 1,100 paragraphs of at least 20 words, labelled 0 where they are of Sense and Sensibility
    and 1 where of Pride and Prejudice. Same form as `imdb`.
    """
    _check(vocabulary, length)
    texts, labels = _sample()
    cut = SAMPLE_TRAIN
    train, test = _encode(texts[:cut], texts[cut:], vocabulary, length)
    return (train, labels[:cut].copy()), (test, labels[cut:].copy())


def imdb_bytes(length=128):
    """Return `(train_inputs, train_targets), (test_inputs, test_targets)`, int32 (N, length) each, of values 0–255.

    The files' bytes, which are UTF-8, are joined in the order of `imdb` by one newline between two reviews, and cut
    into consecutive windows of `length + 1` bytes, each of which begins with the last byte of the one before. Inputs
    are a window's first `length` bytes and targets its last. What does not fill a window at the end is left out. With
    the real set and 128 bytes N is 259,045 and 252,935, with the sample 2,795 and 726 (see `where`). Raises DataError
    where the data folder holds a damaged copy.
    """
    _check(FIRST_WORD + 1, length)
    folder = sources.folder("imdb")
    if folder is None:
        return imdb_bytes_sample(length)
    return _windows(_reviews(folder, "train"), length), _windows(_reviews(folder, "test"), length)


def imdb_bytes_sample(length=128):
    """The packaged stand-in, the paragraphs of `imdb_sample`. Same form as `imdb_bytes`."""
    _check(FIRST_WORD + 1, length)
    texts, _ = _sample()
    return _windows(texts[:SAMPLE_TRAIN], length), _windows(texts[SAMPLE_TRAIN:], length)


def is_complete(folder):
    """Whether `folder` holds the labelled reviews; `unsup` may be absent. A wrong number of them is an error, not an
    absence.
    """
    paths = [os.path.join(folder, part, label) for part in ("train", "test") for label in LABELS]
    if not any(os.path.isdir(path) for path in paths):
        return False
    for path in paths:
        count = len(_names(path))
        if count != FILES:
            raise DataError(
                "%s: expected %d reviews. Received: %d" % (path, FILES, count), "remove %s and fetch it again" % folder
            )
    return True


# -- reading -----------------------------------------------------------------------------------------------------------


def _check(vocabulary, length):
    if vocabulary <= FIRST_WORD or length < 1:
        raise ValueError(
            "expected a vocabulary of at least %d and a length of at least 1. Received: %d and %d"
            % (FIRST_WORD + 1, vocabulary, length)
        )


def _names(path):
    """The names of the reviews' files in a folder, by their numbers."""
    if not os.path.isdir(path):
        return []
    try:
        found = os.listdir(path)
    except OSError as error:
        raise DataError("%s: could not be read: %s" % (path, error.strerror)) from error
    return sorted(filter(_NAME.match, found), key=lambda name: (int(_NAME.match(name).group(1)), name))


def _reviews(folder, part):
    """Yield the reviews' bytes in the order that the top of this file states."""
    places = [os.path.join(folder, part, label) for label in LABELS]
    paths = [[os.path.join(place, name) for name in _names(place)] for place in places]
    for number in range(FILES):
        for path in (paths[0][number], paths[1][number]):
            try:
                with open(path, "rb") as file:
                    text = file.read()
            except OSError as error:
                raise DataError(
                    "%s: could not be read: %s" % (path, error.strerror), "remove %s and fetch it again" % folder
                ) from error
            yield text


def _sample():
    """The sample's paragraphs as bytes, and their labels."""
    with open(SAMPLE, "rb") as file:
        lines = [line.split(b"\t") for line in file.read().splitlines()]
    return [text for _, text in lines], np.array([int(label) for label, _ in lines], np.int32)


def _words(text):
    # Lower-cased as Unicode, then split as bytes: fast, and the same in all versions of Python.
    return text.decode("utf-8", "replace").lower().encode("utf-8").translate(_SPACES).split()


def _encode(train, test, vocabulary, length):
    """The tokens of the training and of the test reviews, each (N, length)."""
    counts = Counter()
    tails = []  # joined again, since a list of bytes objects takes ten times the memory
    for text in train:
        words = _words(text)
        counts.update(words)
        tails.append(b" ".join(words[-length:]))
    ranked = sorted(sorted(counts), key=counts.get, reverse=True)  # stable: equals stay in the order of the alphabet
    ids = {word: number for number, word in enumerate(ranked[: vocabulary - FIRST_WORD], FIRST_WORD)}
    return _tokens((tail.split() for tail in tails), ids, length), _tokens(map(_words, test), ids, length)


def _tokens(reviews, ids, length):
    rows = []
    for words in reviews:
        row = np.zeros(length, np.int32)
        kept = [START]
        kept.extend(map(ids.get, words[-length:], repeat(UNKNOWN)))
        kept = kept[-length:]
        row[length - len(kept) :] = kept
        rows.append(row)
    return np.array(rows, np.int32).reshape(-1, length)


def _windows(texts, length):
    stream = np.frombuffer(b"\n".join(texts), np.uint8)
    count = max(len(stream) - 1, 0) // length
    inputs, targets = stream[: count * length], stream[1 : count * length + 1]
    return tuple(side.reshape(count, length).astype(np.int32) for side in (inputs, targets))


# -- the cache ---------------------------------------------------------------------------------------------------------
# Several programs may read and write it at once: it is written beside and renamed, so that each reader sees a whole
# one, and it is read only where the key in it says that it is of this rule and of these very files.


def _key(folder, vocabulary, length):
    """A hash of all that the tokens depend on: the rule, its numbers, and each file's name, size and time."""
    digest = hashlib.sha256(b"%d %d %d" % (RULE, vocabulary, length))
    for part in ("train", "test"):
        for label in LABELS:
            with os.scandir(os.path.join(folder, part, label)) as entries:
                facts = sorted((entry.name, entry.stat()) for entry in entries)
            for name, stat in facts:
                digest.update(b"%s %d %d\n" % (os.fsencode(name), stat.st_size, stat.st_mtime_ns))
    return np.frombuffer(digest.digest(), np.uint8)


def _load(cache, key):
    try:
        with open(cache, "rb") as file, np.load(file, allow_pickle=False) as stored:
            if not np.array_equal(stored["key"], key):
                return None
            return tuple((stored[part + "_tokens"], stored[part + "_labels"]) for part in ("train", "test"))
    except Exception:  # absent, cut off, or another thing of that name: whatever it is, the reviews are still there
        return None


def _save(cache, key, found):
    (train_tokens, train_labels), (test_tokens, test_labels) = found
    whole = io.BytesIO()
    np.savez(
        whole,
        key=key,
        train_tokens=train_tokens,
        train_labels=train_labels,
        test_tokens=test_tokens,
        test_labels=test_labels,
    )
    beside = None
    try:
        root, name = os.path.split(cache)
        handle, beside = tempfile.mkstemp(prefix=".%s." % name, suffix=".tmp", dir=root)
        with os.fdopen(handle, "wb") as file:
            file.write(whole.getbuffer())
        os.chmod(beside, os.stat(root).st_mode & 0o666)  # mkstemp's is for its owner alone
        os.rename(beside, cache)
    except OSError:  # a cache that cannot be written costs time, not the data
        if beside is not None and os.path.exists(beside):
            os.unlink(beside)
