"""What the program knows of OneFlow. Parameters are called as in PyTorch, whose interface it takes; kernels are OIHW
and (out, in).
"""

import functools
import os

import oneflow as flow

_mixed = False


def describe():
    threads = int(os.environ["ROSETTA_THREADS"])
    flow.set_num_threads(threads)
    return {"version": flow.__version__, "device": "cuda" if flow.cuda.is_available() else "cpu", "threads": threads}


def seed(number):
    flow.manual_seed(number)


def set_dtype(dtype):
    """Mixed precision by autocast: of the forward pass and the loss."""
    global _mixed
    _mixed = dtype == "bfloat16"
    flow.set_default_dtype(flow.float32 if _mixed else getattr(flow, dtype))


def prepare_version(version, dtype):
    if _mixed:
        for name in ("loss_fn", "predict", "evaluate"):
            if hasattr(version, name):
                setattr(version, name, _autocast()(getattr(version, name)))


def to_native(array):
    return flow.from_numpy(array.copy())


def to_numpy(value):
    return value.detach().cpu().numpy()


def make_optimizer(version, state):
    state.optimizer = version.make_optimizer(state.model)


def layers(model):
    return {name: module for name, module in model.named_modules() if name}


def parameters(model):
    return {name: to_numpy(value).copy() for name, value in model.state_dict().items() if value.is_floating_point()}


def set_parameters(model, arrays):
    wanted = {name: value for name, value in model.state_dict().items() if not value.is_floating_point()}
    model.load_state_dict({**wanted, **{name: flow.from_numpy(array) for name, array in arrays.items()}}, strict=True)


def forward(state, images, training):
    state.model.train(training)
    with flow.no_grad(), _autocast():
        return state.model(images.to(_device(state)))


def gradients(version, state, images, labels):
    state.model.train()
    _forget_gradients(state.model)
    loss = version.loss_fn(state.model, images.to(_device(state)), labels.to(_device(state)))
    loss.backward()
    found = {
        name: None if value.grad is None else to_numpy(value.grad).copy()
        for name, value in state.model.named_parameters()
    }
    _forget_gradients(state.model)
    return loss, found


def train_step(version, state, images, labels):
    return version.train_step(state.model, state.optimizer, images, labels)


def apply_gradients(state, gradients):
    for name, value in state.model.named_parameters():
        value.grad = flow.from_numpy(gradients[name]).to(value.device)
    state.optimizer.step()
    _forget_gradients(state.model)


def optimizer_state(state):
    names = {id(value): name for name, value in state.model.named_parameters()}
    slots = {"momentum_buf": "velocity", "exp_avg": "m", "exp_avg_sq": "v"}
    return {
        slots[slot] + "/" + names[id(value)]: to_numpy(array).copy()
        for value, entries in state.optimizer._state.items()
        if id(value) in names
        for slot, array in entries.items()
    }


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, images, labels)


def work(kind, *arrays):
    given = [flow.from_numpy(array) for array in arrays]
    convolution = functools.partial(flow.nn.functional.conv2d, padding=1)
    compute = {"product": flow.matmul, "copy": flow.Tensor.clone, "convolution": convolution}[kind]
    return lambda: compute(*given)


def synchronize(state, value=None):
    flow._oneflow_internal.eager.Sync()


def _autocast():
    return flow.amp.autocast("cuda" if flow.cuda.is_available() else "cpu", dtype=flow.bfloat16, enabled=_mixed)


def _device(state):
    return next(state.model.parameters()).device


def _forget_gradients(model):
    for value in model.parameters():
        value.grad = None
