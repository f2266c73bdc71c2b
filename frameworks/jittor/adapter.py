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
    """Level 4 of mixed precision prefers 16 bits, and 32 for sums (src/var.cc)."""
    jt.flags.auto_mixed_precision_level = 4 if dtype == "bfloat16" else 0


def prepare_version(version, dtype):
    if dtype == "float64":
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
    """What it calls values is a velocity in SGD, and the second moment where there is a first."""
    names = {id(value): name for name, value in state.model.named_parameters()}
    return {
        slot + "/" + names[id(value)]: to_numpy(array)
        for group in state.optimizer.param_groups
        for slot, key in ({"m": "m", "v": "values"} if "m" in group else {"velocity": "values"}).items()
        for value, array in zip(group["params"], group[key], strict=True)
    }


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, to_numpy(images), to_numpy(labels))  # its loader takes NumPy arrays


def work(kind, *arrays):
    given = [jt.array(array) for array in arrays]
    kinds = {"product": jt.matmul, "copy": lambda x: -x, "convolution": lambda x, w: jt.nn.conv2d(x, w, padding=1)}
    compute = kinds[kind]

    def once():
        result = compute(*given)
        result.sync()  # or what nobody reads would not be computed
        return result

    return once


def synchronize(state, value=None):
    jt.sync_all(True)
