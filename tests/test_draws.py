"""What every cell is given: the same everywhere and always, of the declared distribution, exact in float32."""

import dataclasses

import numpy as np
import pytest
from planted import TEXT
from scipy import stats

from dlrosetta import draws, texts


@pytest.fixture
def text(template):
    return texts.load(template / "stone" / TEXT)


def test_uniform_is_uniform_and_each_stream_its_own():
    values = draws.uniform(0, "x", 100_000)
    assert values.min() >= 0 and values.max() < 1 and values.dtype == np.float64
    assert stats.kstest(values, "uniform").pvalue > 1e-4
    assert stats.binomtest(int((np.diff(values) > 0).sum()), 99_999).pvalue > 1e-4  # no trend from one to the next
    for other in (draws.uniform(0, "y", 100_000), draws.uniform(1, "x", 100_000)):
        assert abs(np.corrcoef(values, other)[0, 1]) < 0.015
    assert np.array_equal(draws.uniform(0, "x", 10), values[:10])  # however many are drawn
    assert draws.uniform(0, "x", 0).shape == (0,)


def test_signs_are_fair():
    values = draws.signs(0, "x", 100_001)
    assert len(values) == 100_001 and set(values) == {-1.0, 1.0}
    assert stats.binomtest(int((values > 0).sum()), len(values)).pvalue > 1e-4
    assert abs(np.mean(values[1:] * values[:-1])) < 0.015


def test_glorot(text):
    assert draws.glorot_bound((16, 3072)) == pytest.approx(np.sqrt(6 / (16 + 3072)))
    assert draws.glorot_bound((50, 3, 3, 3)) == pytest.approx(np.sqrt(6 / ((50 + 3) * 9)))
    kernel = draws.initial_parameters(text)["fc1.weight"]
    bound = draws.glorot_bound(kernel.shape)
    assert stats.kstest(kernel.ravel(), stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-4


def test_parameters_have_the_text_s_shapes_favour_no_precision_and_are_nowhere_zero(text):
    parameters = draws.initial_parameters(text)
    assert {name: array.shape for name, array in parameters.items()} == text.shapes
    for array in parameters.values():
        assert array.dtype == np.float64
        assert np.array_equal(array.astype(np.float32), array)
        assert np.all(array != 0)  # a bias that is left out must show
    assert np.abs(parameters["fc1.bias"]).max() <= 0.1


def test_a_parameter_may_have_a_centre_of_its_own(text, monkeypatch):
    monkeypatch.setitem(text.parameters["fc1.bias"], "centre", -0.5)
    assert abs(draws.initial_parameters(text)["fc1.bias"] + 0.5).max() <= 0.1


def test_a_batch_is_one_bright_square_each_on_black(text):
    batch = draws.batch(text, "evaluation", 200)
    images, labels = batch["images"], batch["labels"]
    assert images.shape == (200, 3, 32, 32) and labels.shape == (200,)
    assert (images.dtype, labels.dtype) == (np.float64, np.int64)
    assert np.array_equal(images.astype(np.float32), images)
    assert images.min() >= 0 and images.max() <= 1
    assert set(labels) == set(range(10))
    corners = []
    for image in images:
        _, down, right = np.nonzero(image)
        assert down.max() - down.min() < 8 and right.max() - right.min() < 8
        assert np.count_nonzero(image) > 3 * 64 * 0.9
        corners.append((down.min(), right.min()))
    assert min(corners)[0] == 0 and max(corners)[0] == 24  # up to either border
    assert len(set(corners)) > 100


def test_training_batches_are_stacked_and_differ(text):
    batches = draws.training_batches(text)
    assert batches["images"].shape == (20, 2, 3, 32, 32) and batches["labels"].shape == (20, 2)
    flat = batches["images"].reshape(40, -1)
    assert len(np.unique(flat, axis=0)) == 40
    again = draws.training_batches(text)
    assert all(np.array_equal(batches[key], again[key]) for key in batches)


def test_another_seed_and_another_kind_of_input_make_others(text):
    other = dataclasses.replace(text, proof={**text.proof, "seed": 1})
    here, there = draws.initial_parameters(text), draws.initial_parameters(other)
    assert all(not np.array_equal(here[name], there[name]) for name in here)
    spec = {"images": {"shape": [4], "draw": "uniform"}, "labels": {"shape": [5], "draw": "labels", "classes": 3}}
    batch = draws.batch(dataclasses.replace(text, inputs=spec), "x", 50)
    assert batch["images"].shape == (50, 4) and np.count_nonzero(batch["images"]) == 200
    assert batch["labels"].shape == (50, 5) and set(batch["labels"].ravel()) == {0, 1, 2}
