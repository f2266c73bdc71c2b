"""The committed golden is what the reference computes, and its summaries miss nothing."""

import dataclasses

import numpy as np
import pytest

from dlrosetta import draws, golden, paths, texts

STONE = texts.find(paths.stone_dirs())
VARIANTS = [
    (name, one) for name in STONE for one in (None, *(each["name"] for each in texts.load(STONE[name]).variants))
]


@pytest.fixture(params=sorted(STONE))
def text(request):
    return texts.load(STONE[request.param])


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_committed_golden_is_what_the_reference_computes(monkeypatch, name, variant):
    monkeypatch.setattr(golden, "RUNS", 0)  # how it rounds takes longer
    text = texts.load(STONE[name])
    stored, rebuilt = golden.load(text, variant), golden.build(text, variant)
    assert set(stored.tensors) == set(rebuilt.tensors)
    for name, expected in stored.tensors.items():
        assert golden.distance(rebuilt.tensors[name], expected) < 1e-12, name


def test_evaluation_tells_examples_apart(text):
    """Dead layers answer alike whatever they are shown: nothing of evaluation would then be proven."""
    logits = golden.load(text).tensors["evaluation logits"]
    places = np.unravel_index(golden.positions("evaluation logits", int(np.prod(logits.shape))), logits.shape)
    outputs = np.ravel_multi_index(places[1:], logits.shape[1:])
    alike = [np.ptp(logits.samples[outputs == one]) for one in np.unique(outputs)]
    assert max(alike) > 1e-2 * np.abs(logits.samples).max()


@pytest.mark.parametrize(
    ("name", "variant"), [pytest.param(*one, marks=[pytest.mark.wide] if one[1] else []) for one in VARIANTS]
)
def test_the_committed_golden_is_rebuilt_from_the_reference(name, variant):
    text = texts.load(STONE[name])
    stored, rebuilt = golden.load(text, variant), golden.build(text, variant)
    assert set(stored.tensors) == set(rebuilt.tensors)
    for name, expected in stored.tensors.items():
        assert golden.distance(rebuilt.tensors[name], expected) < 1e-12, name
        # Rounding depends on the BLAS at hand; its size does not.
        assert 1 / 4 < rebuilt.tensors[name].rounding / expected.rounding < 4, name
        if expected.bfloat16:  # not on several devices
            assert 1 / 4 < rebuilt.tensors[name].bfloat16 / expected.bfloat16 < 4, name
    assert rebuilt.metric == pytest.approx(stored.metric, abs=1e-12)
    assert np.array_equal(rebuilt.labels, stored.labels)


def test_the_golden_is_steady_and_small(text):
    stored = golden.load(text)
    assert max(one.rounding for one in stored.tensors.values()) < 1e-4
    assert text.golden.stat().st_size < 500_000  # of DenseNet-121, with 1,287 tensors


@pytest.mark.parametrize("entry", [0, 5_000, 99_999])
def test_a_change_in_any_one_entry_shows(entry):
    array = draws.uniform(1, "array", 100_000).reshape(100, 1000)
    changed = array.copy()
    changed.flat[entry] += 1e-3 * np.linalg.norm(array)
    error = golden.distance(golden.summarise("x", changed), golden.summarise("x", array))
    assert 5e-4 < error < 5e-3


def test_a_permutation_shows_although_the_norm_stays():
    array = draws.uniform(2, "array", 10_000)
    assert golden.distance(golden.summarise("x", array[::-1]), golden.summarise("x", array)) > 0.1


def test_not_a_number_is_infinitely_far():
    array = np.ones(300)
    array[7] = np.nan
    assert golden.distance(golden.summarise("x", array), golden.summarise("x", np.ones(300))) == float("inf")


@pytest.mark.parametrize("size", [1, 300, golden.PIECE, 2 * golden.PIECE + 13])
def test_a_summary_in_pieces_is_that_of_the_whole(size):
    """Many goldens are older than the pieces."""
    array = draws.uniform(0, "x", size) - 0.5
    expected = [draws.signs(number, "signs/x", size) @ array for number in range(golden.PROJECTIONS)]
    for dtype, tolerance in (np.float64, 1e-12), (np.float32, 1e-6):
        found = golden.summarise("x", array.astype(dtype))
        assert found.norm == pytest.approx(np.linalg.norm(array), rel=tolerance)
        assert found.projections == pytest.approx(expected, abs=tolerance * np.linalg.norm(array))
        assert found.samples.dtype == np.float64


@pytest.mark.parametrize("place", [0, golden.PIECE - 1, golden.PIECE, -1])
def test_a_summary_sees_every_entry(place):
    array = draws.uniform(0, "x", 2 * golden.PIECE + 13)
    other = array.copy()
    other[place] += 1.0
    signs = [draws.signs(number, "signs/x", array.size)[place] for number in range(golden.PROJECTIONS)]
    change = golden.summarise("x", other).projections - golden.summarise("x", array).projections
    assert change == pytest.approx(signs)


def test_a_golden_that_is_none_is_refused(tmp_path, text):
    folder = tmp_path / text.name
    folder.mkdir()
    (folder / "golden.npz").write_bytes(b"not a golden")
    with pytest.raises(golden.RosettaError, match="expected a golden") as caught:
        golden.load(dataclasses.replace(text, folder=folder))
    assert caught.value.hint == f"rosetta golden {text.name}"


def test_draws_never_change():
    """Every golden rests on these streams: NumPy guarantees the raw output of Philox, and nothing else is used."""
    assert draws.uniform(0, "conv1.weight", 3).tolist() == [
        0.32764763828295707,
        0.13471884844191573,
        0.9425372483042662,
    ]
    assert draws.signs(0, "x", 8).tolist() == [-1, -1, 1, -1, -1, -1, 1, -1]
