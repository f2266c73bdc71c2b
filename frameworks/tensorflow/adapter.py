"""What the program knows of TensorFlow: a layer goes by its attribute's name; kernels are HWIO and (in, out)."""

import functools
import os

import tensorflow as tf
from tensorflow.python.eager import context

from dlrosetta.worker import mixed
from dlrosetta.worker.device import TensorFlow

_NAMES = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
_NAMES["moving_variance"] = "running_var"


def describe():
    _divide_cpu(int(os.environ.get("ROSETTA_DEVICES", "1")))
    threads = tf.config.threading.get_intra_op_parallelism_threads() or int(os.environ["TF_NUM_INTRAOP_THREADS"])
    devices = tf.config.get_visible_devices("GPU") or tf.config.get_visible_devices("CPU")
    return {"version": tf.__version__, "device": devices[0].device_type.lower(), "threads": threads}


def device():
    return TensorFlow(tf) if tf.config.get_visible_devices("GPU") else None


def seed(number):
    tf.keras.utils.set_random_seed(number)


def set_dtype(dtype):
    """Mixed precision by Keras's policy; logits are cast to float32 before the loss, as TensorFlow's guide has it.
    https://www.tensorflow.org/guide/mixed_precision
    """
    half = dtype == "bfloat16"
    tf.keras.backend.set_floatx("float32" if half else dtype)
    tf.keras.config.set_dtype_policy("mixed_bfloat16" if half else dtype)


def prepare_version(version, dtype):
    if dtype == "bfloat16":
        mixed.wrap_calls(version, lambda call: lambda *args, **more: tf.cast(call(*args, **more), tf.float32))


def tune(version, switch):
    """Make a version faster and change nothing else: what more is to be had on the tuned track."""
    if switch != "jit_compile":
        raise ValueError("Expected a switch: jit_compile. Received: %r" % switch)
    # XLA: https://www.tensorflow.org/xla/tutorials/jit_compile
    version.train_step = tf.function(version.train_step.python_function, jit_compile=True)


def to_native(array):
    return tf.constant(array)


def to_numpy(value):
    return (tf.cast(value, tf.float32) if value.dtype == tf.bfloat16 else value).numpy()  # NumPy has none


def make_optimizer(version, state):
    state.optimizer = version.make_optimizer(state.model)


def layers(model, above=""):
    """Every layer by its attribute, those within a layer of the version's own by `outer.inner`."""
    found = {}
    for name, value in vars(model).items():
        entries = {name: value}
        if isinstance(value, list) and not name.startswith("_"):
            entries = {f"{name}.{number}": one for number, one in enumerate(value)}
        for place, layer in entries.items():
            if isinstance(layer, tf.keras.layers.Layer):
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
    return state.model(images, **({"training": training} if state.model._call_has_training_arg else {}))


def gradients(version, state, images, labels):
    with tf.GradientTape() as tape:
        loss = version.loss_fn(state.model, images, labels)
    trained = {id(variable) for variable in state.model.trainable_variables}
    named = {name: variable.value for name, variable in _variables(state.model).items() if id(variable) in trained}
    found = tape.gradient(loss, named)
    return loss, {
        name: None if value is None else to_numpy(tf.convert_to_tensor(value)) for name, value in found.items()
    }


def train_step(version, state, images, labels):
    return version.train_step(state.model, state.optimizer, images, labels)


def apply_gradients(state, gradients):
    names = _names(state.model)
    variables = state.model.trainable_variables
    state.optimizer.apply([tf.constant(gradients[names[id(variable)]]) for variable in variables], variables)


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
    rate = float(state.optimizer.learning_rate)
    if not rate:
        return {}
    slots = getattr(state.optimizer, "momentums", None) or []  # SGD without momentum has none
    return {
        "velocity/" + names[id(variable)]: to_numpy(slot) / -rate
        for variable, slot in zip(variables[: len(slots)], slots, strict=True)
    }


def spread(version, state, images, labels):
    """On how many devices TensorFlow has placed gradients of convolutions; it tells of functions traced meanwhile."""
    context.enable_run_metadata()
    tf.function(version.train_step.python_function)(state.model, state.optimizer, images, labels)
    placed = context.export_run_metadata().partition_graphs
    context.disable_run_metadata()
    return len({node.device for graph in placed for node in graph.node if "Conv2DBackpropFilter" in node.op})


def evaluate(version, state, images, labels):
    return version.evaluate(state.model, images, labels)


def work(kind, *arrays):
    kinds = {
        "product": tf.matmul,
        "copy": tf.negative,  # tf.identity hands on the same memory
        "convolution": lambda x, w: tf.nn.conv2d(x, w, 1, "SAME"),
    }
    compute = tf.function(kinds[kind])
    given = [tf.constant(array) for array in arrays]
    return lambda: compute(*given)


def synchronize(state, value=None):
    tf.test.experimental.sync_devices()


def _divide_cpu(devices):
    """Make one CPU several logical devices, to be found where there is no GPU, for all versions of this process.

    They share one strategy: a second one numbers what it adds up as the first, which TensorFlow then takes it for.
    """
    (cpu,) = tf.config.list_physical_devices("CPU")
    if devices > 1:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
        tf.distribute.MirroredStrategy = functools.cache(tf.distribute.MirroredStrategy)


def _variables(model):
    """Every variable of every layer, trainable or not, by name."""
    return {
        layer + "." + _NAMES.get(variable.name, variable.name): variable
        for layer, value in layers(model).items()
        if _is_whole(value)
        for variable in value.weights
    }


def _names(model):
    return {id(variable): name for name, variable in _variables(model).items()}
