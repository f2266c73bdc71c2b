"""Single checks of a proof, without a worker."""

import numpy as np
import pytest

from dlrosetta.proof import checks, statistics

SPEC = {"shape": [300, 40], "role": "embedding", "initial": "uniform", "bound": 0.05}


def drawn(spec=SPEC):
    return np.random.default_rng(1).uniform(-spec["bound"], spec["bound"], spec["shape"]).astype(np.float32)


def initialisation(array, spec=SPEC):
    (check,) = statistics.initialisation({"w.weight": spec}, {"w.weight": array})
    return check.verdict


def test_what_was_drawn_as_declared_is_proven():
    assert initialisation(drawn()) == "proven"


def test_a_row_at_one_value_is_no_draw():
    array = drawn()
    array[0] = 0
    assert initialisation(array) == "differs"


@pytest.mark.parametrize(("width", "verdict"), [(1.0, "proven"), (0.7, "differs")])
def test_two_hundred_values_tell_a_narrower_distribution(width, verdict):
    spec = {**SPEC, "shape": [2, 100]}
    assert initialisation(width * drawn(spec), spec) == verdict


def test_of_many_values_none_counts_twice():
    """Else a hundred large kernels, drawn as declared, surprise by themselves."""
    spec = {**SPEC, "shape": [300, 100]}
    many = np.random.default_rng(1).uniform(-0.05, 0.05, (60, *spec["shape"])).astype(np.float32)
    found = [statistics.initialisation({"w.weight": spec}, {"w.weight": array})[0].error for array in many]
    assert sum(error > 2 for error in found) < 5  # one is expected; eight when some counted twice


def test_shapes_are_told_layer_by_layer():
    """Both directions of a recurrent layer double the input of the next, which is the consequence."""
    expected = {"gru.weight": {"shape": [3, 2]}, "fc.weight": {"shape": [2, 1]}}
    received = {"gru.weight": [3, 2], "gru.weight_reverse": [3, 2], "fc.weight": [2, 2], "bn.weight": [1]}
    found = [(check.name, check.verdict) for check in checks.shapes(expected, received)]
    assert found == [
        ("parameter/gru.weight", "proven"),
        ("parameter/gru.weight_reverse", "differs"),
        ("parameter/fc.weight", "differs"),
        ("parameter/bn.weight", "differs"),
    ]
