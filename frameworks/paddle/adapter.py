"""What the program knows of PaddlePaddle. Parameters have its own names; kernels are OIHW, but dense ones (in, out).

A model may be compiled by `paddle.jit.to_static`: what must see every layer's values runs it uncompiled.
"""

import os
import socket
import time

import numpy as np
import paddle
import paddle.distributed as dist

from dlrosetta.worker.device import Events

STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}  # Paddle's last part of a name: the texts'
OWN_STATISTICS = {ours: own for own, ours in STATISTICS.items()}

_mixed = False


def describe():
    if "ROSETTA_MEETING" in os.environ:
        _meet(os.environ["ROSETTA_MEETING"])
    device = paddle.device.get_device()
    return {"version": paddle.__version__, "device": device, "threads": int(os.environ["ROSETTA_THREADS"])}


class Gpu(Events):
    """https://www.paddlepaddle.org.cn/documentation/docs/en/api/paddle/device/Overview_en.html"""

    def __init__(self):
        super().__init__(paddle.device.Event)

    def reset_memory(self):
        paddle.device.cuda.reset_max_memory_allocated()

    def peak_memory(self):
        return paddle.device.cuda.max_memory_allocated()

    def full_float32(self):
        """Its switches of TF32 have no public name."""
        paddle.base.core.set_cublas_switch(False)
        paddle.base.core.set_cudnn_switch(False)

    def arithmetic(self):
        tf32 = paddle.base.core.get_cublas_switch() or paddle.base.core.get_cudnn_switch()
        (autotune,) = paddle.get_flags("FLAGS_cudnn_exhaustive_search").values()
        return {"tf32": bool(tf32), "autotune": bool(autotune)}


def device():
    return Gpu() if paddle.device.is_compiled_with_cuda() and paddle.device.get_device().startswith("gpu") else None


def seed(number):
    paddle.seed(number)
    np.random.seed(number)  # paddle.io's samplers shuffle with NumPy


def set_dtype(dtype):
    """Mixed precision by auto_cast at level O1: of the forward pass and the loss.
    https://www.paddlepaddle.org.cn/documentation/docs/en/api/paddle/amp/auto_cast_en.html
    """
    global _mixed
    _mixed = dtype == "bfloat16"
    paddle.set_default_dtype("float32" if _mixed else dtype)


def prepare_version(version, dtype):
    if _mixed:
        for name in ("loss_fn", "predict", "evaluate"):
            if hasattr(version, name):
                setattr(version, name, _autocast()(getattr(version, name)))


def _autocast():
    return paddle.amp.auto_cast(_mixed, level="O1", dtype="bfloat16")


def to_native(array):
    return paddle.to_tensor(array)


def to_numpy(value):
    return (value.astype("float32") if value.dtype == paddle.bfloat16 else value).numpy()  # NumPy has none


def make_optimizer(version, state):
    """`state.optimizer` alone, or with the schedule of its rate."""
    made = version.make_optimizer(state.model)
    state.stepped = made if isinstance(made, tuple) else (made,)  # what the version's train step is given
    state.optimizer = state.stepped[0]


def layers(model):
    return dict(_alone(model).named_sublayers())


def parameters(model):
    """Not by `state_dict`, which has a recurrent layer's twice: its own, and its cell's. The running statistics of
    batch norm are among them: parameters that are not trained.
    """
    return {_renamed(name, STATISTICS): to_numpy(value) for name, value in _alone(model).named_parameters()}


def set_parameters(model, arrays):
    _alone(model).set_state_dict({_renamed(name, OWN_STATISTICS): array for name, array in arrays.items()})


def forward(state, images, training):
    state.model.train() if training else state.model.eval()
    paddle.jit.enable_to_static(False)
    try:
        with paddle.no_grad(), _autocast():
            return state.model(images)
    finally:
        paddle.jit.enable_to_static(True)


def gradients(version, state, images, labels):
    state.model.train()
    loss = version.loss_fn(state.model, images, labels)
    loss.backward()
    found = {
        name: None if value.grad is None else to_numpy(value.grad) for name, value in state.model.named_parameters()
    }
    _forget_gradients(state.model)
    return loss, found


def train_step(version, state, images, labels):
    return version.train_step(state.model, *state.stepped, images, labels)


def apply_gradients(state, gradients):
    for name, value in state.model.named_parameters():
        if name in gradients:  # statistics have none
            value.grad = paddle.to_tensor(gradients[name])
    state.optimizer.step()
    for schedule in state.stepped[1:]:
        schedule.step()
    _forget_gradients(state.model)


def optimizer_state(state):
    """Paddle names a slot after the parameter's own name, such as conv2d_0.w_0, and the accumulator."""
    kept, slots = state.optimizer.state_dict(), {"velocity": "velocity", "moment1": "m", "moment2": "v"}
    return {
        slots[slot] + "/" + name: to_numpy(kept[value.name + "_" + slot + "_0"])
        for name, value in _alone(state.model).named_parameters()
        for slot in slots
        if value.name + "_" + slot + "_0" in kept
    }


def spread(version, state, images, labels):
    """Gradients are averaged over the process group where the model is wrapped."""
    return dist.get_world_size() if isinstance(state.model, paddle.DataParallel) else 1


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, images, labels)


def work(kind, *arrays):
    given = [paddle.to_tensor(array) for array in arrays]
    out = paddle.empty_like(given[0])
    kinds = {
        "product": lambda: paddle.matmul(*given),
        "copy": lambda: paddle.assign(*given, output=out),
        "convolution": lambda: paddle.nn.functional.conv2d(*given, padding=1),
    }
    return kinds[kind]


def synchronize(state, value=None):
    if paddle.device.is_compiled_with_cuda():
        paddle.device.synchronize()


def _meet(meeting):
    """Join the other processes at a free port, which the first has found and written to the file `meeting`."""
    if dist.get_rank() == 0:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            endpoint = "127.0.0.1:%d" % found.getsockname()[1]
        with open(meeting + ".new", "w") as file:
            file.write(endpoint)
        os.replace(meeting + ".new", meeting)
    while not os.path.exists(meeting):
        time.sleep(0.05)
    with open(meeting) as file:
        os.environ["PADDLE_MASTER"] = file.read()
    os.environ["PADDLE_CURRENT_ENDPOINT"] = "127.0.0.1:0"  # must be set, and is not used
    dist.init_parallel_env()


def _alone(model):
    """The model within what averages its gradients over processes."""
    return model._layers if isinstance(model, paddle.DataParallel) else model


def _renamed(name, names):
    layer, _, last = name.rpartition(".")
    return f"{layer}.{names[last]}" if last in names else name


def _forget_gradients(model):
    for value in model.parameters():
        value.clear_gradient(False)  # to none, not to zero
