"""What the program knows of MLX. A parameter's name is its path; kernels are OHWI and (out, in).

MLX is lazy: what is handed over is evaluated here. A compiled step captures one model and one optimizer, so the
version's `train_step` makes the step, and it is kept beside them.
"""

import os

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from dlrosetta.worker.device import Device


def describe():
    device = "metal" if mx.default_device() == mx.gpu else "cpu"
    return {"version": mx.__version__, "device": device, "threads": 1}  # that of its stream


class Gpu(Device):
    """MLX has no events, and takes TF32 unless a variable of framework.toml says not to before its first operation.
    https://ml-explore.github.io/mlx/build/html/python/memory_management.html
    """

    def reset_memory(self):
        mx.reset_peak_memory()

    def peak_memory(self):
        return mx.get_peak_memory()

    def arithmetic(self):
        return {"tf32": os.environ.get("MLX_ENABLE_TF32", "1") != "0"}


def device():
    return Gpu() if mx.default_device() == mx.gpu else None


def seed(number):
    mx.random.seed(number)


def set_dtype(dtype):
    pass  # float32 alone: see framework.toml


def to_native(array):
    return mx.array(array, dtype=getattr(mx, array.dtype.name))  # left to itself, MLX makes float32 of float64


def to_numpy(value):
    return np.array(value.astype(mx.float32) if value.dtype in (mx.bfloat16, mx.float16) else value)


def make_optimizer(version, state):
    state.optimizer = version.make_optimizer(state.model)
    state.step = version.train_step(state.model, state.optimizer)
    state.version, state.linear_step = version, None


def layers(model):
    return {name: module for name, module in model.named_modules() if name}


def parameters(model):
    return {name: to_numpy(value) for name, value in tree_flatten(model.parameters())}


def set_parameters(model, arrays):
    model.load_weights([(name, to_native(array)) for name, array in arrays.items()], strict=True)


def forward(state, images, training):
    state.model.train(training)
    return state.model(images)


def gradients(version, state, images, labels):
    state.model.train()
    loss, found = nn.value_and_grad(state.model, version.loss_fn)(state.model, images, labels)
    return loss, {name: to_numpy(value) for name, value in tree_flatten(found)}


def train_step(version, state, images, labels):
    return state.step(images, labels)


def apply_gradients(state, gradients):
    """Clipping is a line of the version's train step: one that clips gets a loss that has these gradients, which it
    takes for its inputs.
    """
    given = tree_unflatten([(name, to_native(array)) for name, array in gradients.items()])
    if hasattr(state.version, "CLIP_NORM"):
        original, state.version.loss_fn = state.version.loss_fn, _linear
        try:
            state.linear_step = state.linear_step or state.version.train_step(state.model, state.optimizer)
            state.linear_step(given, mx.array(0))
        finally:
            state.version.loss_fn = original
        return
    state.optimizer.update(state.model, given)
    mx.eval(state.model.state, state.optimizer.state)


def optimizer_state(state):
    """Of one optimizer, or of each of several that share the parameters."""
    found = {}
    for optimizer in getattr(state.optimizer, "optimizers", [state.optimizer]):
        adam = isinstance(optimizer, mlx.optimizers.Adam)
        slots = {"m": "m", "v": "v"} if adam else {"v": "velocity"}
        for path, value in tree_flatten(optimizer.state):
            name, _, slot = path.rpartition(".")
            if slot in slots:
                found[slots[slot] + "/" + name] = to_numpy(value)
    return found


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, images, labels)


def work(kind, *arrays):
    given = [mx.array(array) for array in arrays]
    kinds = {
        "product": mx.matmul,
        "copy": mx.negative,  # mx.array of an array shares its memory
        "convolution": lambda x, w: mx.conv2d(x, w, padding=1),
    }
    compute = kinds[kind]

    def once():
        result = compute(*given)
        mx.eval(result)  # or of many only the last would be computed
        return result

    return once


def synchronize(state, value=None):
    mx.eval(value, [one.state for one in (state.model, state.optimizer) if one is not None])
    mx.synchronize()


def _linear(model, given, labels):
    parameters = dict(tree_flatten(model.trainable_parameters()))
    return sum((parameters[name] * value).sum() for name, value in tree_flatten(given))
