"""What a worker can be asked: load a version, put parameters in, and run its own functions on given arrays.

A `Session` joins a version (what people read), an adapter (what knows the framework) and the layouts (what the text
declares). Arrays that come in and go out are canonical; everything the framework sees is native. Each public method is
one request of docs/protocol.md, and its keyword arguments are that request's fields.
"""

import functools
import inspect
import io
import resource
import sys
import time
import types
from itertools import cycle, islice

import numpy as np

from dlrosetta.worker import device, tensors, timing
from dlrosetta.worker.layouts import Layouts
from dlrosetta.worker.recording import record
from dlrosetta.worker.work import Work

FUNCTIONS = ("load_data", "batches", "build_model", "evaluate", "main")
TRAINING = ("loss_fn", "make_optimizer", "train_step")
INFERENCE = ("predict",)
FED = 4  # batches of a pass over data without labels, which may be few


class State(object):
    """The model and the optimizer of one cell; an adapter of immutable models replaces them."""

    model = None
    optimizer = None


class Session(object):
    def __init__(self, adapter, layout):
        self.adapter = adapter
        self.device = device.of(adapter)
        self.layout = layout
        self.version = self.layouts = self.declared = self.dtype = None
        self.state = State()
        self.prepared = []
        self.feeding = iter(())
        self.working = None

    # -- the version ---------------------------------------------------------------------------------------------------

    def open(self, version, dtype, layers, constants, names=None, trains=True, labels=True, files=False, switches=()):
        """Execute the version's file anew for `dtype`; bfloat16 is mixed precision, of which parameters and what goes
        in are float32. Answer its `constants` (null where it has none). `trains` says whether it is to be trained (if
        not, what it has for that is left alone), `labels` whether its data have any, `files` whether they are image
        files. `switches` are those of the adapter's `tune` that are on.
        """
        self.layouts = Layouts(self.layout, layers, names)
        self.trains, self.labels, self.files = trains, labels, files
        self.dtype = np.dtype("float32" if dtype == "bfloat16" else dtype)
        self.state, self.prepared, self.feeding = State(), [], iter(())
        self.working = None
        self.adapter.set_dtype(dtype)
        module = types.ModuleType("rosetta_version")
        module.__file__ = version
        sys.modules["rosetta_version"] = module
        with io.open(version, encoding="utf-8") as file:
            source = file.read()
        exec(
            compile(source, version, "exec"), module.__dict__
        )  # not imported: no bytecode beside or instead of what is read
        wanted = FUNCTIONS + (TRAINING if trains else () if hasattr(self.adapter, "predict") else INFERENCE)
        missing = [name for name in wanted if not callable(getattr(module, name, None))]
        if missing:
            raise AttributeError(
                "Expected the version to define %s. Received: no %s" % (", ".join(wanted), ", ".join(missing))
            )
        prepare = getattr(self.adapter, "prepare_version", None)
        if prepare is not None:
            prepare(module, dtype)
        self.device.full_float32()
        tune = getattr(self.adapter, "tune", None)
        if switches and tune is None:
            raise ValueError("Expected no switch: the adapter has no `tune`. Received: %s" % ", ".join(switches))
        for switch in switches:
            tune(module, switch)
        self.version = module
        self.declared = {name: getattr(module, name, None) for name in constants}
        return {"constants": self.declared}

    def create(self, seed, constants=None, parameters=None):
        """Build a new model and optimizer. `constants` override the version's for this model; `parameters` is a file to
        load, if the model's have the shapes of those.
        """
        for name, value in dict(self.declared, **(constants or {})).items():
            setattr(self.version, name, value)
        self.adapter.seed(seed)
        self.state.model = self.version.build_model()
        shapes = {name: list(array.shape) for name, array in self._parameters().items()}
        given = tensors.load(parameters) if parameters is not None else {}
        if given and shapes == {name: list(array.shape) for name, array in given.items()}:
            self._set_parameters(given)
        if self.trains:
            self.adapter.make_optimizer(self.version, self.state)
        return {"shapes": shapes}

    # -- arrays out ----------------------------------------------------------------------------------------------------

    def parameters(self, out):
        """Write every parameter, canonical."""
        tensors.save(out, self._parameters())
        return {}

    def trace(self, batch, out):
        """Write what goes into and out of every layer in training mode, the logits, the loss and every gradient; of a
        version that does not train, layers and logits in evaluation mode.
        """
        inputs, labels = self._batch(tensors.load(batch))
        before = self._kept()
        seen, logits = self._seen(inputs, self.trains)
        arrays = {"logits": self.adapter.to_numpy(logits)}
        for layer, (received, result) in seen.items():
            arrays["input/" + layer] = self.layouts.activation_to_canonical(layer, received, True)
            arrays["output/" + layer] = self.layouts.activation_to_canonical(layer, result, False)
        gradients = {}
        if self.trains:
            self._restore(before)
            loss, gradients = self.adapter.gradients(self.version, self.state, inputs, labels)
            self._restore(before)
            arrays["loss"] = np.asarray(self.adapter.to_numpy(loss))
        gradients = self.layouts.to_canonical({name: array for name, array in gradients.items() if array is not None})
        arrays.update({"gradient/" + name: gradient for name, gradient in gradients.items()})
        tensors.save(out, arrays)
        return {"layers": list(seen), "gradients": list(gradients)}

    def activations(self, batch, out, layers, training):
        """Write the inputs of the given layers in training or evaluation mode, dropout as it is; of a version that
        does not train, in evaluation mode.
        """
        inputs, _ = self._batch(tensors.load(batch))
        before = self._kept()
        seen, _ = self._seen(inputs, training and self.trains)
        self._restore(before)
        arrays = {
            "input/" + name: self.layouts.activation_to_canonical(name, seen[name][0], True)
            for name in layers
            if name in seen
        }
        tensors.save(out, arrays)
        return {}

    def predict(self, batch, out):
        """Write the logits of evaluation mode; of a version that does not train, by what `steps` times."""
        inputs, _ = self._batch(tensors.load(batch))
        if self.trains:
            logits = self.adapter.forward(self.state, inputs, False)
        else:
            logits = self._predict(self.version, self.state, inputs, None)
        tensors.save(out, {"logits": np.asarray(self.adapter.to_numpy(logits))})
        return {}

    def evaluate(self, batch=None):
        """Answer what the version's own `evaluate` says of these examples; without any, of its test data."""
        inputs, labels = self._batch(tensors.load(batch)) if batch is not None else self.version.load_data()[1]
        return {"metric": float(self.adapter.evaluate(self.version, self.state, inputs, labels))}

    # -- training ------------------------------------------------------------------------------------------------------

    def apply(self, gradients, times, out):
        """Give the version's optimizer the same gradients `times` times; write parameters and optimizer state."""
        given = tensors.load(gradients)
        native = self._native(given)
        for _ in range(times):
            self.adapter.apply_gradients(self.state, native)
        tensors.save(out, self._parameters_and_state())
        return {}

    def train(self, batches, out, part=None):
        """One of the version's own train steps a batch (arrays stacked along a first axis); write parameters, state and
        losses. Of each batch this process takes `part`, [which, of how many], if it is one of several.
        """
        given = tensors.load(batches)
        if part is not None:
            which, count = part
            given = {name: np.array_split(array, count, axis=1)[which] for name, array in given.items()}
        losses = []
        for number in range(len(given["labels"])):
            inputs, labels = self._batch({name: array[number] for name, array in given.items()})
            losses.append(self.adapter.train_step(self.version, self.state, inputs, labels))
        arrays = self._parameters_and_state()
        arrays["losses"] = np.array([float(self.adapter.to_numpy(loss)) for loss in losses])
        tensors.save(out, arrays)
        return {}

    def spread(self, batch):
        """Take a train step; answer over how many `devices` it was spread, by what the framework itself has placed."""
        inputs, labels = self._batch(tensors.load(batch))
        spread = getattr(self.adapter, "spread", lambda *arguments: 1)
        return {"devices": int(spread(self.version, self.state, inputs, labels))}

    # -- data ----------------------------------------------------------------------------------------------------------

    def batches(self, out, shuffle, epochs, seed):
        """Write what the version's own loader yields of its training data, by epoch, and every batch's size; of data
        without labels, what it yields.
        """
        self.adapter.seed(seed)
        if not self.labels:
            yielded = [
                self.layouts.activation_to_canonical("", np.array(self.adapter.to_numpy(x)), True)
                for x in self.version.batches(self.version.load_data())
            ]
            sizes = np.array([len(x) for x in yielded], np.int64)
            tensors.save(out, {"inputs": np.concatenate(yielded), "sizes": sizes})
            return {}
        (inputs, labels), _ = self.version.load_data()
        arrays = {}
        for epoch in range(epochs):
            pairs = [
                (np.array(self.adapter.to_numpy(x)), np.array(self.adapter.to_numpy(y)))
                for x, y in self._batches(inputs, labels, shuffle)
            ]
            arrays["sizes/%d" % epoch] = np.array([len(y) for _, y in pairs], np.int64)
            joined = np.concatenate([x for x, _ in pairs])
            arrays["inputs/%d" % epoch] = self.layouts.activation_to_canonical("", joined, True)
            arrays["labels/%d" % epoch] = np.concatenate([y for _, y in pairs]).astype(np.int64)
        tensors.save(out, arrays)
        return {}

    # -- time ----------------------------------------------------------------------------------------------------------

    def prepare(self, count):
        """Keep `count` full batches of the version's own loader in memory for `steps`. Data without labels are taken
        again and again where they are too few. Answer what was asked for as it is found in the worker: the size of a
        batch, the precision of parameters and inputs, and on a GPU its arithmetic (device.py), whose memory is counted
        from here.
        """
        self.device.reset_memory()
        wanted = self.version.BATCH_SIZE
        self.prepared = list(islice(self._full(count), count))
        sizes = {len(np.array(self.adapter.to_numpy(inputs))) for inputs, _ in self.prepared}
        if not sizes:
            raise ValueError("Expected at least one batch of %d examples. Received: none" % wanted)
        if sizes != {wanted}:
            raise ValueError("Expected batches of %d examples. Received: %s" % (wanted, ", ".join(map(str, sizes))))
        return {
            "batch_size": wanted,
            "batches": len(self.prepared),
            "parameters": sorted({str(array.dtype) for array in self._parameters().values()}),
            "inputs": str(np.array(self.adapter.to_numpy(self.prepared[0][0])).dtype),
            "arithmetic": self.device.arithmetic(),
        }

    def steps(self, count):
        """Take `count` of the version's own train steps between two fences, or batches through its `predict` where it
        does not train; answer what timing.py does.
        """
        return self._timed(cycle(self.prepared), count)

    def feed(self, count, work):
        """The same with batches fresh from the version's own loader, which begins anew where it ends; unless `work`,
        take the batches and do nothing with them.
        """
        return self._timed(self._fed(), count, work)

    def _timed(self, batches, count, work=True):
        step = self.adapter.train_step if self.trains else self._predict
        once = functools.partial(step, self.version, self.state) if work else None
        return timing.timed(self.adapter, self.device, self.state, islice(batches, count), once)

    def _full(self, count):
        """Full batches of one pass of the version's own loader over its training data; of data without labels, which
        may be few, `count` batches.
        """
        if not self.labels:
            few = list(islice(cycle(self.version.load_data()), count * self.version.BATCH_SIZE))
            return ((inputs, None) for inputs in self.version.batches(few))
        (inputs, labels), _ = self.version.load_data()
        return (pair for pair in self._batches(inputs, labels, self.trains) if len(pair[1]) == self.version.BATCH_SIZE)

    def _fed(self):
        """Full batches without end, of one pass after the other."""
        while True:
            for pair in self.feeding:
                yield pair
            self.feeding = self._full(FED)

    def fit(self, progress):
        """Train and evaluate as the version's `main` does; answer seconds of training, last loss of each epoch, and the
        metric.
        """
        (train_inputs, train_labels), (test_inputs, test_labels) = self.version.load_data()
        losses, start = [], time.perf_counter()
        for epoch in range(self.version.EPOCHS):
            for inputs, labels in self._batches(train_inputs, train_labels, True):
                loss = self.adapter.train_step(self.version, self.state, inputs, labels)
            self.adapter.synchronize(self.state, loss)
            losses.append(float(self.adapter.to_numpy(loss)))
            progress({"epoch": epoch + 1, "epochs": self.version.EPOCHS, "loss": losses[-1]})
        seconds = time.perf_counter() - start
        metric = float(self.adapter.evaluate(self.version, self.state, test_inputs, test_labels))
        return {
            "seconds": seconds,
            "losses": losses,
            "metric": metric,
            "items": len(train_labels) * self.version.EPOCHS,
        }

    def features(self, out, limit=None):
        """Write what the version's own `evaluate` makes of its data, which have no labels, or of the first `limit`;
        answer the seconds it took.
        """
        examples = self.version.load_data()[:limit]
        start = time.perf_counter()
        found = np.asarray(self.version.evaluate(self.state.model, examples))
        seconds = time.perf_counter() - start
        tensors.save(out, {"features": found})
        return {"seconds": seconds, "items": len(examples)}

    def work(self, kind, size, count):
        """Do `count` times what any framework does: see work.py."""
        if self.working is None:
            self.device.full_float32()
            self.working = Work(self.adapter, State(), self.layout)
        return self.working.do(kind, size, count)

    def memory(self):
        """Answer the largest resident memory that this process ever held, and what its arrays held on a GPU since
        `prepare`, in bytes.
        """
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = peak if sys.platform == "darwin" else peak * 1024
        return {"peak_bytes": peak, "device_peak_bytes": self.device.peak_memory()}

    # -- inside --------------------------------------------------------------------------------------------------------

    def _batches(self, inputs, labels, training):
        """The version's own loader: image files are augmented in training, all else is shuffled and no more. That of
        a version that only evaluates need not have the choice.
        """
        choice = "training" if self.files else "shuffle"
        takes = self.trains or choice in inspect.signature(self.version.batches).parameters
        return self.version.batches(inputs, labels, **({choice: training} if takes else {}))

    def _predict(self, version, state, inputs, labels):
        predict = getattr(self.adapter, "predict", None)  # of models whose versions train elsewhere
        return version.predict(state.model, inputs) if hasattr(version, "predict") else predict(state, inputs)

    def _batch(self, arrays):
        """What the version's functions take: inputs, under whatever name, and labels, where there are any."""
        (inputs,) = [array for name, array in arrays.items() if name != "labels"]
        if inputs.dtype.kind == "f":
            inputs = self.layouts.images_to_native(inputs.astype(self.dtype))
        labels = self.adapter.to_native(arrays["labels"]) if "labels" in arrays else None
        return self.adapter.to_native(inputs), labels

    def _seen(self, inputs, training):
        """({canonical layer: (input, output)}, logits) of one forward pass.

        An adapter whose layers never see a batch of concrete arrays has a `record` of its own.
        """
        own = getattr(self.adapter, "record", None)
        if own is not None:
            seen, logits = own(self.state, inputs, training)
        else:
            seen, logits = record(
                self.adapter.layers(self.state.model),
                lambda: self.adapter.forward(self.state, inputs, training),
                lambda value: np.array(self.adapter.to_numpy(value)),
            )
        return {self.layouts.canonical(name): arrays for name, arrays in seen.items()}, logits

    def _parameters(self):
        return self.layouts.to_canonical(self.adapter.parameters(self.state.model))

    def _kept(self):
        """The parameters, if some are statistics that a forward pass in training mode changes; else None."""
        kept = any(spec["role"] == "statistic" for spec in self.layouts.specs.values())
        return {name: np.array(array) for name, array in self._parameters().items()} if kept else None

    def _restore(self, parameters):
        if parameters is not None:
            self._set_parameters(parameters)

    def _native(self, arrays):
        """Canonical parameters or gradients under the framework's names, in its layout and in the run's precision."""
        return self.layouts.to_native({name: array.astype(self.dtype) for name, array in arrays.items()})

    def _set_parameters(self, arrays):
        replaced = self.adapter.set_parameters(self.state.model, self._native(arrays))
        if replaced is not None:  # a model that cannot be changed
            self.state.model = replaced

    def _parameters_and_state(self):
        arrays = self._parameters()
        slots = {}
        for name, array in self.adapter.optimizer_state(self.state).items():
            slot, parameter = name.split("/", 1)
            slots.setdefault(slot, {})[parameter] = array
        for slot, native in slots.items():
            arrays.update({slot + "/" + name: array for name, array in self.layouts.to_canonical(native).items()})
        return arrays
