"""What the program knows of tinygrad. Parameters are called what tinygrad calls them; kernels are OIHW and (out, in).

A tensor is a plan until it is realized. Training is a context, and there are no layers for dropout.
"""

import os
from importlib import metadata

import numpy as np
from tinygrad import Context, Device, Tensor, TinyJit, nn
from tinygrad.dtype import DEFAULT_FLOAT
from tinygrad.helpers import getenv


def describe():
    threads = int(os.environ["ROSETTA_THREADS"])
    return {"version": metadata.version("tinygrad"), "device": Device.DEFAULT.lower(), "threads": threads}


def seed(number):
    Tensor.manual_seed(number)
    np.random.seed(number)


def set_dtype(dtype):
    DEFAULT_FLOAT.value = dtype
    os.environ["OPTIM_DTYPE"] = dtype  # of the velocities; asked for once and remembered
    getenv.cache_clear()


def to_native(array):
    """Labels are int32, as loaders have them: what TinyJit has recorded takes no other type."""
    return Tensor(array if array.dtype.kind == "f" else array.astype(np.int32)).realize()


def to_numpy(value):
    """Realized itself, or whatever is computed from it later would compute it again."""
    return value.realize().numpy() if isinstance(value, Tensor) else np.array(value)


def make_optimizer(version, state):
    """`state.optimizer` alone, or with the number of its steps."""
    made = version.make_optimizer(state.model)
    state.stepped = made if isinstance(made, tuple) else (made,)  # what the version's train step is given
    state.optimizer, state.version = state.stepped[0], version


def layers(model, prefix=""):
    """Whatever has tensors and can be called, by its place in the model; tinygrad knows no modules."""
    found = {}
    entries = enumerate(model) if isinstance(model, (list, tuple)) else vars(model).items()
    for key, value in entries:
        if isinstance(value, Tensor) or not nn.state.get_state_dict(value):
            continue
        if callable(value):
            found[f"{prefix}{key}"] = value
        found.update(layers(value, f"{prefix}{key}."))
    return found


def parameters(model):
    return {name: to_numpy(value) for name, value in _floating(model).items()}


def set_parameters(model, arrays):
    given = {name: Tensor(array) for name, array in arrays.items()}
    nn.state.load_state_dict(model, {**nn.state.get_state_dict(model), **given}, verbose=False)  # counters stay


def forward(state, images, training):
    with Context(TRAINING=int(training)):
        return state.model(images).realize()


def gradients(version, state, images, labels):
    named = _floating(state.model)
    with Context(TRAINING=1):
        loss = version.loss_fn(state.model, images, labels).backward()
        Tensor.realize(loss, *(value.grad for value in named.values() if value.grad is not None))
    found = {name: None if value.grad is None else to_numpy(value.grad) for name, value in named.items()}
    for value in named.values():
        value.grad = None
    return loss, found


def train_step(version, state, images, labels):
    """A compiled step puts every loss into the same buffer: what is kept must be a copy."""
    loss = version.train_step(state.model, *state.stepped, images, labels)
    return loss.clone().realize() if isinstance(loss, Tensor) else loss


def apply_gradients(state, gradients):
    """Where the rate has a schedule, the train step clips and schedules: it gets a loss that has these gradients, and
    is not recorded.
    """
    if len(state.stepped) > 1:
        given = {name: Tensor(array).realize() for name, array in gradients.items()}

        def linear(model, images, labels):
            return sum((value * given[name]).sum() for name, value in _floating(model).items())

        original, state.version.loss_fn = state.version.loss_fn, linear
        try:
            with Context(JIT=0):
                state.version.train_step(state.model, *state.stepped, Tensor([0]), Tensor([0]))
        finally:
            state.version.loss_fn = original
        return
    for name, value in _floating(state.model).items():
        if name in gradients:  # statistics of batch norm have none
            value.grad = Tensor(gradients[name]).realize()
    with Context(TRAINING=1):
        state.optimizer.step()
    state.optimizer.zero_grad()


def optimizer_state(state):
    """Of one optimizer, or of each of a group."""
    names = {id(value): name for name, value in nn.state.get_state_dict(state.model).items()}
    slots = {"b": "velocity", "m": "m", "v": "v"}  # tinygrad's own: the texts'; no velocities without momentum
    return {
        f"{slots[slot]}/{names[id(value)]}": to_numpy(kept)
        for optimizer in getattr(state.optimizer, "optimizers", [state.optimizer])
        for slot in slots
        for value, kept in zip(optimizer.params, getattr(optimizer, slot, []), strict=False)
    }


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, to_numpy(images), to_numpy(labels))  # its loader takes NumPy arrays


def _floating(model):
    """Parameters and statistics, without the counters of batch norm."""
    return {name: value for name, value in nn.state.get_state_dict(model).items() if value.is_floating_point()}


def work(kind, *arrays):
    kinds = {
        "product": Tensor.matmul,
        "copy": lambda x: (-x).realize(),
        "convolution": lambda x, w: x.conv2d(w, padding=1).realize(),
    }
    compute = TinyJit(kinds[kind])
    given = [Tensor(array).realize() for array in arrays]
    return lambda: compute(*given)


def synchronize(state, value=None):
    if value is not None:
        value.realize()  # a batch that nobody asked for yet
    Device[Device.DEFAULT].synchronize()
