"""Runs a text's reference.py: everything that a proof compares, as full arrays, in float64 or float32.

Keys are those of the checks: `input/conv1`, `output/conv1`, `logits`, `loss`, `gradient/conv1.weight`,
`optimizer/conv1.weight`, `step 1/…`, `step 20/…`, `velocity/…`, `losses`, `evaluation logits`, `trained logits`,
`metric`; those of the loud batch have `loud ` before them.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import numpy as np

from dlrosetta import draws
from dlrosetta.errors import RosettaError
from dlrosetta.texts import Text

APPLICATIONS = 3  # how often the optimizer alone is given one and the same gradient
LOUD = 64.0  # by how much the loud batch is larger, and
LOUD_GRADIENT = 1024.0  # the optimizer's loud gradients; powers of two, so that float32 holds them exactly

Arrays = dict[str, np.ndarray]


def load(text: Text) -> ModuleType:
    """Import the text's reference.py. It is the author's own code: only `rosetta golden` runs it, proofs read
    golden.npz.
    """
    spec = importlib.util.spec_from_file_location(f"rosetta_reference_{text.name}", text.reference)
    if spec is None or spec.loader is None or not text.reference.is_file():
        raise RosettaError(f"Expected a reference at {text.reference}. Received: none", f"rosetta new text {text.name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = [name for name in ("forward", "loss", "metric", "initial_state", "update") if not hasattr(module, name)]
    if missing:
        raise RosettaError(f"{text.reference}: expected functions {', '.join(missing)}. Received: none of that name")
    return module


def optimizer_gradients(text: Text) -> Arrays:
    """Gradients of the size of real ones, drawn from the seed, that prove the optimizer apart from the model."""
    return {
        name: (draws.uniform(text.proof["seed"], f"optimizer/{name}", int(np.prod(shape))).reshape(shape) - 0.5).astype(
            np.float32
        )
        * 0.1
        for name, shape in text.shapes.items()
    }


def evaluation_batch(text: Text, labels: np.ndarray | None = None) -> Arrays:
    """The proof's evaluation examples; `labels` come from the golden (see `evaluation_labels`)."""
    drawn = draws.batch(text, "evaluation", text.proof["evaluation"])
    return drawn if labels is None else {**drawn, "labels": labels}


def evaluation_labels(text: Text) -> np.ndarray:
    """Labels that half of the examples get right, so that any example lost or disturbed changes the metric."""
    batch = evaluation_batch(text)
    predicted = np.argmax(load(text).forward(draws.initial_parameters(text), batch["images"]), axis=1)
    return np.where(np.arange(len(predicted)) % 2 == 0, predicted, batch["labels"])


def run(text: Text, labels: np.ndarray, dtype: Any = np.float64, wobble: int | None = None, scale: float = 1) -> Arrays:
    """Every array of the proof, computed in `dtype`.

    With `wobble`, initial parameters and images are moved by `scale` half units in the last place of float32, up or
    down at random (the number is the seed): what the results then do is rounding error, as a differently ordered sum
    would make it.
    """
    module = load(text)

    def given(arrays: Arrays, name: str) -> Arrays:
        out = {}
        for key, array in arrays.items():
            if np.issubdtype(array.dtype, np.integer):
                out[key] = array
                continue
            if wobble is not None:
                array = array * (
                    1 + scale * 2.0**-24 * draws.signs(wobble, f"{name}/{key}", array.size).reshape(array.shape)
                )
            out[key] = array.astype(dtype)
        return out

    parameters = given(draws.initial_parameters(text), "parameters")
    train = given(draws.training_batches(text), "train")
    evaluation = given(evaluation_batch(text, labels), "evaluation")
    first = {key: array[0] for key, array in train.items()}
    results = _trace(module, parameters, first)
    results["evaluation logits"] = module.forward(parameters, evaluation["images"])
    results["metric"] = np.asarray(module.metric(results["evaluation logits"], evaluation["labels"]))
    gradients = given(optimizer_gradients(text), "gradients")
    results.update(_optimizer(module, parameters, gradients))
    trained = _train(module, parameters, train, results)
    results["trained logits"] = module.forward(trained, evaluation["images"])
    shouted = draws.loud(first, LOUD)
    extremes = {
        **_trace(module, parameters, shouted),
        **_optimizer(module, parameters, draws.loud(gradients, LOUD_GRADIENT)),
    }
    _train(module, parameters, {key: array[None] for key, array in shouted.items()}, extremes)
    results.update({f"loud {name}": array for name, array in extremes.items()})
    return results


def _trace(module: ModuleType, parameters: Arrays, batch: Arrays) -> Arrays:
    results: Arrays = {}

    def tap(layer: str, x: np.ndarray, y: np.ndarray) -> None:
        results[f"input/{layer}"], results[f"output/{layer}"] = x, y

    results["logits"] = module.forward(parameters, batch["images"], tap)
    loss, gradients = _loss_and_gradients(module, parameters, batch)
    results["loss"] = np.asarray(loss)
    results.update({f"gradient/{name}": value for name, value in gradients.items()})
    return results


def _loss_and_gradients(module: ModuleType, parameters: Arrays, batch: Arrays) -> tuple[float, Arrays]:
    from autograd import value_and_grad

    def objective(values: Arrays) -> Any:
        return module.loss(module.forward(values, batch["images"]), batch["labels"])

    return value_and_grad(objective)(parameters)


def _optimizer(module: ModuleType, parameters: Arrays, gradients: Arrays) -> Arrays:
    state = module.initial_state(parameters)
    for step in range(1, APPLICATIONS + 1):
        parameters, state = module.update(parameters, gradients, state, step)
    return {f"optimizer/{name}": value for name, value in {**parameters, **state}.items()}


def _train(module: ModuleType, parameters: Arrays, batches: Arrays, results: Arrays) -> Arrays:
    state, losses = module.initial_state(parameters), []
    steps = len(batches["labels"])
    for step in range(1, steps + 1):
        loss, gradients = _loss_and_gradients(
            module, parameters, {key: array[step - 1] for key, array in batches.items()}
        )
        losses.append(loss)
        parameters, state = module.update(parameters, gradients, state, step)
        if step in (1, steps):
            results.update({f"step {step}/{name}": value for name, value in {**parameters, **state}.items()})
    results["losses"] = np.asarray(losses)
    return parameters
