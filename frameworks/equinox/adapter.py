"""What the program knows of Equinox. A parameter's name is its path; kernels are OIHW and (out, in), a convolution's
bias is (out, 1, 1).

A model is a tree that never changes, and takes one example and, where it draws anything, a key: without a key it is
asked for in evaluation mode only. Keys stand for a global seed: a version makes its own from SEED, and the adapter
hands them from step to step as the version's `main` does.
"""

import inspect
import os

import equinox as eqx
import jax
import numpy as np

from dlrosetta.worker import recording


def describe():
    threads = int(os.environ.get("PJRT_NPROC") or os.cpu_count())
    return {"version": eqx.__version__, "device": jax.default_backend(), "threads": threads}


def seed(number):
    pass


def set_dtype(dtype):
    jax.config.update("jax_enable_x64", dtype == "float64")  # what layers and initializers go by


def to_native(array):
    return jax.numpy.asarray(array)


def to_numpy(value):
    array = np.array(value)  # a copy: a train step may reuse the memory of what it is given
    return array.astype(np.float32) if array.dtype == jax.numpy.bfloat16 else array  # not one of NumPy's own


def make_optimizer(version, state):
    state.optimizer, state.slots = version.make_optimizer(state.model)
    takes_key = "key" in inspect.signature(version.loss_fn).parameters
    state.key = jax.random.key(version.SEED) if takes_key else None


def layers(model):
    children = vars(model) if isinstance(model, eqx.Module) else dict(enumerate(model))
    found = {}
    for name, value in children.items():
        if isinstance(value, eqx.Module):
            found[str(name)] = value
        if isinstance(value, (eqx.Module, list, tuple)):
            found.update({f"{name}.{inner}": layer for inner, layer in layers(value).items()})
    return found


def parameters(model):
    return {name: _flat(name, value) for name, value in _named(eqx.filter(model, eqx.is_inexact_array)).items()}


def set_parameters(model, arrays):
    return eqx.combine(_filled(model, arrays), model)


def forward(state, images, training):
    return record(state, images, training)[1]


def record(state, images, training):
    """Under `vmap` layers see tracers of one example: what is kept is what lies behind them, of the whole batch. A
    layer within a `scan` would see tracers of a compiled loop; without jit, the loop is one of Python.
    """
    model = state.model if training else eqx.nn.inference_mode(state.model)
    named, seen = layers(model), {}

    def one(image, *key):
        found, logits = recording.record(named, lambda: model(image, *key), lambda value: to_numpy(_whole(value)))
        seen.update(found)
        return logits

    with jax.disable_jit():
        return seen, jax.vmap(one)(images, *(_keys(state, len(images)) if training else []))


def gradients(version, state, images, labels):
    loss, found = eqx.filter_value_and_grad(version.loss_fn)(state.model, images, labels, *_keys(state))
    return loss, {name: _flat(name, value) for name, value in _named(found).items()}


def train_step(version, state, images, labels):
    key = [] if state.key is None else [state.key]
    state.model, state.slots, *key, loss = version.train_step(
        state.model, state.optimizer, state.slots, images, labels, *key
    )
    state.key = key[0] if key else None
    return loss


def apply_gradients(state, gradients):
    found = _filled(state.model, gradients)
    trained = eqx.filter(state.model, eqx.is_inexact_array)
    updates, state.slots = state.optimizer.update(found, state.slots, trained)
    state.model = eqx.apply_updates(state.model, updates)


def optimizer_state(state):
    slots = {"trace": "velocity", "mu": "m", "nu": "v"}
    found = {}
    for path, value in _named(state.slots).items():
        for slot in slots:
            _, here, name = ("." + path).partition("." + slot + ".")
            if here:
                found[slots[slot] + "/" + name] = _flat(name, value)
    return found


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, images, labels)


def synchronize(state, value=None):
    jax.block_until_ready((value, eqx.filter((state.model, state.slots), eqx.is_array)))


def _keys(state, number=None):
    """[a new key], or [an array of as many]; [] where the version draws nothing."""
    if state.key is None:
        return []
    state.key, key = jax.random.split(state.key)
    return [key if number is None else jax.random.split(key, number)]


def _whole(value):
    """The batch behind what a function under `vmap`, or under several, sees of one example. The way there is the rule
    by which an operation says how it is mapped: it is given the batch.
    """
    if not isinstance(value, jax.core.Tracer):
        return value
    found = []
    show = jax.custom_batching.custom_vmap(lambda value: value)

    @show.def_vmap
    def look(size, batched, value):
        found.append(_whole(value))
        return value, batched[0]

    show(value)
    return found[0]


def _named(tree):
    """Every array of a tree by its path, `conv1.weight`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): value
        for path, value in jax.tree_util.tree_leaves_with_path(tree)
        if eqx.is_array(value)
    }


def _filled(model, arrays):
    """The model's parameters alone with the values of `arrays`, each in the parameter's precision and shape."""

    def fill(path, value):
        array = arrays[jax.tree_util.keystr(path, simple=True, separator=".")]
        return jax.numpy.asarray(array, value.dtype).reshape(value.shape)

    return jax.tree_util.tree_map_with_path(fill, eqx.filter(model, eqx.is_inexact_array))


def _flat(name, value):
    """A bias as a vector."""
    array = to_numpy(value)
    return array.reshape(-1) if name.endswith(".bias") else array
