"""What the program knows of MindSpore. Parameters have its own names, but for an embedding's table, which is called
`weight` as elsewhere; kernels are OIHW and (out, in).
"""

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
    """`state.optimizer` alone, or with the schedule of its rate."""
    made = version.make_optimizer(state.model)
    state.stepped = made if isinstance(made, tuple) else (made,)  # what the version's train step is given
    state.optimizer, state.version = state.stepped[0], version


def layers(model):
    return {name: cell for name, cell in model.cells_and_names() if name}


def parameters(model):
    return {name: value.asnumpy().copy() for name, value in _named(model)}


def set_parameters(model, arrays):
    for name, value in _named(model):
        value.set_data(ms.Tensor(arrays[name]))


def forward(state, images, training):
    state.model.set_train(training)
    return state.model(images)


def gradients(version, state, images, labels):
    state.model.set_train()
    named = dict(_named(state.model))
    weights = ms.ParameterTuple(named.values())
    loss, found = ms.value_and_grad(version.loss_fn, None, weights)(state.model, images, labels)
    return loss, {name: to_numpy(gradient) for name, gradient in zip(named, found, strict=True)}


def train_step(version, state, images, labels):
    return version.train_step(state.model, *state.stepped, images, labels)


def apply_gradients(state, gradients):
    """Where the rate has a schedule, the train step clips and schedules: it gets a loss that has these gradients."""
    if len(state.stepped) > 1:
        given = {name: ms.Tensor(array) for name, array in gradients.items()}

        def linear(model, images, labels):
            return sum((value * given[name]).sum() for name, value in _named(model))

        original, state.version.loss_fn = state.version.loss_fn, linear
        try:
            state.version.train_step(state.model, *state.stepped, ms.Tensor(0), ms.Tensor(0))
        finally:
            state.version.loss_fn = original
        return
    names = {id(value): name for name, value in _named(state.model)}
    state.optimizer(tuple(ms.Tensor(gradients[names[id(value)]]) for value in state.optimizer.parameters))


def optimizer_state(state):
    names = {id(value): name for name, value in _named(state.model)}
    slots = {"moments": "velocity", "exp_avg": "m", "exp_avg_sq": "v"}
    return {
        slots[kind] + "/" + names[id(value)]: slot.asnumpy().copy()
        for kind in slots
        for value, slot in zip(state.optimizer.parameters, getattr(state.optimizer, kind, ()), strict=False)
    }


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, to_numpy(images), to_numpy(labels))  # its loader takes NumPy arrays


def work(kind, *arrays):
    given = [ms.Tensor(array) for array in arrays]
    kinds = {
        "product": ms.ops.matmul,
        "copy": ms.ops.neg,  # Tensor.copy divides by one and multiplies by it
        "convolution": lambda x, w: ms.ops.conv2d(x, w, pad_mode="same"),
    }
    compute = kinds[kind]
    return lambda: compute(*given)


def synchronize(state, value=None):
    ms.runtime.synchronize()


def _named(model):
    return [(name.replace(".embedding_table", ".weight"), value) for name, value in model.parameters_and_names()]
