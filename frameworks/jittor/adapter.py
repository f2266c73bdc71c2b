"""What the program knows of Jittor. Parameters are called what Jittor calls them; kernels are OIHW and (out, in).

Variables are plans until they are read. Layers are made in float32: for float64 the version's `build_model` is followed
by Jittor's own `float64`.
"""

import os
from pathlib import Path


def _offer_onednn():
    """Jittor downloads oneDNN for its CPU kernels; where that is installed, it is put in the place of the download."""
    place = Path(os.environ["JITTOR_HOME"], ".cache/jittor/mkl/dnnl_lnx_2.2.0_cpu_gomp")
    if place.exists():
        return
    (place / "lib").mkdir(parents=True)
    (place / "include").symlink_to("/usr/include")
    library = Path("/usr/lib", f"{os.uname().machine}-linux-gnu", "libdnnl.so.2")
    for name in ("libdnnl.so", "libmkldnn.so"):
        (place / "lib" / name).symlink_to(library)


_offer_onednn()

import jittor as jt  # noqa: E402
import numpy as np  # noqa: E402


def describe():
    return {"version": jt.__version__, "device": "cpu", "threads": int(os.environ["ROSETTA_THREADS"])}


def seed(number):
    jt.set_global_seed(number)


def set_dtype(dtype):
    pass


def prepare_version(version, dtype):
    if dtype == "float32":
        return
    build = version.build_model
    version.build_model = lambda: build().float64()


def to_native(array):
    return jt.array(array.astype(np.int32) if array.dtype == np.int64 else array)


def to_numpy(value):
    return value.numpy() if isinstance(value, jt.Var) else np.asarray(value)


def make_optimizer(version, state):
    state.optimizer = version.make_optimizer(state.model)


def layers(model):
    return {name: module for name, module in model.named_modules() if name}


def parameters(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def set_parameters(model, arrays):
    model.load_state_dict(dict(arrays))


def forward(state, images, training):
    state.model.train() if training else state.model.eval()
    with jt.no_grad():
        return state.model(images)


def gradients(version, state, images, labels):
    state.model.train()
    named = dict(state.model.named_parameters())
    loss = version.loss_fn(state.model, images, labels)
    found = jt.grad(loss, list(named.values()))
    loss = to_numpy(loss).reshape(())  # its scalars have the shape (1,)
    return loss, {name: to_numpy(value) for name, value in zip(named, found, strict=True)}


def train_step(version, state, images, labels):
    return version.train_step(state.model, state.optimizer, images, labels)


def apply_gradients(state, gradients):
    """The optimizer differentiates a loss itself: it gets one that has these gradients."""
    state.model.train()
    state.optimizer.step(
        sum((value * jt.array(gradients[name])).sum() for name, value in state.model.named_parameters())
    )


def optimizer_state(state):
    names = {id(value): name for name, value in state.model.named_parameters()}
    return {
        "velocity/" + names[id(value)]: to_numpy(slot)
        for group in state.optimizer.param_groups
        for value, slot in zip(group["params"], group.get("values", ()), strict=False)
    }


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, to_numpy(images), to_numpy(labels))  # its loader takes NumPy arrays


def synchronize(state, value=None):
    jt.sync_all(True)
