"""What the program knows of MindSpore. Parameters have its own names; kernels are OIHW and (out, in)."""

import os

import mindspore as ms
import numpy as np


def describe():
    ms.set_device("CPU")
    return {"version": ms.__version__, "device": "cpu", "threads": int(os.environ["ROSETTA_THREADS"])}


def seed(number):
    ms.set_seed(number)


def set_dtype(dtype):
    pass


def prepare_version(version, dtype):
    """A layer's precision is fixed when it is made, and float32 by default."""
    if dtype == "float32":
        return
    build = version.build_model

    def cast():
        model = build()
        for value in model.get_parameters():
            value.set_dtype(getattr(ms, dtype))
        return model

    version.build_model = cast


def to_native(array):
    return ms.Tensor(array.astype(np.int32) if array.dtype == np.int64 else array)  # what its loader yields


def to_numpy(value):
    return value.asnumpy() if isinstance(value, ms.Tensor) else np.asarray(value)


def make_optimizer(version, state):
    state.optimizer = version.make_optimizer(state.model)


def layers(model):
    return {name: cell for name, cell in model.cells_and_names() if name}


def parameters(model):
    return {name: value.asnumpy().copy() for name, value in model.parameters_and_names()}


def set_parameters(model, arrays):
    for name, value in model.parameters_and_names():
        value.set_data(ms.Tensor(arrays[name]))


def forward(state, images, training):
    state.model.set_train(training)
    return state.model(images)


def gradients(version, state, images, labels):
    state.model.set_train()
    named = dict(state.model.parameters_and_names())
    weights = ms.ParameterTuple(named.values())
    loss, found = ms.value_and_grad(version.loss_fn, None, weights)(state.model, images, labels)
    return loss, {name: to_numpy(gradient) for name, gradient in zip(named, found, strict=True)}


def train_step(version, state, images, labels):
    return version.train_step(state.model, state.optimizer, images, labels)


def apply_gradients(state, gradients):
    names = {id(value): name for name, value in state.model.parameters_and_names()}
    state.optimizer(tuple(ms.Tensor(gradients[names[id(value)]]) for value in state.optimizer.parameters))


def optimizer_state(state):
    names = {id(value): name for name, value in state.model.parameters_and_names()}
    return {
        "velocity/" + names[id(value)]: slot.asnumpy().copy()
        for value, slot in zip(state.optimizer.parameters, getattr(state.optimizer, "moments", ()), strict=False)
    }


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, to_numpy(images), to_numpy(labels))  # its loader takes NumPy arrays


def synchronize(state, value=None):
    ms.runtime.synchronize()
