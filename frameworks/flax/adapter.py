"""What the program knows of Flax NNX. A parameter's name is its path, `kernel` being `weight`; kernels are HWIO and
(in, out). The statistics of batch norm are variables of another type, `mean` being `running_mean`.

There is no global seed: a version makes its own generators from SEED.
"""

import os
import re

import flax
import jax
import numpy as np
from flax import nnx

from dlrosetta.worker import mixed
from dlrosetta.worker.device import Jax

_KEPT = (nnx.Param, nnx.BatchStat)
_NAMES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def describe():
    threads = int(os.environ.get("PJRT_NPROC") or os.cpu_count())
    return {"version": flax.__version__, "device": jax.default_backend(), "threads": threads}


def device():
    return None if jax.default_backend() == "cpu" else Jax(jax)


def seed(number):
    pass


def set_dtype(dtype):
    """Layers keep parameters in `param_dtype` and compute in `dtype`, which is that of what they are given where it is
    None. https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/linear.html
    """
    jax.config.update("jax_enable_x64", dtype == "float64")  # only permits it
    half = dtype == "bfloat16"
    for kind in vars(nnx).values():
        defaults = getattr(getattr(kind, "__init__", None), "__kwdefaults__", None) or {}
        if isinstance(kind, type) and "param_dtype" in defaults:
            defaults["param_dtype"] = jax.numpy.dtype("float32" if half else dtype)
            if defaults.get("dtype") in (None, jax.numpy.bfloat16):  # one of its own stays
                defaults["dtype"] = jax.numpy.bfloat16 if half else None


def prepare_version(version, dtype):
    """In mixed precision logits are cast to float32: Optax's losses are in the precision of what they are given."""
    if dtype == "bfloat16":
        mixed.wrap_calls(version, lambda call: lambda *args, **more: call(*args, **more).astype(jax.numpy.float32))


def to_native(array):
    return jax.numpy.asarray(array)


def to_numpy(value):
    array = np.array(value)  # a copy: a train step may reuse the memory of what it is given
    return array.astype(np.float32) if array.dtype == jax.numpy.bfloat16 else array  # not one of NumPy's own


def make_optimizer(version, state):
    state.optimizer = version.make_optimizer(state.model)


def layers(model):
    return {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if path}


def parameters(model):
    return {_name(path): to_numpy(value[...]) for path, value in nnx.to_flat_state(nnx.state(model, _KEPT))}


def set_parameters(model, arrays):
    nnx.update(model, _filled(model, arrays, _KEPT))


def forward(state, images, training):
    state.model.train() if training else state.model.eval()
    return state.model(images)


def gradients(version, state, images, labels):
    state.model.train()
    loss, found = nnx.value_and_grad(version.loss_fn)(state.model, images, labels)
    return loss, {_name(path): to_numpy(value[...]) for path, value in nnx.to_flat_state(found)}


def train_step(version, state, images, labels):
    return version.train_step(state.model, state.optimizer, images, labels)


def apply_gradients(state, gradients):
    state.optimizer.update(state.model, _filled(state.model, gradients))


def optimizer_state(state):
    slots = {"trace": "velocity", "mu": "m", "nu": "v"}
    found = {}
    for path, value in nnx.to_flat_state(nnx.state(state.optimizer)):
        for slot in slots:
            if slot in path and isinstance(value.get_value(), jax.Array):  # what optax masks has no slot
                found[slots[slot] + "/" + _name(path[path.index(slot) + 1 :])] = to_numpy(value[...])
    return found


def spread(version, state, images, labels):
    """What is compiled for several devices says for how many, and adds up what each has made of its part."""
    compiled = version.train_step.lower(state.model, state.optimizer, images, labels).compile().as_text()
    partitions = re.search(r"num_partitions=(\d+)", compiled)
    return int(partitions[1]) if partitions and "all-reduce" in compiled else 1


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, images, labels)


def work(kind, *arrays):
    """Of a mere copy XLA makes none; by default it multiplies in TF32 where a device has that."""
    given = [jax.numpy.asarray(array) for array in arrays]
    kinds = {"product": jax.numpy.matmul, "copy": jax.numpy.negative, "convolution": _convolution}
    compute = jax.jit(kinds[kind])
    with jax.default_matmul_precision("float32"):
        compute = compute.lower(*given).compile()
    return lambda: compute(*given)


def _convolution(images, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=dimensions)


def synchronize(state, value=None):
    jax.block_until_ready((value, nnx.state((state.model, state.optimizer))))


def _name(path):
    *layer, last = path
    return ".".join([*map(str, layer), _NAMES.get(last, last)])


def _filled(model, arrays, kinds=nnx.Param):
    """The state of the model's parameters with the values of `arrays`, by name, each in the parameter's precision.

    Batch norm makes its statistics in float32 whatever its `param_dtype`: they get that of `arrays`.
    """

    def fill(path, value):
        dtype = None if isinstance(value, nnx.BatchStat) else value.dtype
        return value.replace(jax.numpy.asarray(arrays[_name(path)], dtype))

    return nnx.map_state(fill, nnx.state(model, kinds))
