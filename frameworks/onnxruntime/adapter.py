"""What the program knows of ONNX Runtime. A model is an `InferenceSession`, which never changes: its graph is read, and
another session made of one that was edited. A parameter is an initializer with a name like `conv1.weight`, a layer
every node that is given one of its parameters; kernels are OIHW and (out, in).
"""

import os

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

_TYPES = {"float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE}
_run = {"dtype": "float32"}


class _Threaded(ort.InferenceSession):
    """Of as many threads as the program says, unless the version says otherwise: the default is every core."""

    def __init__(self, model, sess_options=None, *args, **kwargs):
        options = sess_options or ort.SessionOptions()
        options.intra_op_num_threads = options.intra_op_num_threads or _threads()
        super().__init__(model, options, *args, **kwargs)


ort.InferenceSession = _Threaded


def describe():
    device = "cuda" if "CUDAExecutionProvider" in ort.get_available_providers() else "cpu"
    return {"version": ort.__version__, "device": device, "threads": _threads()}


def seed(number):
    np.random.seed(number)  # versions draw with NumPy: ONNX has no initializers


def set_dtype(dtype):
    _run["dtype"] = dtype


def to_native(array):
    return array.astype(np.int32) if array.dtype.kind == "i" else array  # a session takes and returns NumPy's


def to_numpy(value):
    return value


def parameters(model):
    return {one.name: numpy_helper.to_array(one) for one in _initializers(_graph(model))}


def set_parameters(model, arrays):
    found = _graph(model)
    for one in _initializers(found):
        one.CopyFrom(numpy_helper.from_array(arrays[one.name], one.name))
    for value in [*found.graph.input, *found.graph.output]:
        if value.type.tensor_type.elem_type in _TYPES.values():
            value.type.tensor_type.elem_type = _TYPES[_run["dtype"]]
    del found.graph.value_info[:]  # what was inferred of another precision
    return _session(found, model)


def forward(state, inputs, training):
    (name,) = [value.name for value in state.model.get_inputs()]
    return state.model.run(None, {name: inputs})[0]


def record(state, inputs, training):
    """A graph that also puts out what goes into and out of every layer: nothing of that is optimized away."""
    found = _graph(state.model)
    of = {one.name: one.name.rpartition(".")[0] for one in _initializers(found)}  # a parameter, or another shape of it
    fixed = {one.name for one in found.graph.initializer} | {""}
    seen, turned = {}, set()  # turned: layers whose arrays have time first, as a GRU's have
    for node in found.graph.node:
        layers = {of[name] for name in node.input if name in of}
        fed = [name for name in node.input if name not in fixed and name not in of]
        if layers and not fed:
            of[node.output[0]] = layers.pop()
            continue
        fixed.update(node.output if not fed else ())
        for layer in layers:
            first, last = seen.get(layer, (fed[0], fed[0]))
            if last not in fed:  # a weight that is used once more elsewhere
                continue
            seen[layer] = first, node.output[1 if node.op_type == "GRU" else 0]  # of a GRU the last state
            turned.update([layer] if node.op_type == "GRU" else [])
    (given,), (result,) = ([value.name for value in values] for values in (found.graph.input, found.graph.output))
    wanted = sorted({name for pair in seen.values() for name in pair} - {given, result})
    found.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    values = _session(found, state.model).run([result, *wanted], {given: inputs})
    known = dict(zip([result, *wanted], values, strict=True), **{given: inputs})
    told = {layer: (known[before], known[after]) for layer, (before, after) in seen.items()}
    told.update({layer: tuple(array.swapaxes(0, 1) for array in told[layer]) for layer in turned})
    return told, known[result]


def evaluate(version, state, inputs, labels):
    return version.evaluate(state.model, inputs, labels)


def work(kind, *arrays):
    """Bound to memory of its own: what `run` returns to Python is copied once more."""
    names = [str(place) for place in range(len(arrays))]
    shapes = [array.shape for array in (*arrays, arrays[0])]
    *given, told = [
        onnx.helper.make_tensor_value_info(name, _TYPES["float32"], shape)
        for name, shape in zip([*names, "out"], shapes, strict=True)
    ]
    padded = {"pads": [1, 1, 1, 1]} if kind == "convolution" else {}
    operation = {"product": "MatMul", "copy": "Neg", "convolution": "Conv"}[kind]
    node = onnx.helper.make_node(operation, names, ["out"], **padded)
    graph = onnx.helper.make_model(onnx.helper.make_graph([node], kind, given, [told]))
    session = ort.InferenceSession(graph.SerializeToString(), providers=ort.get_available_providers())
    bound, out = session.io_binding(), ort.OrtValue.ortvalue_from_numpy(np.empty_like(arrays[0]))
    for name, array in zip(names, arrays, strict=True):
        bound.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    bound.bind_ortvalue_output("out", out)

    def once():
        session.run_with_iobinding(bound)
        return out.numpy()

    return once


def synchronize(state, value=None):
    pass  # `run` returns when all is done


def _graph(model):
    """What a session was made of; it keeps the bytes."""
    return onnx.load_from_string(model._model_bytes)


def _session(graph, like):
    return ort.InferenceSession(graph.SerializeToString(), like.get_session_options(), providers=like.get_providers())


def _initializers(found):
    """Those that are parameters, `conv1.weight`, and not an operation's constants, which may be named const_0.5_f32."""
    parts = [(one, one.name.rpartition(".")) for one in found.graph.initializer]
    return [one for one, (layer, _, name) in parts if layer and name.isidentifier()]


def _threads():
    return int(os.environ.get("ROSETTA_THREADS", "0")) or os.cpu_count()
