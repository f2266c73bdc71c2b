"""What the program knows of CNTK 2, on Python 3.6. A layer goes by the name that it is given.

Convolution kernels are OIHW. A dense layer takes an image as it is, with a kernel (channels, height, width, out): here
image and kernel are flattened, so that it is (in, out). A layer is a part of a graph that no Python runs, so it is
looked at by asking the graph for what goes into it and comes out of it.

A learner's velocities can be saved but not read from Python (`Learner.create_checkpoint` is opaque), so there is no
optimizer state to hand over: what it does to the parameters is all that is seen of it.
"""

import os
import warnings

import numpy as np

with warnings.catch_warnings():  # that this system is not Ubuntu 16.04, and that there is no CUDA
    warnings.simplefilter("ignore")
    import cntk as C
    from cntk.logging.graph import depth_first_search

_NAMES = {"W": "weight", "b": "bias"}
_memory = {}  # of the latest model: its layers, and the graph that shows what goes in and out


def describe():
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count())
    return {"version": C.__version__, "device": "gpu" if C.use_default_device().type() else "cpu", "threads": threads}


def seed(number):
    C.cntk_py.set_fixed_random_seed(number)
    np.random.seed(number)


def set_dtype(dtype):
    C.default_options(dtype=np.dtype(dtype).type).__enter__()  # for good: of inputs, constants and parameters


def to_native(array):
    return array.astype(np.float32) if array.dtype == np.int64 else array  # labels go in as numbers


def to_numpy(value):
    return value.asarray() if isinstance(value, C.cntk_py.NDArrayView) else np.asarray(value)


def make_optimizer(version, state):
    state.optimizer = version.make_optimizer(state.model)


def layers(model):
    return _opened(model)["layers"]


def parameters(model):
    return {name: _flat(model, name, value.value) for name, value in _parameters(model).items()}


def set_parameters(model, arrays):
    for name, value in _parameters(model).items():
        value.value = arrays[name].reshape(value.shape)


def forward(state, images, training):
    opened = _opened(state.model)
    graph, logits = opened["graph"], opened["logits"]
    # A graph is in training mode where something is to be remembered for a backward pass.
    _, found = graph.forward({graph.arguments[0]: images}, graph.outputs, {logits} if training else None)
    for layer in opened["layers"].values():
        layer.result = found[layer.output]
        received = found.get(layer.input, images)
        layer(received.reshape(len(received), -1) if layer.is_dense else received)
    return found[logits]


def gradients(version, state, images, labels):
    """`loss_fn` gives one loss an example, as CNTK's do; a trainer takes the mean, so the mean is handed over."""
    loss = version.loss_fn(state.model, C.input_variable(()))
    named = _parameters(state.model)
    wanted = [value for value in loss.parameters if value in named.values()]
    inputs, answers = loss.arguments
    found, lost = loss.grad({inputs: images, answers: labels}, wrt=wanted, outputs=[loss.output])
    return np.mean(lost), {
        name: _flat(state.model, name, found[value]) / len(labels) if value in found else None
        for name, value in named.items()
    }


def train_step(version, state, images, labels):
    return version.train_step(state.model, state.optimizer, images, labels)


def apply_gradients(state, gradients):
    named = {value: gradients[name].reshape(value.shape) for name, value in _parameters(state.model).items()}
    for learner in state.optimizer.parameter_learners:
        learner.update({value: named[value] for value in learner.parameters}, 1)


def optimizer_state(state):
    return {}


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, images, labels)


def work(kind, *arrays):
    """A product as a dense layer has it, of a batch and a parameter: one of two constants is computed but once."""
    if kind == "copy":
        given = C.NDArrayView.from_data(arrays[0])
        return given.deep_clone
    batch, matrix = arrays
    inputs, parameter = C.input_variable(batch.shape[1:]), C.parameter(matrix.shape, init=matrix)
    if kind == "convolution":
        compute = C.convolution(parameter, inputs, auto_padding=[False, True, True])
    else:
        compute = C.times(inputs, parameter)
    return lambda: compute.eval({inputs: batch})


def synchronize(state, value=None):
    pass  # a step has ended when it returns


class _Layer(object):
    """One layer of the graph. It is called with what the graph says went in, and answers what came out."""

    def __init__(self, block):
        self.is_dense = block.op_name == "Dense"
        self.parameters = block.parameters
        self.input = next(value for value in block.inputs if not value.is_parameter and not value.is_constant)
        self.output = block.output
        self.result = None

    def __call__(self, received):
        return self.result


def _opened(model):
    """The layers of the model and a graph that puts out what goes into and out of each, made once a model: another
    graph would draw dropout's masks from the start.
    """
    if _memory.get("model") is not model:
        named = depth_first_search(model, lambda node: getattr(node, "is_block", False) and node.name)
        found = {block.name: _Layer(block) for block in named}  # from the last to the first: the first call counts
        ends = [end for layer in found.values() for end in (layer.input, layer.output)] + [model.output]
        outputs = {end.uid: end for end in ends if end not in model.arguments}
        _memory.update(model=model, layers=found, graph=C.combine(list(outputs.values())), logits=model.output)
    return _memory


def _flat(model, name, array):
    """A dense kernel (channels, height, width, out) as (in, out), a bias (out, 1, 1) as (out,); else unchanged."""
    if name.endswith(".bias"):
        return array.reshape(-1)
    return array.reshape(-1, array.shape[-1]) if layers(model)[name.rsplit(".", 1)[0]].is_dense else array


def _parameters(model):
    """Every parameter of every layer, by name."""
    return {
        name + "." + _NAMES.get(value.name, value.name): value
        for name, layer in _opened(model)["layers"].items()
        for value in layer.parameters
    }
