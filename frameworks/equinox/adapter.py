"""What the program knows of Equinox. A parameter's name is its path; kernels are OIHW and (out, in), a convolution's
bias is (out, 1, 1).

A model is a tree that never changes, and takes one example and, where it draws anything, a key: without a key it is
asked for in evaluation mode only. Keys stand for a global seed: a version makes its own from SEED, and the adapter
hands them from step to step as the version's `main` does.

Where a model has batch norm, its running statistics are in a state apart. `build_model` then returns both: a pair
(model, state), or, for inference only, the model bound to its state. The pair's parts are two arguments of `loss_fn`,
which returns (loss, state), of `train_step`, which returns model, state and the rest, and of `evaluate`. The axis of
the batch is called "batch".
"""

import inspect
import os
import re

import equinox as eqx
import jax
import numpy as np

from dlrosetta.worker import mixed, recording
from dlrosetta.worker.device import Jax


def describe():
    threads = int(os.environ.get("PJRT_NPROC") or os.cpu_count())
    return {"version": eqx.__version__, "device": jax.default_backend(), "threads": threads}


def device():
    return None if jax.default_backend() == "cpu" else Jax(jax)


def seed(number):
    pass


def set_dtype(dtype):
    jax.config.update("jax_enable_x64", dtype == "float64")  # what layers and initializers go by
    eqx.nn.BatchNorm.__call__ = _norm_in_float32 if dtype == "bfloat16" else _norm


def prepare_version(version, dtype):
    """Mixed precision as jmp has it: the model is called with its parameters and inputs cast to bfloat16, and what it
    returns is cast to float32. https://github.com/google-deepmind/jmp
    """
    if dtype == "bfloat16":
        mixed.wrap_calls(version, _in_bfloat16, lambda built: _parts(built)[0])


def _in_bfloat16(original):
    def call(self, inputs, *others, **more):
        result = original(_cast(self), _cast(inputs), *others, **more)
        return jax.tree.map(lambda value: _cast(value, jax.numpy.float32), result)

    return call


def _cast(tree, dtype=jax.numpy.bfloat16):
    """The tree with its numbers in `dtype`, but for those of batch norm; the tree itself where they are."""

    def cast(value):
        return value.astype(dtype) if eqx.is_inexact_array(value) else value

    def is_leaf(value):
        return isinstance(value, eqx.nn.BatchNorm)

    numbers = [value for value in jax.tree.leaves(tree, is_leaf=is_leaf) if eqx.is_inexact_array(value)]
    return tree if all(value.dtype == dtype for value in numbers) else jax.tree.map(cast, tree, is_leaf=is_leaf)


_norm = eqx.nn.BatchNorm.__call__


def _norm_in_float32(layer, x, state, **more):
    """Statistics are those of many numbers, which bfloat16 does not add up: jmp too leaves norms in full precision."""
    result, state = _norm(layer, x.astype(jax.numpy.float32), state, **more)
    return result.astype(x.dtype), state


def to_native(array):
    return jax.numpy.asarray(array)


def to_numpy(value):
    array = np.array(value)  # a copy: a train step may reuse the memory of what it is given
    return array.astype(np.float32) if array.dtype == jax.numpy.bfloat16 else array  # not one of NumPy's own


def make_optimizer(version, state):
    state.optimizer, state.slots = version.make_optimizer(_parts(state.model)[0])
    takes_key = "key" in inspect.signature(version.loss_fn).parameters
    state.key = jax.random.key(version.SEED) if takes_key else None


def layers(model):
    children = vars(model) if isinstance(model, eqx.Module) else dict(enumerate(model))
    found = {}
    for name, value in children.items():
        if isinstance(value, eqx.Module) and callable(value):
            found[str(name)] = value
        if isinstance(value, (eqx.Module, list, tuple)):
            found.update({f"{name}.{inner}": layer for inner, layer in layers(value).items()})
    return found


def parameters(model):
    model, *norms = _parts(model)
    found = {name: _flat(name, value) for name, value in _named(eqx.filter(model, eqx.is_inexact_array)).items()}
    for name, layer in _batch_norms(model).items():
        mean, variance = norms[0].get(layer.batch_state_index)
        found.update({f"{name}.running_mean": to_numpy(mean), f"{name}.running_var": to_numpy(variance)})
    return found


def set_parameters(model, arrays):
    alone, *norms = _parts(model)
    norms = jax.tree.map(lambda value: value, norms)  # a copy: setting a value makes the state before it unusable
    for name, layer in _batch_norms(alone).items():
        both = arrays[f"{name}.running_mean"], arrays[f"{name}.running_var"]
        norms = [norms[0].set(layer.batch_state_index, tuple(jax.numpy.asarray(array) for array in both))]
        norms = [norms[0].set(layer.batch_counter, jax.numpy.array(0))]  # of batches that they are an average of
    return _joined(model, eqx.combine(_filled(alone, arrays), alone), *norms)


def forward(state, images, training):
    return record(state, images, training)[1]


def record(state, images, training):
    """Under `vmap` layers see tracers of one example: what is kept is what lies behind them, of the whole batch. A
    layer within a `scan` would see tracers of a compiled loop; without jit, the loop is one of Python.
    """
    model, *norms = _parts(state.model)
    used = model if training else eqx.nn.inference_mode(model)
    used = _cast(used) if mixed.is_wrapped(type(used)) else used  # whose layers are then those that are called
    named, seen = layers(used), {}

    def one(image, norms, *key):
        found, result = recording.record(
            named, lambda: used(image, *norms, *key), lambda value: to_numpy(_whole(value))
        )
        seen.update(found)
        return (result[0], [result[1]]) if norms else (result, [])

    keys = _keys(state, len(images)) if training else []
    with jax.disable_jit():
        mapped = jax.vmap(one, (0, None, *(0 for _ in keys)), (0, None), axis_name="batch")
        logits, norms = mapped(images, norms, *keys)
    if training:
        state.model = _joined(state.model, model, *norms)
    return seen, logits


def gradients(version, state, images, labels):
    model, *norms = _parts(state.model)
    differentiate = eqx.filter_value_and_grad(version.loss_fn, has_aux=bool(norms))
    loss, found = differentiate(model, *norms, images, labels, *_keys(state))
    if norms:
        loss, norms[0] = loss
        state.model = _joined(state.model, model, *norms)
    return loss, {name: _flat(name, value) for name, value in _named(found).items()}


def train_step(version, state, images, labels):
    model, *norms = _parts(state.model)
    key = [] if state.key is None else [state.key]
    model, *results, loss = version.train_step(model, *norms, state.optimizer, state.slots, images, labels, *key)
    if key:
        state.key = results.pop()
    *norms, state.slots = results
    state.model = _joined(state.model, model, *norms)
    return loss


def apply_gradients(state, gradients):
    model, *norms = _parts(state.model)
    found, trained = _filled(model, gradients), eqx.filter(model, eqx.is_inexact_array)
    updates, state.slots = state.optimizer.update(found, state.slots, trained)
    state.model = _joined(state.model, eqx.apply_updates(model, updates), *norms)


def optimizer_state(state):
    slots = {"trace": "velocity", "mu": "m", "nu": "v"}
    found = {}
    for path, value in _named(state.slots).items():
        for slot in slots:
            _, here, name = ("." + path).partition("." + slot + ".")
            if here:
                found[slots[slot] + "/" + name] = _flat(name, value)
    return found


def spread(version, state, images, labels):
    """What is compiled for several devices says for how many, and adds up what each has made of its part."""
    arguments = *_parts(state.model), state.optimizer, state.slots, images, labels
    compiled = version.train_step.lower(*arguments).compile().compiled.as_text()
    partitions = re.search(r"num_partitions=(\d+)", compiled)
    return int(partitions[1]) if partitions and "all-reduce" in compiled else 1


def evaluate(version, state, images, labels):
    return version.evaluate(*_parts(state.model), images, labels)


def work(kind, *arrays):
    """Of a mere copy XLA makes none; by default it multiplies in TF32 where a device has that."""
    given = [jax.numpy.asarray(array) for array in arrays]
    kinds = {"product": jax.numpy.matmul, "copy": jax.numpy.negative, "convolution": _convolution}
    compute = jax.jit(kinds[kind])
    with jax.default_matmul_precision("float32"):
        compute = compute.lower(*given).compile()
    return lambda: compute(*given)


def _convolution(images, kernel):
    return jax.lax.conv(images, kernel, (1, 1), "SAME")


def synchronize(state, value=None):
    slots = getattr(state, "slots", None)  # a model that is not trained has none
    jax.block_until_ready((value, eqx.filter((state.model, slots), eqx.is_array)))


def _parts(model):
    """The model alone, and its state if it has one."""
    if isinstance(model, eqx.Partial):
        return model.func, model.keywords["state"]
    return model if isinstance(model, tuple) else (model,)


def _joined(like, model, *norms):
    """A model and its state, if it has one, together as `like` has them."""
    if isinstance(like, eqx.Partial):
        return eqx.Partial(model, state=norms[0])
    return (model, *norms) if norms else model


def _batch_norms(model):
    """Layers of batch norm by name."""
    return {name: layer for name, layer in layers(model).items() if isinstance(layer, eqx.nn.BatchNorm)}


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
