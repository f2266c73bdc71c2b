"""What the program knows of Apache TVM. A model is what runs, a function of a virtual machine, and a list of
parameters, which are given with every call: it is in the order in which `export_tvm` named them. What was exported is
kept: for its names, and to compile it once more with every layer's input and output as results.
"""

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend import nn

from dlrosetta.worker import recording

_run = {"dtype": "float32", "mixed": False}
_export = getattr(nn.Module.export_tvm, "original", nn.Module.export_tvm)  # a worker may load this file twice


def _kept(module, spec, *args, **kwargs):
    """Export in the run's precision; the last module that has parameters is the model's."""
    spec = {name: {key: _cast(given) for key, given in method.items()} for name, method in spec.items()}
    graph, named = _export(module, spec, *args, **kwargs)
    if named:
        _run.update(module=module, spec=spec, names=[name for name, _ in named], recorder=None)
    if _run["mixed"]:
        graph = relax.transform.ToMixedPrecision(out_dtype="bfloat16")(graph)  # there is no other place for the type
    return graph, named


def _cast(given):
    """What stands for an input, if that is of floats, in the run's precision."""
    floats = isinstance(given, nn.spec.Tensor) and given.dtype.startswith("float")
    return nn.spec.Tensor(given.shape, _run["dtype"]) if floats else given


_kept.original = _export
nn.Module.export_tvm = _kept


def describe():
    return {"version": tvm.__version__, "device": "cpu", "threads": tvm.runtime.num_threads()}


def seed(number):
    np.random.seed(number)  # versions draw with NumPy: nn has no initializers


def set_dtype(dtype):
    _run["mixed"] = dtype == "bfloat16"
    _run["dtype"] = "float32" if _run["mixed"] else dtype
    nn.core.set_default_dtype(_run["dtype"])  # of parameters that are not told theirs


def to_native(array):
    return array.astype(np.int32) if array.dtype.kind == "i" else array  # versions take and return NumPy's


def to_numpy(value):
    return value.numpy() if isinstance(value, tvm.runtime.Tensor) else value


def parameters(model):
    _, tensors = model
    return {name: tensor.numpy() for name, tensor in zip(_run["names"], tensors, strict=True)}


def set_parameters(model, arrays):
    _, tensors = model
    tensors[:] = [tvm.runtime.tensor(arrays[name]) for name in _run["names"]]


def record(state, inputs, training):
    if _run["recorder"] is None:
        _run["recorder"] = _recorder(_run["module"], _run["spec"])
    forward, layers = _run["recorder"]
    _, tensors = state.model
    logits, *arrays = [one.numpy() for one in forward(tvm.runtime.tensor(inputs), *tensors)]
    return {layer: (arrays[2 * place], arrays[2 * place + 1]) for place, layer in enumerate(layers)}, logits


def evaluate(version, state, inputs, labels):
    return version.evaluate(state.model, inputs, labels)


class _Work(nn.Module):
    def product(self, a, b):
        return nn.matmul(a, b)

    def copy(self, a):
        return nn.negative(a)

    def convolution(self, a, b):
        return nn.conv2d(a, b, padding=1)


def work(kind, *arrays):
    names = ("a", "b")[: len(arrays)]
    given = {name: nn.spec.Tensor(array.shape, "float32") for name, array in zip(names, arrays, strict=True)}
    graph, _ = _export(_Work(), {kind: given})
    compiled = tvm.compile(relax.get_pipeline("zero")(graph), tvm.target.Target("llvm"))
    compute = relax.VirtualMachine(compiled, tvm.cpu())[kind]
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    return lambda: compute(*tensors)


def synchronize(state, value=None):
    pass  # on a CPU a call returns when all is done


def _recorder(module, spec):
    """A function that returns logits, then what goes into and out of each layer; and those layers, in order."""
    ((name, given),) = spec.items()
    names = []

    def method(x):
        seen, logits = recording.record(_layers(module), lambda: getattr(module, name)(x), lambda value: value)
        names[:] = seen
        return [logits, *(one for pair in seen.values() for one in pair)]

    (value,) = given.values()
    plain = nn.spec.MethodSpec(method, ["x"], [value], param_mode="plain", effect_mode="none")
    graph, _ = _export(module, nn.spec.ModuleSpec(module, ["record"], [plain]))
    graph = relax.get_pipeline("zero")(graph)
    target = tvm.target.Target("llvm")
    return relax.VirtualMachine(tvm.compile(graph, target), tvm.cpu())["record"], names


def _layers(module):
    """Modules that have parameters of their own, by name."""
    found = {}
    for name, _ in module.named_parameters():
        layer = name.rpartition(".")[0]
        one = module
        for part in layer.split("."):
            one = one[int(part)] if part.isdigit() else getattr(one, part)
        found[layer] = one
    return found
