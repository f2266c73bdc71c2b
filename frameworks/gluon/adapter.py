"""What the program knows of MXNet Gluon. A layer goes by its attribute's name; kernels are OIHW and (out, in).

A layer's precision is fixed when it is made, and float32 by default, so in float64 the version's `build_model` is
followed by Gluon's own `cast`. A hybridized block calls no layers: where layers are looked at, it is not.
"""

import os
from contextlib import contextmanager

import mxnet as mx
import numpy as np


def describe():
    return {"version": mx.__version__, "device": "gpu" if mx.context.num_gpus() else "cpu", "threads": _threads()}


def seed(number):
    mx.random.seed(number)
    np.random.seed(number)


def set_dtype(dtype):
    pass


def prepare_version(version, dtype):
    if dtype == "float32":
        return
    build = version.build_model

    def cast():
        model = build()
        model.cast(dtype)
        return model

    version.build_model = cast


def to_native(array):
    return mx.nd.array(array, dtype="int32" if array.dtype == np.int64 else array.dtype)  # what its loader yields


def to_numpy(value):
    return value.asnumpy() if isinstance(value, mx.nd.NDArray) else np.asarray(value)


def make_optimizer(version, state):
    state.optimizer = version.make_optimizer(state.model)


def layers(model):
    found = {}

    def visit(block, path):
        for name, child in block._children.items():
            found[".".join([*path, name])] = child
            visit(child, [*path, name])

    visit(model, [])
    return found


def parameters(model):
    return {name: value.data().asnumpy() for name, value in _parameters(model).items()}


def set_parameters(model, arrays):
    for name, value in _parameters(model).items():
        value.set_data(mx.nd.array(arrays[name], dtype=value.dtype))


def forward(state, images, training):
    with _layer_by_layer(state.model), mx.autograd.record(training):
        return state.model(images.as_in_context(_context(state)))


def gradients(version, state, images, labels):
    """`loss_fn` gives one loss an example, as Gluon's losses do: the mean is what is trained on."""
    named = {name: value for name, value in _parameters(state.model).items() if value.grad_req != "null"}
    for value in named.values():
        value.zero_grad()
    with mx.autograd.record():
        loss = version.loss_fn(state.model(images.as_in_context(_context(state))), labels).mean()
    loss.backward()
    found = {name: value.grad().asnumpy() for name, value in named.items()}
    for value in named.values():
        value.zero_grad()
    return loss.asscalar(), found


def train_step(version, state, images, labels):
    return version.train_step(state.model, state.optimizer, images, labels)


def apply_gradients(state, gradients):
    for name, value in _parameters(state.model).items():
        if value.grad_req != "null":
            value.grad()[:] = mx.nd.array(gradients[name], dtype=value.dtype)
            value.data()._fresh_grad = True  # as after backward(): the trainer skips what is stale
    state.optimizer.step(1)


def optimizer_state(state):
    """Gluon keeps the rate inside the velocity: v = 0.9 v − rate · g. What is handed over is v as in v = 0.9 v + g."""
    rate = state.optimizer.learning_rate
    if not rate or not isinstance(state.optimizer.optimizer, mx.optimizer.SGD):
        return {}
    names = {value.name: name for name, value in _parameters(state.model).items()}
    return {
        "velocity/" + names[state.optimizer._params[number].name]: slot.asnumpy() / -rate
        for number, slot in state.optimizer._updaters[0].states.items()
        if slot is not None
    }


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, to_numpy(images), to_numpy(labels))  # its loader takes numpy arrays


def work(kind, *arrays):
    given = [mx.nd.array(array) for array in arrays]
    out = mx.nd.empty(given[0].shape)
    if kind == "convolution":
        of = {"kernel": (3, 3), "pad": (1, 1), "num_filter": arrays[1].shape[0], "no_bias": True}
        return lambda: mx.nd.Convolution(*given, out=out, **of)
    return lambda: mx.nd.dot(*given, out=out) if kind == "product" else given[0].copyto(out)


def synchronize(state, value=None):
    mx.nd.waitall()


def _parameters(model):
    """Every parameter of every layer, by name."""
    return {
        layer + "." + name: value for layer, block in layers(model).items() for name, value in block._reg_params.items()
    }


def _context(state):
    return next(iter(state.model.collect_params().values())).list_ctx()[0]


@contextmanager
def _layer_by_layer(model):
    """Without the graph of hybridized blocks, which are left as they were."""
    hybrid = [block for block in [model, *layers(model).values()] if getattr(block, "_active", False)]
    for block in hybrid:
        block._active = False
    try:
        yield
    finally:
        for block in hybrid:
            block._active = True


def _threads():
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count())
