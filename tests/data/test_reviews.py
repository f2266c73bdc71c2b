"""IMDb's reviews and their stand-in: the rule for words and the one for bytes, damaged copies, and the cache."""

import gzip
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dlrosetta import data
from dlrosetta.data import reviews

# By folder: file names and texts, so few that the words can be counted by eye. "film" is in three of the training
# reviews, "a" and "good" in two, and the rest in one.
TINY = {
    "train/neg": {"10_1.txt": "Bad FILM.", "9_4.txt": "a film<br />A\tNOT-good\none"},
    "train/pos": {"0_10.txt": "it's good: É film", "1_7.txt": ""},
    "test/neg": {"0_2.txt": "An unseen film, bad", "1_3.txt": "é"},
    "test/pos": {"2_8.txt": "GOOD good", "3_9.txt": "film"},
}
# film 3×; a, good 2×; then by code point.
WORDS = ["film", "a", "good", "bad", "br", "it's", "not", "one", "é"]
FILM, A, GOOD, BAD, BR, ITS, NOT, ONE, E = range(3, 12)


def write(root, texts=TINY):
    for folder, files in texts.items():
        (root / "aclImdb" / folder).mkdir(parents=True)
        for name, text in files.items():
            (root / "aclImdb" / folder / name).write_bytes(text.encode())


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The set with two reviews a folder, in a data folder of its own."""
    monkeypatch.setattr(reviews, "FILES", 2)
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path))
    write(tmp_path)
    return tmp_path


def rows(tokens):
    return [row.tolist() for row in tokens]


# -- words -------------------------------------------------------------------------------------------------------------


def test_the_rule(tiny):
    (tokens, labels), (test_tokens, test_labels) = data.imdb(length=8)
    assert tokens.dtype == labels.dtype == test_tokens.dtype == test_labels.dtype == np.int32
    assert labels.tolist() == test_labels.tolist() == [0, 1, 0, 1]
    assert rows(tokens) == [
        [1, A, FILM, BR, A, NOT, GOOD, ONE],  # review 9 comes before 10
        [0, 0, 0, 1, ITS, GOOD, E, FILM],
        [0, 0, 0, 0, 0, 1, BAD, FILM],
        [0, 0, 0, 0, 0, 0, 0, 1],  # nothing was written
    ]
    assert rows(test_tokens) == [
        [0, 0, 0, 1, 2, 2, FILM, BAD],
        [0, 0, 0, 0, 0, 1, GOOD, GOOD],
        [0, 0, 0, 0, 0, 0, 1, E],
        [0, 0, 0, 0, 0, 0, 1, FILM],
    ]


def test_the_end_of_a_long_review_is_kept(tiny):
    (tokens, _), (test_tokens, _) = data.imdb(length=3)
    assert rows(tokens)[:2] == [[NOT, GOOD, ONE], [GOOD, E, FILM]]
    assert rows(test_tokens)[:2] == [[2, FILM, BAD], [1, GOOD, GOOD]]
    assert rows(data.imdb(length=1)[0][0]) == [[ONE], [FILM], [FILM], [1]]


@pytest.mark.parametrize("vocabulary", [4, 6, 9, 12, 13])
def test_words_beyond_the_vocabulary_are_unknown(tiny, vocabulary):
    (tokens, _), (test_tokens, _) = data.imdb(vocabulary, 8)
    (whole, _), (test_whole, _) = data.imdb(length=8)
    assert np.array_equal(tokens, np.where(whole < vocabulary, whole, 2))
    assert np.array_equal(test_tokens, np.where(test_whole < vocabulary, test_whole, 2))


@pytest.mark.parametrize("arguments", [(3, 5), (10, 0), (10, -1)])
@pytest.mark.parametrize("read", [data.imdb, data.imdb_sample])
def test_numbers_without_sense_are_refused(tiny, read, arguments):
    with pytest.raises(ValueError, match="expected a vocabulary of at least 4 and a length of at least 1"):
        read(*arguments)


@pytest.mark.parametrize("read", [data.imdb_bytes, data.imdb_bytes_sample])
def test_a_length_without_sense_is_refused(tiny, read):
    with pytest.raises(ValueError, match="a length of at least 1"):
        read(0)


# -- bytes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 4, 7, 26, 27, 100])
def test_windows_cover_the_text_and_overlap_by_a_byte(tiny, length):
    text = "An unseen film, bad\nGOOD good\né\nfilm".encode()
    _, (inputs, targets) = data.imdb_bytes(length=length)
    assert inputs.dtype == targets.dtype == np.int32
    count = (len(text) - 1) // length
    assert inputs.shape == targets.shape == (count, length)
    assert bytes(inputs.ravel().tolist()) == text[: count * length]
    assert bytes(targets.ravel().tolist()) == text[1 : count * length + 1]
    assert inputs.flags["C_CONTIGUOUS"] and targets.flags["C_CONTIGUOUS"] and not np.shares_memory(inputs, targets)


def test_lower_case_and_mark_up_are_left_to_bytes(tiny):
    (inputs, _), _ = data.imdb_bytes(length=10)
    assert bytes(inputs[0].tolist()) == b"a film<br "


# -- the copy at hand --------------------------------------------------------------------------------------------------


@pytest.fixture
def real(monkeypatch, tmp_path):
    """The real set, if it is here, seen from a data folder of its own. Tests download nothing: it is 84 MB, its
    publisher's, and not to be handed on with this package. What the same code makes of its layout is tested on a set of
    that layout above.
    """
    folder = data.where("imdb").path
    if folder is None:
        # Whoever names a folder of data, as CI does, means it to be used.
        assert os.environ.get("ROSETTA_DATA", "sample") == "sample", "ROSETTA_DATA holds no IMDb reviews"
        pytest.skip("the IMDb reviews are not here: rosetta compare fetches them, or ROSETTA_DATA names their folder")
    (tmp_path / "aclImdb").symlink_to(folder)
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path))
    return tmp_path


def test_the_real_set_as_words(real):
    (tokens, labels), (test_tokens, test_labels) = data.imdb()
    assert tokens.shape == test_tokens.shape == (25_000, 150)
    assert np.bincount(labels).tolist() == np.bincount(test_labels).tolist() == [12_500] * 2
    assert tokens.min() == test_tokens.min() == 0 and tokens.max() == 29_999 >= test_tokens.max()
    # The most frequent words as everybody counts them: keras.datasets.imdb.get_word_index() begins with the same.
    known = {
        word: number for number, word in enumerate(["the", "and", "a", "of", "to", "is", "br", "in", "it", "i"], 3)
    }
    first = (real / "aclImdb" / "train" / "neg" / "0_3.txt").read_text(encoding="utf-8").lower()
    words = re.findall(r"[^\s!-&(-/:-@[-`{-~]+", first)  # all but white space and punctuation
    found = [
        (known[word], int(token)) for word, token in zip(words, tokens[0, -len(words) :], strict=True) if word in known
    ]
    assert len(found) > 10 and all(expected == received for expected, received in found)
    unknown = [(each == 2).sum() / (each >= 2).sum() for each in (tokens, test_tokens)]
    assert unknown == pytest.approx([0.01528, 0.02190], abs=1e-5)
    again = data.imdb()
    assert np.array_equal(again[0][0], tokens) and np.array_equal(again[1][1], test_labels)
    assert (real / "imdb-30000-150.npz").stat().st_size < 31e6


def test_the_real_set_as_bytes(real):
    (inputs, targets), (test_inputs, _) = data.imdb_bytes()
    assert inputs.shape == targets.shape == (259_045, 128) and test_inputs.shape == (252_935, 128)
    assert bytes(inputs[0, :48].tolist()) == b"Story of a man who has unnatural feelings for a "
    assert np.array_equal(inputs.ravel()[1:], targets.ravel()[:-1])
    assert inputs.min() > 0 and inputs.max() <= 0xF4  # what UTF-8 has


# -- the sample --------------------------------------------------------------------------------------------------------


def test_the_sample_is_two_novels(monkeypatch):
    monkeypatch.setenv("ROSETTA_DATA", "sample")
    where = data.where("imdb")
    assert where == data.where("imdb_bytes")
    assert where == ("paragraphs of two novels by Jane Austen, the sample that ships with dlrosetta", "sample", None)
    (tokens, labels), (test_tokens, test_labels) = data.imdb()
    assert tokens.shape == (900, 150) and test_tokens.shape == (200, 150)
    assert np.bincount(labels).tolist() == [450, 450] and np.bincount(test_labels).tolist() == [100, 100]
    assert labels[:4].tolist() == test_labels[:4].tolist() == [0, 1, 0, 1]
    assert (tokens != 2).all() and 0 < (test_tokens == 2).mean() < 0.03  # all words fit in
    for every in (tokens, test_tokens):
        kept = (every > 0).sum(1)
        assert kept.min() >= 20 and (kept == 150).any()  # short and cut-off ones
        assert ((every == 1).sum(1) == (kept < 150)).mean() > 0.99
    (inputs, targets), (test_inputs, _) = data.imdb_bytes()
    assert inputs.shape == (2795, 128) and test_inputs.shape == (726, 128)
    assert bytes(inputs[0, :22].tolist()) == b"The family of Dashwood"
    assert np.array_equal(inputs.ravel()[1:], targets.ravel()[:-1])


def test_the_sample_can_be_learnt():
    """Naive Bayes on bags of words: the classes differ, by names if nothing else, and labels are with their texts."""
    (tokens, labels), (test_tokens, test_labels) = data.imdb_sample()
    size = int(max(tokens.max(), test_tokens.max())) + 1
    counts = np.stack([np.bincount(tokens[labels == label].ravel(), minlength=size) + 1.0 for label in range(2)])
    counts[:, :3] = 0
    logs = np.log(np.maximum(counts, 1) / counts.sum(1, keepdims=True))
    logs[:, :3] = 0  # padding, start and unknown words say nothing
    assert (logs[:, test_tokens].sum(2).argmax(0) == test_labels).mean() > 0.9


def test_the_sample_needs_no_arguments():
    for name, first in (("imdb", data.imdb_sample), ("imdb_bytes", data.imdb_bytes_sample)):
        for one, other in zip(data.SAMPLES[name](), first(), strict=True):
            assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


def test_the_sample_is_plain_text_and_small():
    text = Path(reviews.SAMPLE).read_bytes()
    assert text.isascii() and len(gzip.compress(text, 9)) < 250_000
    assert all(line.split("\t")[0] in "01" and line.count("\t") == 1 for line in text.decode().splitlines())


# -- damaged copies ----------------------------------------------------------------------------------------------------


def test_no_reviews_are_an_absence(monkeypatch, tmp_path):
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path))
    (tmp_path / "aclImdb" / "train" / "unsup").mkdir(parents=True)
    assert data.where("imdb").kind == "sample"
    assert len(data.imdb()[0][0]) == 900


def test_other_files_beside_the_reviews_do_no_harm(tiny):
    before = data.imdb()
    (tiny / "aclImdb" / "train" / "neg" / ".DS_Store").write_bytes(b"x")
    (tiny / "aclImdb" / "train" / "unsup").mkdir()
    (tiny / "aclImdb" / "train" / "unsup" / "0_0.txt").write_text("no label")
    assert np.array_equal(data.imdb()[0][0], before[0][0])


@pytest.mark.parametrize("read", [data.imdb, data.imdb_bytes])
@pytest.mark.parametrize(("change", "received"), [("less", 1), ("more", 3), ("renamed", 1), ("none", 0)])
def test_a_damaged_copy_is_an_error(tiny, read, change, received):
    read()  # a cache does not hide it
    folder = tiny / "aclImdb" / "test" / "pos"
    if change == "more":
        (folder / "4_7.txt").write_text("a review")
    elif change == "renamed":
        (folder / "2_8.txt").rename(folder / "two.txt")
    else:
        for path in sorted(folder.iterdir())[: 1 if change == "less" else 2]:
            path.unlink()
    if change == "none":
        folder.rmdir()
    with pytest.raises(data.DataError) as caught:
        read()
    assert caught.value.message == f"{folder}: expected 2 reviews. Received: {received}"
    assert caught.value.hint == f"remove {tiny / 'aclImdb'} and fetch it again"


def test_a_review_that_cannot_be_read_is_an_error(tiny):
    path = tiny / "aclImdb" / "train" / "pos" / "1_7.txt"
    path.unlink()
    path.mkdir()
    with pytest.raises(data.DataError, match=r"1_7\.txt: could not be read: Is a directory"):
        data.imdb()


def test_bytes_that_are_no_text_are_read_all_the_same(tiny):
    (tiny / "aclImdb" / "train" / "neg" / "9_4.txt").write_bytes(b"film \xff\xfe film")
    assert data.imdb(length=4)[0][0].shape == (4, 4)


# -- the cache ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def encoded(monkeypatch):
    """Grows by one whenever reviews are really read."""
    calls = []
    encode = reviews._encode
    monkeypatch.setattr(reviews, "_encode", lambda *given: calls.append(given) or encode(*given))
    return calls


def same(one, other):
    return all(
        np.array_equal(a, b) and a.dtype == b.dtype
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_the_second_reading_is_from_the_cache(tiny, encoded):
    first, second = data.imdb(length=8), data.imdb(length=8)
    assert same(first, second) and len(encoded) == 1
    assert sorted(os.listdir(tiny)) == ["aclImdb", "imdb-30000-8.npz"]
    second[0][0][:] = 7  # a caller's own
    assert same(first, data.imdb(length=8))


def test_other_numbers_have_other_caches(tiny, encoded):
    data.imdb(length=8), data.imdb(length=7), data.imdb(10, 8), data.imdb(length=8)
    assert len(encoded) == 3


def test_the_sample_has_no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ROSETTA_DATA", str(tmp_path))
    data.imdb(), data.imdb_bytes()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("change", ["text", "same size", "rename", "rule"])
def test_a_change_is_noticed(tiny, encoded, monkeypatch, change):
    data.imdb(length=8)
    path = tiny / "aclImdb" / "train" / "neg" / "10_1.txt"
    if change == "text":
        path.write_text("a worse film")
    elif change == "same size":
        facts = path.stat()
        path.write_text("Sad FILM.")
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    elif change == "rename":
        path.rename(path.with_name("8_1.txt"))
    else:
        monkeypatch.setattr(reviews, "RULE", reviews.RULE + 1)
    changed = data.imdb(length=8)
    assert len(encoded) == 2
    (tiny / "imdb-30000-8.npz").unlink()
    assert same(changed, data.imdb(length=8))
    data.imdb(length=8)
    assert len(encoded) == 3  # the new one is kept in turn
    assert sorted(os.listdir(tiny)) == ["aclImdb", "imdb-30000-8.npz"]


@pytest.mark.parametrize("damage", ["cut off", "flipped", "empty", "another thing", "pickle"])
def test_a_damaged_cache_is_made_anew(tiny, encoded, damage):
    first = data.imdb(length=8)
    cache = tiny / "imdb-30000-8.npz"
    body = cache.read_bytes()
    at = body.index(b"train_tokens.npy") + 200
    flipped = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    cache.write_bytes({"cut off": body[:-40], "flipped": flipped, "empty": b""}.get(damage, b"text"))
    if damage == "pickle":
        np.savez(cache, key=np.array([{}], object))
    assert same(first, data.imdb(length=8)) and len(encoded) == 2
    assert same(first, data.imdb(length=8)) and len(encoded) == 2


def test_a_folder_that_cannot_be_written_costs_only_time(tiny, encoded, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reviews.tempfile, "mkstemp", refuse)  # chmod would not stop root
    assert same(data.imdb(length=8), data.imdb(length=8)) and len(encoded) == 2
    assert os.listdir(tiny) == ["aclImdb"]


def test_what_is_in_the_way_of_the_cache_stays(tiny, encoded):
    (tiny / "imdb-30000-8.npz").mkdir()
    assert same(data.imdb(length=8), data.imdb(length=8)) and len(encoded) == 2
    assert sorted(os.listdir(tiny)) == ["aclImdb", "imdb-30000-8.npz"]


def test_a_full_disk_costs_only_time(tiny):
    script = (
        "import resource, signal; from dlrosetta import data; from dlrosetta.data import reviews; reviews.FILES = 2;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "print(data.imdb(length=8)[0][0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("(4, 8)\n", "")
    assert os.listdir(tiny) == ["aclImdb"]


def test_the_cache_may_be_read_by_whoever_reads_the_folder(tiny):
    tiny.chmod(0o755)
    data.imdb(length=8)
    assert (tiny / "imdb-30000-8.npz").stat().st_mode & 0o777 == 0o644


def _read_often(root, barrier, queue):
    """Read, and make the cache anew, again and again; answer what the tokens summed up to."""
    os.environ["ROSETTA_DATA"] = root
    reviews.FILES = 2
    barrier.wait(60)
    sums = set()
    for times in range(60):
        sums.add(sum(int(tokens.sum()) for tokens, _ in data.imdb(length=8)))
        if times % 3 == 0:
            reviews.RULE = 3 - reviews.RULE  # this one's cache is no use to the other, nor the other way round
    queue.put(sums)


def test_two_at_once_get_the_same(tiny):
    expected = sum(int(tokens.sum()) for tokens, _ in data.imdb(length=8))
    context = multiprocessing.get_context("spawn")
    queue, barrier = context.Queue(), context.Barrier(2)
    both = [context.Process(target=_read_often, args=(str(tiny), barrier, queue)) for _ in range(2)]
    for one in both:
        one.start()
    assert [queue.get(timeout=60) for _ in both] == [{expected}] * 2
    for one in both:
        one.join()
    assert sorted(os.listdir(tiny)) == ["aclImdb", "imdb-30000-8.npz"]
