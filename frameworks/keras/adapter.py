"""What the program knows of Keras, on any backend. A layer goes by its name; kernels are HWIO and (in, out).

keras_jax, keras_openvino, keras_tensorflow and keras_torch name this file in their framework.toml. The backend matters
where gradients are taken and where the device is waited for; all else is Keras.
"""

import functools
import inspect
import os
import re

import keras

from dlrosetta.worker import recording
from dlrosetta.worker.device import Jax, TensorFlow, Torch

_NAMES = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
_NAMES["moving_variance"] = "running_var"
BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax
elif BACKEND == "tensorflow":
    import tensorflow as tf
    from tensorflow.python.eager import context
elif BACKEND == "openvino":
    import openvino as ov
else:
    import torch


def describe():
    threads = int(os.environ["ROSETTA_THREADS"])
    if BACKEND == "jax":
        device = jax.default_backend()
    elif BACKEND == "tensorflow":
        _divide_cpu(int(os.environ.get("ROSETTA_DEVICES", "1")))
        device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    elif BACKEND == "openvino":
        _configure_openvino(threads)
        device = "cpu"
    else:
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"version": keras.__version__, "device": device, "threads": threads}


def device():
    """What its backend tells of a GPU. OpenVINO runs on the CPU here."""
    if BACKEND == "jax":
        return None if jax.default_backend() == "cpu" else Jax(jax)
    if BACKEND == "tensorflow":
        return TensorFlow(tf) if tf.config.get_visible_devices("GPU") else None
    if BACKEND == "torch":
        return Torch(torch) if torch.cuda.is_available() else None
    return None


def seed(number):
    keras.utils.set_random_seed(number)


def set_dtype(dtype):
    if BACKEND == "jax":
        jax.config.update("jax_enable_x64", dtype == "float64")
    mixed = dtype == "bfloat16"  # https://keras.io/api/mixed_precision/; Keras's losses are in float32 by themselves
    keras.config.set_floatx("float32" if mixed else dtype)
    keras.config.set_dtype_policy("mixed_bfloat16" if mixed else dtype)


def to_native(array):
    return array  # Keras takes numpy arrays


def to_numpy(value):
    array = keras.ops.convert_to_numpy(value)
    return array.astype("float32") if array.dtype.name == "bfloat16" else array  # not one of NumPy's own


def make_optimizer(version, state):
    made = version.make_optimizer(state.model)
    state.optimizer = getattr(state.model, "optimizer", None) or made  # a compiled model's steps take its own


def layers(model, above=""):
    """Every layer of Keras's models by name; of the version's own by attribute, what is within by `outer.inner`."""
    if _is_whole(model):
        return {layer.name: layer for layer in model.layers}
    found = {}
    for name, value in {**vars(model), **getattr(model, "_modules", {})}.items():  # on PyTorch a model is a module
        entries = {name: value}
        if isinstance(value, list) and not name.startswith("_"):
            entries = {f"{name}.{number}": one for number, one in enumerate(value)}
        for place, layer in entries.items():
            if isinstance(layer, keras.layers.Layer):
                found[above + place] = layer
                found.update({} if _is_whole(layer) else layers(layer, above + place + "."))
    return found


def _is_whole(layer):
    """Whether it is one of Keras's own layers, whose parts are nobody's business."""
    return type(layer).__module__.startswith("keras.")


def parameters(model):
    return {name: to_numpy(variable) for name, variable in _variables(model).items()}


def set_parameters(model, arrays):
    for name, variable in _variables(model).items():
        variable.assign(arrays[name])


def forward(state, images, training):
    return _call(state.model, images, training)


def predict(state, images):
    """What is timed where a version that trains is not trained: compiled, which `forward` is not."""
    return state.model.predict_on_batch(images)


if BACKEND == "openvino":

    def record(state, images, training):
        """Here a layer's values are nodes of a graph, which are computed together rather than each from the start."""
        seen, logits = recording.record(
            layers(state.model), lambda: forward(state, images, training), keras.ops.convert_to_tensor
        )
        values = [value for pair in seen.values() for value in pair] + [logits]
        found = ov.compile_model(ov.Model([value.output for value in values], []), "CPU")({})
        arrays = [found[place] for place in range(len(values))]
        return dict(zip(seen, zip(arrays[0:-1:2], arrays[1:-1:2], strict=True), strict=True)), logits


def gradients(version, state, images, labels):
    """The loss is that of loss_fn, the gradients those that Keras trains on: with every layer's own penalty."""
    variables = state.model.trainable_variables
    loss, found = _DIFFERENTIATE[BACKEND](version.loss_fn, state.model, variables, images, labels)
    by_variable = {id(variable): value for variable, value in zip(variables, found, strict=True) if value is not None}
    return loss, {
        name: to_numpy(by_variable[id(variable)]) if id(variable) in by_variable else None
        for name, variable in _variables(state.model).items()
    }


def train_step(version, state, images, labels):
    return version.train_step(state.model, images, labels)


def apply_gradients(state, gradients):
    names = _names(state.model)
    variables = state.model.trainable_variables
    native = [keras.ops.convert_to_tensor(gradients[names[id(variable)]]) for variable in variables]
    state.optimizer.apply(native, variables)


def optimizer_state(state):
    """Adam's moments, or the velocity as in v = 0.9 v + g: Keras keeps the rate inside, v = 0.9 v − rate · g."""
    names = _names(state.model)
    variables = state.model.trainable_variables
    if getattr(state.optimizer, "_velocities", None) and state.optimizer._momentums:  # Adam's moments
        slots = (("m", state.optimizer._momentums), ("v", state.optimizer._velocities))
        return {
            slot + "/" + names[id(variable)]: to_numpy(value)
            for slot, values in slots
            for variable, value in zip(variables, values, strict=True)
        }
    rate = float(to_numpy(state.optimizer.learning_rate))
    if not rate:
        return {}
    slots = getattr(state.optimizer, "momentums", None) or []  # SGD without momentum has none
    return {
        "velocity/" + names[id(variable)]: to_numpy(slot) / -rate
        for variable, slot in zip(variables[: len(slots)], slots, strict=True)
    }


def spread(version, state, images, labels):
    """What is compiled for several devices tells for how many."""
    return {"jax": _spread_on_jax, "tensorflow": _spread_on_tensorflow}[BACKEND](version, state.model, images, labels)


def evaluate(version, state, images, labels):
    if BACKEND == "openvino" and not state.model.compiled:
        version.make_optimizer(state.model)  # which compiles: evaluation takes loss and metrics from there
    return version.evaluate(state.model, images, labels)


def work(kind, *arrays):
    """A copy is a negation: an operation that any backend does, rather than hand on what it is given."""
    if BACKEND == "openvino":  # whose graphs are compiled by a model's `predict` alone
        array, *matrix = arrays
        inputs = keras.Input(array.shape[1:])
        layers = {
            "product": lambda: keras.layers.Dense(array.shape[-1], use_bias=False),
            "copy": lambda: keras.ops.negative,
            "convolution": lambda: keras.layers.Conv2D(array.shape[-1], 3, padding="same", use_bias=False),
        }
        layer = layers[kind]()
        model = keras.Model(inputs, layer(inputs))
        model.set_weights(matrix)
        return lambda: model.predict_on_batch(array)
    given = [keras.ops.convert_to_tensor(array) for array in arrays]
    convolution = functools.partial(keras.ops.conv, padding="same")
    compute = {"product": keras.ops.matmul, "copy": keras.ops.negative, "convolution": convolution}[kind]
    return lambda: compute(*given)


def synchronize(state, value=None):
    if BACKEND == "jax":
        held = [one.variables for one in (state.model, state.optimizer) if one]  # of what does not train, no optimizer
        jax.block_until_ready((value, [variable.value for variables in held for variable in variables]))
    elif BACKEND == "tensorflow":
        tf.test.experimental.sync_devices()
    elif BACKEND == "torch" and torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _configure_openvino(threads):
    """Compile for float32 and so many threads. Keras says neither in `predict`, nor has a way to: OpenVINO then takes
    bfloat16 where the CPU has it, and all cores.
    https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/openvino/trainer.py
    """
    compile_model = ov.Core.compile_model
    properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}

    def configured(core, *args, **kwargs):
        core.set_property("CPU", properties)
        return compile_model(core, *args, **kwargs)

    ov.Core.compile_model = configured


def _divide_cpu(devices):
    """Make one CPU several logical devices, to be found where there is no GPU, for all versions of this process.

    They share one strategy: a second one numbers what it adds up as the first, which TensorFlow then takes it for.
    """
    (cpu,) = tf.config.list_physical_devices("CPU")
    if devices > 1:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
        tf.distribute.MirroredStrategy = functools.cache(tf.distribute.MirroredStrategy)


def _call(model, inputs, training):
    return model(inputs, **({"training": training} if model._call_has_training_arg else {}))


def _variables(model):
    """Every variable of every layer, trainable or not, by name."""
    return {
        name + "." + _NAMES.get(variable.name, variable.name): variable
        for name, layer in layers(model).items()
        if _is_whole(layer)
        for variable in layer.weights
    }


def _names(model):
    return {id(variable): name for name, variable in _variables(model).items()}


def _on_jax(loss_fn, model, variables, images, labels):
    fixed = [variable.value for variable in model.non_trainable_variables]

    def total(values):
        mode = {"training": True} if model._call_has_training_arg else {}
        logits, _, penalties = model.stateless_call(values, fixed, images, return_losses=True, **mode)
        loss = loss_fn(labels, logits)
        return loss + sum(penalties), loss

    (_, loss), found = jax.value_and_grad(total, has_aux=True)([variable.value for variable in variables])
    return loss, found


def _on_tensorflow(loss_fn, model, variables, images, labels):
    with tf.GradientTape() as tape:
        loss = loss_fn(labels, _call(model, images, True))
        total = loss + sum(model.losses)
    found = tape.gradient(total, [variable.value for variable in variables])
    return loss, [None if value is None else tf.convert_to_tensor(value) for value in found]  # of embeddings, slices


def _on_torch(loss_fn, model, variables, images, labels):
    model.zero_grad()
    loss = loss_fn(labels, _call(model, images, True))
    (loss + sum(model.losses)).backward()
    found = [variable.value.grad for variable in variables]
    model.zero_grad()  # to None: what was found stays
    return loss, found


_DIFFERENTIATE = {"jax": _on_jax, "tensorflow": _on_tensorflow, "torch": _on_torch}


def _spread_on_jax(version, model, images, labels):
    """The number of partitions, if they add up what each has made of its part."""
    original, texts = model.train_function, []
    compiled = inspect.getclosurevars(original).nonlocals["step_function"]

    def watched(variables, iterator):
        batch = next(iterator)
        texts.append(compiled.lower(variables, batch).compile().as_text())
        return original(variables, iter([batch]))

    model.train_function = watched
    version.train_step(model, images, labels)
    model.train_function = original
    partitions = re.search(r"num_partitions=(\d+)", texts[0])
    return int(partitions[1]) if partitions and "all-reduce" in texts[0] else 1


def _spread_on_tensorflow(version, model, images, labels):
    """On how many devices gradients of convolutions were placed; TensorFlow tells of functions traced meanwhile."""
    model.train_function = None
    context.enable_run_metadata()
    version.train_step(model, images, labels)
    placed = context.export_run_metadata().partition_graphs
    context.disable_run_metadata()
    return len({node.device for graph in placed for node in graph.node if "Conv2DBackpropFilter" in node.op})
