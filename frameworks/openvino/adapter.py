"""What the program knows of OpenVINO. A model is compiled and never changes: what it was compiled of is kept here, and
another one compiled of a copy that was edited. A parameter is a constant with a name like `conv1.weight`, a layer every
operation that is given one of its parameters; kernels are OIHW and (out, in).
"""

import os
import re

import numpy as np
import openvino as ov
from openvino import opset16 as ops
from openvino.properties import hint, inference_num_threads

_run = {"dtype": "float32"}
_compile = ov.Core.compile_model


def _kept(core, model, *args, **kwargs):
    """Compile for as many threads as the program says, unless the version says otherwise: by default, all cores."""
    core.set_property("CPU", {inference_num_threads: _threads()})
    compiled = _compile(core, model, *args, **kwargs)
    compiled.source = model, args, kwargs
    return compiled


ov.Core.compile_model = _kept  # which `ov.compile_model` calls too


def describe():
    return {"version": ov.__version__, "device": "cpu", "threads": _threads()}


def seed(number):
    np.random.seed(number)  # versions draw with NumPy: a graph has no initializers


def set_dtype(dtype):
    _run["dtype"] = dtype


def to_native(array):
    return array.astype(np.int32) if array.dtype.kind == "i" else array  # a compiled model takes and returns NumPy's


def to_numpy(value):
    return value


def parameters(model):
    return {name: np.array(constant.data) for name, constant in _constants(_copy(model)).items()}


def set_parameters(model, arrays):
    found = _copy(model)
    for name, constant in _constants(found).items():
        constant.output(0).replace(ops.constant(arrays[name], name=name).output(0))
    for given in [one for one in found.get_parameters() if one.get_element_type().is_real()]:
        given.set_element_type(getattr(ov.Type, {"float32": "f32", "float64": "f64"}[_run["dtype"]]))
    found.validate_nodes_and_infer_types()
    return _compiled(found, model)


def forward(state, inputs, training):
    return state.model(inputs)[0]


def record(state, inputs, training):
    """A graph that also puts out what goes into and out of every layer: nothing of that is optimized away."""
    found = _copy(state.model)
    seen, of = {}, {}  # of: by an operation's own name, the layer whose parameter it is, or makes another shape of
    for node in found.get_ordered_ops():
        given = [node.input_value(place) for place in range(node.get_input_size())]
        names = {value.get_node().get_friendly_name() for value in given}
        layers = {of[name] for name in names if name in of}
        fed = [
            value for value in given if not _fixed(value.get_node()) and value.get_node().get_friendly_name() not in of
        ]
        if _name(node) or (layers and not fed):
            of[node.get_friendly_name()] = (_name(node) or "").rpartition(".")[0] or layers.pop()
            continue
        for layer in layers:
            above = fed[0].get_node()  # a layer norm is two operations, and the parameter the second's
            given = above.input_value(0) if above.get_type_name() == "MVN" else fed[0]
            first, last = seen.get(layer, (given, fed[0]))
            if last not in fed:  # a weight that is used once more elsewhere
                continue
            seen[layer] = first, node.output(1 if node.get_type_name() == "GRUSequence" else 0)  # the last state
    (result,) = found.outputs
    wanted = [result.get_node().input_value(0)] + [value for pair in seen.values() for value in pair]
    arrays = _compiled(ov.Model(wanted, found.get_parameters()), state.model)(inputs)
    logits, *rest = [np.array(arrays[place]) for place in range(len(wanted))]
    return {layer: (rest[2 * place], rest[2 * place + 1]) for place, layer in enumerate(seen)}, logits


def evaluate(version, state, inputs, labels):
    return version.evaluate(state.model, inputs, labels)


def work(kind, *arrays):
    given = [ops.parameter(array.shape, np.float32) for array in arrays]
    kinds = {
        "product": lambda: ops.matmul(*given, False, False),
        "copy": lambda: ops.negative(*given),
        "convolution": lambda: ops.convolution(*given, [1, 1], [1, 1], [1, 1], [1, 1]),
    }
    result = kinds[kind]()
    compiled = ov.compile_model(ov.Model([result], given), "CPU", {hint.inference_precision: ov.Type.f32})
    request = compiled.create_infer_request()
    tensors = dict(enumerate(map(ov.Tensor, arrays)))

    def once():
        request.infer(tensors)
        return request.get_output_tensor(0).data

    return once


def synchronize(state, value=None):
    pass  # a call returns when all is done


def _copy(model):
    return ov.Model(model.source[0]).clone()


def _compiled(found, like):
    _, args, kwargs = like.source
    return ov.Core().compile_model(found, *args, **kwargs)


def _constants(found):
    return {_name(node): node for node in found.get_ordered_ops() if _name(node)}


def _fixed(node):
    return node.get_type_name() == "Constant"


def _name(node):
    """A parameter's name, `layer1.0.conv1.weight`; None of other nodes, which have a type and a number for a name."""
    name = node.get_friendly_name()
    return name if _fixed(node) and re.fullmatch(r"\w+(\.\w+)+", name) else None


def _threads():
    return int(os.environ.get("ROSETTA_THREADS", "0")) or os.cpu_count()
