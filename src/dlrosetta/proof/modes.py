"""Training mode and evaluation mode: dropout, and in which mode the version's own steps and its evaluation run.

Two sets of parameters separate what hides together. With `flat` ones (kernels zero, vectors not) nothing that happens
before a layer gets past it, so a dropout layer shows at the one place where it acts, wherever that is. (A text with
residual connections will need another way.) With the text's own ones, and a learning rate of zero, train steps repeat
one forward pass: their losses tell whether dropout acts in them, and draws anew each time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrosetta.proof import statistics
from dlrosetta.proof.checks import Check
from dlrosetta.texts import Text, sized

if TYPE_CHECKING:
    from dlrosetta.proof.asking import Asker

SAME_LOSS = 1e-6  # two losses no further apart than this, relatively, come from one forward pass
BATCH_LOSS = 1e-4  # nor do rounding and another order of sums make more of a loss than this
RATE = "LEARNING_RATE"


def flat(parameters: dict[str, np.ndarray], text: Text) -> dict[str, np.ndarray]:
    """Kernels zero, vectors positive: every layer puts out its bias alone, every ReLU is open."""
    return {
        name: np.abs(array) + 0.1 if text.parameters[name]["role"] == "vector" else np.zeros_like(array)
        for name, array in parameters.items()
    }


def dropout(ask: Asker, text: Text, small: dict[str, Any]) -> Iterator[list[Check]]:
    """Each dropout layer with the others off: rate, scale, independence, and that it acts there and then only."""
    if not text.dropout:
        return
    feeds = [one["feeds"] for one in text.dropout]

    def look(constants: dict[str, Any]) -> tuple[dict[bool, dict[str, np.ndarray]], dict[str, np.ndarray]]:
        ask.create({**small, **constants}, "flat")
        seen = {
            training: ask.arrays("activations", batch="evaluation", layers=feeds, training=training)
            for training in (True, False)
        }
        return seen, ask.arrays("trace", batch="batch")

    base, calm = look(_only(text, None))
    for one in text.dropout:
        name, key = one["name"], f"input/{one['feeds']}"
        seen, trace = look(_only(text, one["constant"]))
        again = ask.arrays("activations", batch="evaluation", layers=feeds, training=True)
        rate = float(text.hyperparameters[one["constant"]])
        found = statistics.dropout(name, rate, base[True].get(key), seen[True].get(key), name)
        error = math.inf
        if key in seen[False] and key in base[False]:
            error = float(np.linalg.norm(seen[False][key] - base[False][key]) / np.linalg.norm(base[False][key]))
        found.append(Check(f"{name} absent in evaluation", error, 1e-5, "Model", name))
        repeated = key in again and np.array_equal(again[key], seen[True].get(key, ()))
        found.append(Check(f"{name} draws anew", float(repeated), 0.0, "Model", name))
        yield [*found, _elsewhere(name, text, {**calm, key: trace.get(key)}, trace)]


def _only(text: Text, constant: str | None) -> dict[str, float]:
    """Constants that switch every dropout off but the one of that constant."""
    return {one["constant"]: 0.0 for one in text.dropout if one["constant"] != constant}


def _elsewhere(name: str, text: Text, expected: dict[str, Any], received: dict[str, Any]) -> Check:
    """Whether anything else in the forward pass has changed; blames the first layer at which it has."""
    order = [f"{end}/{layer['name']}" for layer in text.layers for end in ("input", "output")] + ["logits", "loss"]
    changed = [key for key in order if not np.array_equal(expected.get(key, ()), received.get(key, ()))]
    layer = changed[0].split("/")[-1] if changed else None
    last = text.layers[-1]["name"]
    layer = last if layer in ("logits", "loss") else layer
    return Check(f"{name} acts nowhere else", float(len(changed)), 0.0, "Model", layer, use=True)


def steps(ask: Asker, text: Text, small: dict[str, Any], given: dict[str, np.ndarray], calm: float) -> list[Check]:
    """In the version's own train steps, after its own evaluation, dropout acts, anew each time.

    They are taken with a learning rate of zero, at which nothing may move. `calm` is the loss without dropout.
    """
    if RATE not in text.hyperparameters:
        return []
    ask.create({**small, RATE: 0.0})
    lost = float(ask.arrays("trace", batch="batch")["loss"])
    if ask.evaluates:
        ask.evaluate("batch")  # must not leave its mode behind
    losses = ask.arrays("train", batches="same")["losses"]
    after = ask.arrays("parameters")
    moved = sum(not np.array_equal(given[name], after[name]) for name in text.trained)
    found = [Check(f"{RATE} is used", float(moved), 0.0, "Optimizer", word=RATE)]
    if len(text.trained) < len(text.parameters):
        other = sum(abs(loss - lost) > BATCH_LOSS * abs(lost) for loss in losses)
        found.append(Check("train steps go by the batch's statistics", float(other), 0.0, "Train step"))
    if text.dropout:
        idle = sum(_same(loss, calm) for loss in losses)
        again = _repeated(losses)
        found.append(Check("dropout acts in loss_fn", float(_same(lost, calm)), 0.0, "Loss"))
        found.append(Check("dropout acts in train steps", float(idle), 0.0, "Train step"))
        found.append(Check("dropout draws anew in every train step", float(again), 0.0, "Train step"))
    return found


def alone(ask: Asker, text: Text, small: dict[str, Any]) -> list[Check]:
    """In the version's own train steps each dropout layer alone draws anew: what a compiler has traced may not."""
    found: list[Check] = []
    if RATE not in text.hyperparameters:
        return found
    for one in text.dropout:
        ask.create({**small, **_only(text, one["constant"]), RATE: 0.0})
        again = _repeated(ask.arrays("train", batches="same")["losses"])
        found.append(Check(f"{one['name']} draws anew in every train step", float(again), 0.0, "Model", one["name"]))
    return found


def built(ask: Asker, text: Text, small: dict[str, Any]) -> list[Check]:
    """A model as it is built takes steps too, from where it was itself drawn, after its parameters were read: every
    trained one moves, to numbers. (What is given to a model replaces what it drew, and hides how.)
    """
    ask.create(small, None)
    before = ask.arrays("parameters")
    ask.arrays("train", batches="first")
    ask.arrays("train", batches="rest")
    after = ask.arrays("parameters")
    stuck = [
        name for name in text.trained if not np.isfinite(after[name]).all() or np.array_equal(before[name], after[name])
    ]
    return [Check("train steps of a model as built", float(len(stuck)), 0.0, "Model", word="build_model")]


def perturbed_batch(batch: dict[str, np.ndarray], text: Text) -> dict[str, np.ndarray]:
    """Sequences with every token of their later half changed; nothing for a text without sequences of tokens."""
    if not text.proof.get("causal"):
        return {}
    (classes,) = sized([text.inputs[text.input]["classes"]], text.constants)
    tokens = batch[text.input].copy()
    half = tokens.shape[1] // 2
    tokens[:, half:] = (tokens[:, half:] + 1) % classes
    return {**batch, text.input: tokens}


def causal(ask: Asker, text: Text) -> list[Check]:
    """In a text that declares so, no later input changes an earlier output, and it does change the later ones."""
    if not text.proof.get("causal"):
        return []
    one = ask.arrays("predict", batch="evaluation")["logits"]
    other = ask.arrays("predict", batch="perturbed")["logits"]
    half = one.shape[1] // 2
    earlier = float(np.linalg.norm(one[:, :half] - other[:, :half]) / np.linalg.norm(one[:, :half]))
    deaf = float(np.allclose(one[:, half:], other[:, half:], rtol=1e-3))
    return [
        Check("no later input changes an earlier output", earlier, 1e-6, "Model"),
        Check("a later input changes later outputs", deaf, 0.0, "Model"),
    ]


def _repeated(losses: np.ndarray) -> int:
    """How many pairs of losses come from one and the same forward pass."""
    return sum(_same(losses[i], losses[j]) for i in range(len(losses)) for j in range(i))


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME_LOSS * abs(other)


def evaluation(ask: Asker, metric: float) -> list[Check]:
    """The version's own `evaluate`, called in the midst of training: the text's metric, and nothing changed."""
    ask.arrays("activations", batch="batch", layers=[], training=True)
    before = ask.arrays("parameters")
    received = ask.evaluate("evaluation")
    after = ask.arrays("parameters")
    wrong = sum(not np.array_equal(array, after[name]) for name, array in before.items())
    return [
        Check("evaluate", abs(received - metric) / max(1.0, abs(metric)), 1e-6, "Evaluation"),
        Check("evaluate leaves parameters alone", float(wrong), 0.0, "Evaluation"),
    ]
