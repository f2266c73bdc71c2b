"""Runs a text's reference.py: everything that a proof compares, as full arrays, in float64 or float32.

Keys are those of the checks: `input/conv1`, `output/conv1`, `logits`, `loss`, `gradient/conv1.weight`,
`optimizer/conv1.weight`, `step 1/…`, `step 20/…`, `velocity/…`, `losses`, `evaluation logits`, `trained logits`,
`metric`; those of the loud batch have `loud ` before them, those of very small gradients `quiet `.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from dlrosetta import bfloat16, draws, products
from dlrosetta.errors import RosettaError
from dlrosetta.texts import Text, check_parameter

APPLICATIONS = 3  # how often the optimizer alone is given one and the same gradient
LOUD = 64.0  # by how much the loud batch is larger, and
LOUD_GRADIENT = 1024.0  # the optimizer's loud gradients; powers of two, so that float32 holds them exactly
LOUD_MATRIX = 8.0  # where inputs are tokens, by how much matrices are larger
QUIET_GRADIENT = 2.0**-20  # and its quiet ones, near Adam's epsilon

Arrays = dict[str, np.ndarray]
ALWAYS = ("forward",)
TRAINING = ("loss", "metric", "initial_state", "update")
INFERENCE = ("preprocess",)
FILES = ("preprocess", "crop")


def load(text: Text, constants: dict[str, Any] | None = None, matmul: products.Matmul | None = None) -> ModuleType:
    """Import the text's reference.py with the proof's constants, and `constants` over them, set in it; with `matmul` in
    the place of its products, if given.

    It is the author's own code. `rosetta golden` runs it; proofs read golden.npz, and run it only where it counts out
    the layers of a large model (`layers`).
    """
    spec = importlib.util.spec_from_file_location(f"rosetta_reference_{text.name}", text.reference)
    if spec is None or spec.loader is None or not text.reference.is_file():
        raise RosettaError(f"Expected a reference at {text.reference}. Received: none", f"rosetta new text {text.name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if matmul is not None:
        products.replace(module, text.reference, matmul)
    more = (FILES if text.files else ()) + (TRAINING if text.trains else INFERENCE)
    wanted = ALWAYS + more + (() if text.declared else ("layers",))
    missing = [name for name in wanted if not hasattr(module, name)]
    if missing:
        raise RosettaError(f"{text.reference}: expected functions {', '.join(missing)}. Received: none of that name")
    for name, value in {**text.constants, **(constants or {})}.items():
        setattr(module, name, value)
    return module


def layers(text: Text, constants: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers that the text's reference counts out for these constants, in the form of text.toml's list."""
    counted = list(load(text, constants).layers())
    for layer in counted:
        for name, spec in layer["parameters"].items():
            check_parameter(f"{text.reference}: {layer['name']}.{name}", spec)
    return counted


def optimizer_gradients(text: Text) -> Arrays:
    """Gradients of the size of real ones, drawn from the seed, that prove the optimizer apart from the model."""
    return {
        name: (
            draws.uniform(text.proof["seed"], f"optimizer/{name}", int(np.prod(text.shapes[name]))).reshape(
                text.shapes[name]
            )
            - 0.5
        ).astype(np.float32)
        * 0.1
        for name in text.trained
    }


def evaluation_batch(text: Text, labels: np.ndarray | None = None) -> Arrays:
    """The proof's evaluation examples; `labels` come from the golden (see `evaluation_labels`)."""
    drawn = draws.batch(text, "evaluation", text.proof["evaluation"])
    return drawn if labels is None else {**drawn, "labels": labels}


def evaluation_labels(text: Text) -> np.ndarray:
    """Labels of the evaluation examples; where accuracy is measured, such that half are right, so that any example
    lost or disturbed changes it.
    """
    batch = evaluation_batch(text)
    if not text.trains:
        return np.zeros(0, np.int64)
    if text.metric != "accuracy":
        return batch["labels"]
    predicted = np.argmax(load(text).forward(telling(text, draws.initial_parameters(text)), batch[text.input]), axis=1)
    return np.where(np.arange(len(predicted)) % 2 == 0, predicted, batch["labels"])


def loud_parameters(text: Text, parameters: Arrays) -> Arrays:
    """Matrices larger than any start: of a text of tokens, which have no size, they are what makes large numbers."""
    matrices = ("conv", "dense", "embedding")
    return {
        name: array * LOUD_MATRIX if text.parameters[name]["role"] in matrices else array
        for name, array in parameters.items()
    }


def telling(text: Text, parameters: Arrays) -> Arrays:
    """Parameters with which the metric tells one input from another.

    Embeddings start so small that a model of them answers alike whatever it reads, and an accuracy is then the share of
    one label. Larger ones make its answers differ.
    """
    if text.metric != "accuracy":
        return parameters
    kinds = {**text.full_parameters, **text.parameters}
    return {name: array * LOUD if kinds[name]["role"] == "embedding" else array for name, array in parameters.items()}


def quiet(text: Text) -> bool:
    """Whether the optimizer has an epsilon, which only small gradients show."""
    return "EPSILON" in text.hyperparameters


def run(
    text: Text,
    labels: np.ndarray,
    dtype: Any = np.float64,
    wobble: int | None = None,
    scale: float = 1,
    constants: dict[str, Any] | None = None,
) -> Arrays:
    """Every array of the proof, computed in `dtype`, with `constants` set over the text's (a variant's).

    With `wobble`, initial parameters and inputs are moved by `scale` half units in the last place of float32, up or
    down at random (the number is the seed): what the results then do is rounding error, as a differently ordered sum
    would make it.
    """
    model = _Model(text, load(text, constants))

    def given(arrays: Arrays, name: str) -> Arrays:
        return _moved(arrays, name, dtype, wobble, scale)

    parameters = given(draws.initial_parameters(text), "parameters")
    evaluation = given({**evaluation_batch(text), **({"labels": labels} if text.trains else {})}, "evaluation")
    train = given(draws.training_batches(text), "train")
    first = {key: array[0] for key, array in train.items()}
    shouted = draws.loud(first, LOUD)
    results = model.trace(parameters, first)
    results["evaluation logits"] = model.forward(parameters, evaluation[text.input])
    extremes = model.trace(parameters, shouted) if text.loud else model.trace(loud_parameters(text, parameters), first)
    if text.trains:
        if text.files:
            results.update(_files(text, dtype))
            results["metric"] = np.asarray(_metric_of_files(text, model, parameters, dtype))
        else:
            told = model.forward(telling(text, parameters), evaluation[text.input])
            results["metric"] = np.asarray(model.module.metric(told, evaluation["labels"]))
        gradients = given(optimizer_gradients(text), "gradients")
        results.update(model.optimizer(parameters, gradients))
        trained = model.train(parameters, train, results)
        results["trained logits"] = model.forward(trained, evaluation[text.input])
        extremes.update(model.optimizer(parameters, draws.loud(gradients, LOUD_GRADIENT)))
        if text.loud:
            model.train(parameters, {key: array[None] for key, array in shouted.items()}, extremes)
        if quiet(text):
            hushed = model.optimizer(parameters, draws.loud(gradients, QUIET_GRADIENT))
            results.update({f"quiet {name}": array for name, array in hushed.items()})
    results.update({f"loud {name}": array for name, array in extremes.items()})
    if not text.trains:
        results.update(_photos(text, dtype))
    return results


def _moved(arrays: Arrays, name: str, dtype: Any, wobble: int | None, scale: float = 1) -> Arrays:
    """Arrays in `dtype`, moved as in `run`; `name` tells the draws apart."""
    out = {}
    for key, array in arrays.items():
        if np.issubdtype(array.dtype, np.integer):
            out[key] = array
            continue
        if wobble is not None:
            signs = draws.signs(wobble, f"{name}/{key}", array.size).reshape(array.shape)
            array = array * (1 + scale * 2.0**-24 * signs)
        out[key] = array.astype(dtype)
    return out


def evaluated(text: Text, dtype: Any = np.float64, wobble: int | None = None) -> Arrays:
    """Of a text with running statistics, activations and logits of evaluation mode, under the names of `run` behind
    "evaluation " and "loud evaluation ".
    """
    model = _Model(text, load(text))
    parameters = _moved(draws.initial_parameters(text), "parameters", dtype, wobble)
    first = {key: array[0] for key, array in draws.training_batches(text).items()}
    batches = {"evaluation ": evaluation_batch(text), "loud evaluation ": draws.loud(first, LOUD)}
    results: Arrays = {}
    for kind, batch in batches.items():

        def tap(layer: str, x: np.ndarray, y: np.ndarray, kind: str = kind) -> None:
            results[f"{kind}input/{layer}"], results[f"{kind}output/{layer}"] = x, y

        inputs = _moved(batch, kind.strip(), dtype, wobble)[text.input]
        results[f"{kind}logits"] = model.forward(parameters, inputs, tap)
    return results


def mixed(text: Text, seed: int, constants: dict[str, Any] | None = None) -> Arrays:
    """What mixed precision with bfloat16 changes of that: activations, logits, loss, gradients and train steps, in
    float32 but for products. The optimizer alone, and data, are in float32 there too.

    `seed` is that of the rounding.
    """
    rounded = bfloat16.rounding(seed)
    model = _Model(text, load(text, constants, bfloat16.rounded_matmul(rounded)), rounded)
    given = partial(_moved, name="", dtype=np.float32, wobble=None)
    parameters, train = given(draws.initial_parameters(text)), given(draws.training_batches(text))
    evaluation = given(evaluation_batch(text))[text.input]
    first = {key: array[0] for key, array in train.items()}
    shouted = draws.loud(first, LOUD)
    results = model.trace(parameters, first)
    results["evaluation logits"] = model.forward(parameters, evaluation)
    loud = model.trace(parameters, shouted) if text.loud else model.trace(loud_parameters(text, parameters), first)
    if text.trains:
        results["trained logits"] = model.forward(model.train(parameters, train, results), evaluation)
        if text.loud:
            model.train(parameters, {key: array[None] for key, array in shouted.items()}, loud)
    return {**results, **{f"loud {name}": array for name, array in loud.items()}}


def photo_names() -> list[str]:
    """Names of the packaged photos, in their order."""
    from dlrosetta import data

    return [path.stem for path in data.photos_sample()]


def _photos(text: Text, dtype: Any) -> Arrays:
    """The packaged photos after preprocessing, and what the model in full size makes of them."""
    from dlrosetta import data

    parameters = {name: array.astype(dtype) for name, array in draws.initial_parameters(text, full=True).items()}
    prepared = images(text, data.photos_sample(), dtype)
    results = {f"photo/{name}": image for name, image in zip(photo_names(), prepared, strict=True)}
    return {**results, "features": load(text, text.hyperparameters).forward(parameters, np.stack(prepared))}


def images(text: Text, paths: list[Any], dtype: Any, constants: dict[str, Any] | None = None) -> list[np.ndarray]:
    """What the text's preprocessing makes of image files, in full size or that of `constants`; not cut yet."""
    from PIL import Image

    module = load(text, constants or text.hyperparameters)
    return [module.preprocess(np.asarray(Image.open(path).convert("RGB")).astype(dtype)) for path in paths]


def _files(text: Text, dtype: Any) -> Arrays:
    """The sample's images for training as evaluation would see them, in full size."""
    from dlrosetta import data

    paths, _ = data.SAMPLES[text.data]()[0]
    module = load(text, text.hyperparameters)
    return {"train images": np.stack([module.crop(image) for image in images(text, paths, dtype)])}


def _metric_of_files(text: Text, model: _Model, parameters: Arrays, dtype: Any) -> float:
    """The metric of the sample's images for testing, in the proof's size."""
    from dlrosetta import data

    paths, labels = data.SAMPLES[text.data]()[1]
    cut = [model.module.crop(image) for image in images(text, paths, dtype, text.constants)]
    return float(model.module.metric(model.forward(parameters, np.stack(cut)), labels))


class _Model:
    """A reference's functions, joined to what a proof asks for; in mixed precision with how that is `rounded`."""

    def __init__(self, text: Text, module: ModuleType, rounded: bfloat16.Rounding | None = None):
        self.text, self.module, self.rounded = text, module, rounded
        self.statistics = len(text.trained) < len(text.parameters)

    def forward(
        self, parameters: Any, inputs: np.ndarray, tap: Callable[..., None] | None = None, keep: Any = None
    ) -> Any:
        """Evaluation mode, unless `keep` is there to hear of new running statistics."""
        more = {"keep": keep} if self.statistics else {}
        return self.module.forward(parameters, inputs, **({"tap": tap} if tap else {}), **more)

    def _seen(self, value: Any) -> np.ndarray:
        """What a layer takes or gives, as a framework shows it."""
        return value if self.rounded is None or value.dtype.kind != "f" else self.rounded(value)

    def trace(self, parameters: Arrays, batch: Arrays) -> Arrays:
        """Activations, logits, loss and gradients in training mode; where nothing is trained, in evaluation mode."""
        results: Arrays = {}

        def tap(layer: str, x: np.ndarray, y: np.ndarray) -> None:
            results[f"input/{layer}"], results[f"output/{layer}"] = self._seen(x), self._seen(y)

        if not self.text.trains:
            results["logits"] = self.forward(parameters, batch[self.text.input], tap)
            return results
        results["logits"] = self.forward(parameters, batch[self.text.input], tap, keep=lambda name, value: None)
        loss, gradients, _ = self.differentiate(parameters, batch)
        results["loss"] = np.asarray(loss)
        results.update({f"gradient/{name}": value for name, value in gradients.items()})
        return results

    def differentiate(self, parameters: Arrays, batch: Arrays) -> tuple[float, Arrays, Arrays]:
        """Loss, gradients of what is trained, and new running statistics."""
        from autograd import value_and_grad
        from autograd.extend import Box

        fixed = {name: value for name, value in parameters.items() if name not in self.text.trained}
        kept: Arrays = {}

        def keep(name: str, value: Any) -> None:
            while isinstance(value, Box):
                value = value._value
            kept[name] = value

        def objective(values: Arrays) -> Any:
            logits = self.forward({**values, **fixed}, batch[self.text.input], keep=keep)
            return self.module.loss(logits, batch["labels"])

        loss, gradients = value_and_grad(objective)({name: parameters[name] for name in self.text.trained})
        return loss, gradients, kept

    def optimizer(self, parameters: Arrays, gradients: Arrays) -> Arrays:
        """What applying one and the same gradients `APPLICATIONS` times makes of parameters and state."""
        moved = {name: parameters[name] for name in self.text.trained}
        state = self.module.initial_state(moved)
        for step in range(1, APPLICATIONS + 1):
            moved, state = self.module.update(moved, gradients, state, step)
        return {f"optimizer/{name}": value for name, value in {**moved, **state}.items()}

    def train(self, parameters: Arrays, batches: Arrays, results: Arrays) -> Arrays:
        """Take a step a batch; put what a proof looks at into `results`; return the trained parameters."""
        state, losses = self.module.initial_state({name: parameters[name] for name in self.text.trained}), []
        steps = len(batches["labels"])
        for step in range(1, steps + 1):
            batch = {key: array[step - 1] for key, array in batches.items()}
            loss, gradients, kept = self.differentiate(parameters, batch)
            losses.append(loss)
            moved = {name: parameters[name] for name in self.text.trained}
            moved, state = self.module.update(moved, gradients, state, step)
            parameters = {**parameters, **moved, **kept}
            if step in (1, steps):
                results.update({f"step {step}/{name}": value for name, value in {**parameters, **state}.items()})
        results["losses"] = np.asarray(losses)
        return parameters
