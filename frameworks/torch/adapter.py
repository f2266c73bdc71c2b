"""What the program knows of PyTorch. Parameters are called what PyTorch calls them; kernels are OIHW and (out, in)."""

import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dlrosetta.worker.device import Torch

_mixed = False


def describe():
    torch.set_num_threads(int(os.environ.get("ROSETTA_THREADS", "0")) or torch.get_num_threads())
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    if "ROSETTA_MEETING" in os.environ:
        rank, replicas = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        if device.type != "cpu":
            torch.accelerator.set_device_index(rank % torch.accelerator.device_count())
        meeting = "file://" + os.environ["ROSETTA_MEETING"]
        dist.init_process_group(init_method=meeting, rank=rank, world_size=replicas)
    return {"version": torch.__version__, "device": str(device), "threads": torch.get_num_threads()}


def device():
    return Torch(torch) if torch.cuda.is_available() else None


def seed(number):
    torch.manual_seed(number)


def set_dtype(dtype):
    """Mixed precision by autocast: of the forward pass and the loss, not of the backward pass and the optimizer.
    https://docs.pytorch.org/docs/stable/amp.html
    """
    global _mixed
    _mixed = dtype == "bfloat16"
    torch.set_default_dtype(torch.float32 if _mixed else getattr(torch, dtype))


def prepare_version(version, dtype):
    if _mixed:
        for name in ("loss_fn", "predict", "evaluate"):
            if hasattr(version, name):
                setattr(version, name, _autocast()(getattr(version, name)))


def tune(version, switch):
    """Make a version faster and change nothing else: what more is to be had on the tuned track."""
    switches = {"channels_last": _channels_last, "compile": _compile, "fused": _fused}
    if switch not in switches:
        raise ValueError("Expected a switch: %s. Received: %r" % (", ".join(switches), switch))
    switches[switch](version)


def _channels_last(version):
    """https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html"""
    build_model = version.build_model
    version.build_model = lambda: build_model().to(memory_format=torch.channels_last)


def _compile(version):
    """https://docs.pytorch.org/docs/stable/generated/torch.compile.html"""
    name = "loss_fn" if hasattr(version, "loss_fn") else "predict"
    setattr(version, name, torch.compile(getattr(version, name)))


def _fused(version):
    """One kernel for all parameters: https://docs.pytorch.org/docs/stable/optim.html"""
    make_optimizer = version.make_optimizer

    def made(model):
        found = make_optimizer(model)
        for group in (found[0] if isinstance(found, tuple) else found).param_groups:
            group["fused"] = True
        return found

    version.make_optimizer = made


def to_native(array):
    tensor = torch.from_numpy(array.copy())
    return tensor if tensor.is_floating_point() else tensor.long()  # class indices are int64 in PyTorch


def to_numpy(value):
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # NumPy has none


def make_optimizer(version, state):
    """`state.optimizer` alone, or with the schedule of its rate."""
    made = version.make_optimizer(state.model)
    state.stepped = made if isinstance(made, tuple) else (made,)  # what the version's train step is given
    state.optimizer, state.version = state.stepped[0], version


def layers(model):
    return {name: module for name, module in _alone(model).named_modules() if name}


def parameters(model):
    return {name: to_numpy(value) for name, value in _alone(model).state_dict().items() if value.is_floating_point()}


def set_parameters(model, arrays):
    model = _alone(model)
    wanted = {
        name: value for name, value in model.state_dict().items() if not value.is_floating_point()
    }  # counters stay
    model.load_state_dict({**wanted, **{name: torch.from_numpy(array) for name, array in arrays.items()}}, strict=True)


def forward(state, images, training):
    state.model.train(training)
    with torch.no_grad(), _autocast():
        return state.model(images.to(_device(state)))


def gradients(version, state, images, labels):
    state.model.train()
    state.model.zero_grad()
    loss = version.loss_fn(state.model, images.to(_device(state)), labels.to(_device(state)))
    loss.backward()
    found = {
        name: None if value.grad is None else to_numpy(value.grad) for name, value in state.model.named_parameters()
    }
    state.model.zero_grad()
    return loss, found


def train_step(version, state, images, labels):
    return version.train_step(state.model, *state.stepped, images, labels)


def apply_gradients(state, gradients):
    """Where the rate has a schedule, the train step clips and schedules: it gets a loss that has these gradients."""
    if len(state.stepped) > 1:
        given = {name: torch.from_numpy(array) for name, array in gradients.items()}

        def linear(model, images, labels):
            return sum((value * given[name].to(value.device)).sum() for name, value in model.named_parameters())

        original, state.version.loss_fn = state.version.loss_fn, linear
        try:
            state.version.train_step(state.model, *state.stepped, torch.zeros(0), torch.zeros(0))
        finally:
            state.version.loss_fn = original
        return
    for name, value in state.model.named_parameters():
        value.grad = torch.from_numpy(gradients[name]).to(value.device)
    state.optimizer.step()
    state.optimizer.zero_grad()


def optimizer_state(state):
    names = {id(value): name for name, value in _alone(state.model).named_parameters()}
    slots = {"momentum_buffer": "velocity", "exp_avg": "m", "exp_avg_sq": "v"}
    return {
        slots[slot] + "/" + names[id(value)]: to_numpy(array)
        for value, entries in state.optimizer.state.items()
        for slot, array in entries.items()
        if slot in slots and array is not None
    }


def spread(version, state, images, labels):
    """Gradients are averaged over the process group where the model is wrapped."""
    return dist.get_world_size() if isinstance(state.model, DistributedDataParallel) else 1


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, images, labels)


def work(kind, *arrays):
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    given = [torch.from_numpy(array).to(device) for array in arrays]
    out = torch.empty_like(given[0])
    kinds = {
        "product": lambda: torch.mm(*given, out=out),
        "copy": lambda: out.copy_(*given),
        "convolution": lambda: torch.nn.functional.conv2d(*given, padding=1),
    }
    return kinds[kind]


def synchronize(state, value=None):
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _autocast():
    kind = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    return torch.autocast(kind, torch.bfloat16, enabled=_mixed)


def _alone(model):
    """The model within what averages its gradients over processes."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def _device(state):
    return next(state.model.parameters()).device
