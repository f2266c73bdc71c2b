"""Every layout there and back, and that what is permuted still computes the same."""

from itertools import product

import numpy as np
import pytest

from dlrosetta.frameworks import LAYOUTS
from dlrosetta.worker.layouts import Layouts

LAYERS = [
    {
        "name": "conv",
        "parameters": {"weight": {"shape": [6, 3, 5, 2], "role": "conv"}, "bias": {"shape": [6], "role": "vector"}},
    },
    {
        "name": "first",
        "flattens": [6, 4, 5],
        "parameters": {"weight": {"shape": [7, 120], "role": "dense"}, "bias": {"shape": [7], "role": "vector"}},
    },
    {"name": "last", "parameters": {"weight": {"shape": [10, 7], "role": "dense"}}},
]
SHAPES = {f"{layer['name']}.{name}": spec["shape"] for layer in LAYERS for name, spec in layer["parameters"].items()}
EVERY = [dict(zip(LAYOUTS, choice, strict=True)) for choice in product(*LAYOUTS.values())]


def drawn(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape)


@pytest.fixture(params=EVERY, ids=lambda layout: "-".join(layout.values()))
def layouts(request):
    return Layouts(request.param, LAYERS)


def layout(**changes):
    return Layouts({"conv": "OIHW", "dense": "OI", "activations": "channels_first", **changes}, LAYERS)


@pytest.mark.parametrize("name", SHAPES)
def test_a_parameter_there_and_back(layouts, name):
    array = drawn(*SHAPES[name])
    native = layouts.parameter_to_native(name, array)
    back = layouts.parameter_to_canonical(name, native)
    assert np.array_equal(back, array)
    assert native.flags["C_CONTIGUOUS"] and back.flags["C_CONTIGUOUS"]
    assert sorted(native.ravel()) == sorted(array.ravel())


def test_images_and_activations_there_and_back(layouts):
    images = drawn(2, 3, 8, 9)
    assert np.array_equal(layouts.activation_to_canonical("", layouts.images_to_native(images), True), images)
    assert np.array_equal(layouts.activation_to_canonical("conv", layouts.images_to_native(images), False), images)
    labels = np.arange(4)
    assert layouts.images_to_native(labels) is labels


def test_the_layouts_are_what_their_names_say():
    kernel = drawn(6, 3, 5, 2)
    last_layout = {"conv": "HWIO", "dense": "IO", "activations": "channels_last"}
    last = layout(**last_layout)
    native = last.parameter_to_native("conv.weight", kernel)
    assert native.shape == (5, 2, 3, 6)
    assert native[4, 1, 2, 5] == kernel[5, 2, 4, 1]
    native = layout(conv="OHWI").parameter_to_native("conv.weight", kernel)
    assert native.shape == (6, 5, 2, 3)
    assert native[5, 4, 1, 2] == kernel[5, 2, 4, 1]
    dense = drawn(10, 7)
    assert np.array_equal(last.parameter_to_native("last.weight", dense), dense.T)
    images = drawn(2, 3, 8, 9)
    assert last.images_to_native(images).shape == (2, 8, 9, 3)
    assert last.images_to_native(images)[1, 7, 8, 2] == images[1, 2, 7, 8]
    gated = [{"name": "gru", "parameters": {"weight": {"shape": [10, 7], "role": "dense", "gates": 2}}}, *LAYERS]
    for recurrent, expected in (({}, dense.T), ({"recurrent": "OI"}, dense)):
        native = Layouts({**last_layout, **recurrent}, gated).parameter_to_native("gru.weight", dense)
        assert np.array_equal(native, expected)
    for name, shape in SHAPES.items():  # the canonical layout is left as it is
        assert np.array_equal(layout().parameter_to_native(name, drawn(*shape)), drawn(*shape))


@pytest.mark.parametrize("dense", ["OI", "IO"])
def test_a_dense_layer_on_a_flattened_image_computes_the_same(dense):
    """A channels-last framework flattens its pixels in another order, and its kernel must follow."""
    last = layout(dense=dense, activations="channels_last")
    image, kernel = drawn(2, 6, 4, 5), drawn(7, 120)
    expected = image.reshape(2, -1) @ kernel.T
    flat = last.images_to_native(image).reshape(2, -1)  # as the framework sees it
    native = last.parameter_to_native("first.weight", kernel)
    received = flat @ (native if dense == "IO" else native.T)
    assert np.allclose(received, expected, rtol=1e-12)
    assert np.array_equal(last.activation_to_canonical("first", flat, True), image.reshape(2, -1))


def test_what_leaves_that_layer_and_what_reaches_others_is_left_alone():
    last = layout(activations="channels_last")
    for layer, is_input, size in (("first", False, 120), ("last", True, 120), ("first", True, 60)):
        array = drawn(2, size)
        assert last.activation_to_canonical(layer, array, is_input) is array


def test_a_convolution_computes_the_same():
    last = layout(conv="HWIO", activations="channels_last")
    image, kernel = drawn(2, 3, 8, 9), drawn(6, 3, 5, 2)
    windows = np.lib.stride_tricks.sliding_window_view(image, (5, 2), axis=(2, 3))  # (N, C, H, W, h, w)
    expected = np.einsum("nchwij,ocij->nohw", windows, kernel)
    native = last.images_to_native(image)
    windows = np.lib.stride_tricks.sliding_window_view(native, (5, 2), axis=(1, 2))  # (N, H, W, C, h, w)
    received = np.einsum("nhwcij,ijco->nhwo", windows, last.parameter_to_native("conv.weight", kernel))
    assert np.allclose(last.activation_to_canonical("conv", received, False), expected, rtol=1e-12)


def test_gradients_and_velocities_go_as_their_parameters_and_what_is_unknown_as_it_is(layouts):
    array = drawn(4, 5)
    assert np.array_equal(layouts.parameter_to_canonical("other.weight", array), array)
    assert np.array_equal(layouts.parameter_to_native("other.weight", array), array)
    misshapen = drawn(7, 60)  # no kernel on the flattened image: the check of shapes is to see it as it is
    assert layouts.parameter_to_canonical("first.weight", misshapen).size == misshapen.size


GRU = [
    {
        "name": "gru",
        "parameters": {
            "weight": {"shape": [6, 3], "role": "dense", "gates": 3},
            "bias_ih": {"shape": [6], "role": "vector", "gates": 3},
            "bias_hh": {"shape": [6], "role": "vector", "gates": 3},
        },
    }
]
NAMES = {"gru.weight": "gru.kernel", "gru.bias_ih": "gru.bias[0]", "gru.bias_hh": "gru.bias[1]"}


def test_gates_names_and_what_is_stacked():
    """Canonical reset, update, new; Keras has update first, kernels (in, out), and both biases in one variable."""
    keras = {"conv": "HWIO", "dense": "IO", "activations": "channels_last", "gates": "zrn"}
    layouts = Layouts(keras, GRU, NAMES)
    r, z, n = drawn(2, 3), drawn(2, 3) + 10, drawn(2, 3) + 20
    given = {"gru.weight": np.concatenate([r, z, n]), "gru.bias_ih": np.arange(6.0), "gru.bias_hh": np.arange(6.0) + 6}
    native = layouts.to_native(given)
    assert sorted(native) == ["gru.bias", "gru.kernel"]
    assert np.array_equal(native["gru.kernel"], np.concatenate([z, r, n]).T)
    assert native["gru.bias"].tolist() == [[2, 3, 0, 1, 4, 5], [8, 9, 6, 7, 10, 11]]
    back = layouts.to_canonical(native)
    assert sorted(back) == sorted(given) and all(np.array_equal(back[name], given[name]) for name in given)


def test_without_gates_of_its_own_nothing_moves():
    layouts = Layouts({"conv": "OIHW", "dense": "OI", "activations": "channels_first"}, GRU, {})
    array = drawn(6, 3)
    assert np.array_equal(layouts.to_native({"gru.weight": array})["gru.weight"], array)


def test_of_every_step_s_output_the_last():
    layouts = Layouts({"conv": "OIHW", "dense": "OI", "activations": "channels_first"}, GRU, {})
    steps = drawn(2, 5, 3)
    assert np.array_equal(layouts.activation_to_canonical("gru", steps, False), steps[:, -1])
    assert layouts.activation_to_canonical("gru", steps, True) is steps
    assert layouts.activation_to_canonical("other", steps, False) is steps


def test_gates_are_exchanged_and_what_has_none_is_left_alone():
    layers = [{"name": "gru", "parameters": {"bias": {"shape": [6], "role": "vector", "gates": 3}}}]
    first = Layouts({"conv": "OIHW", "dense": "OI", "activations": "channels_first", "gates": "zrn"}, layers)
    assert first.parameter_to_canonical("gru.bias", np.arange(6)).tolist() == [2, 3, 0, 1, 4, 5]
    assert first.parameter_to_canonical("gru.bias", np.arange(8)).tolist() == list(range(8))  # an LSTM's
    assert first.parameter_to_canonical("gru.bias", np.array(1.0)).shape == ()  # half of a bias that is one only
