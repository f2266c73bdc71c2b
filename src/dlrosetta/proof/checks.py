"""One comparison: an error, the bound that it must keep, and where in the version to look if it does not.

Errors of tensors are relative (golden.distance). Errors of statistical tests are −log10 of the p-value, the number of
decimal digits of surprise: a right version exceeds the bound of 6 in one of a million tests. Errors of exact checks
count what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlrosetta.golden import LARGEST, Golden, distance, summarise
from dlrosetta.texts import Text

FORWARD_64, STEPS_64 = 1e-12, 1e-11  # relative bounds in float64: forward and gradients; after optimizer steps
ROUNDINGS = 3.0  # how many times the reference's own rounding error a float32 or bfloat16 cell may make
WIDEST = ROUNDINGS * LARGEST  # in bfloat16 a bound above this is not asked about: half of a tensor lost would not show
LEAST = 2.0**-10  # rounding a product to bfloat16 makes an error of 1.7e-3; in half precision it would be 2e-4
SLIGHT = 3.0  # an activation that exceeds its bound by no more does not explain what exceeds its own by ten times that
SURPRISE = 6.0  # decimal digits of p-value at which a statistical test fails


@dataclass
class Check:
    """`name` as in the JSON; `layer`, `section` and `use` say where the version is to blame if the bound is broken."""

    name: str
    error: float
    bound: float
    section: str
    layer: str | None = None
    use: bool = False  # the blame is where the layer is called, not where it is made
    word: str | None = None  # what to look for in the section, if not the layer
    verdict: str = field(init=False)

    def __post_init__(self) -> None:
        self.verdict = "proven" if self.error <= self.bound else "differs"  # NaN is not <=

    @property
    def excess(self) -> float:
        """The error in multiples of its bound; infinite where it is not a number."""
        if self.verdict == "proven":
            return self.error / self.bound if self.bound else 0.0
        return self.error / self.bound if self.bound and math.isfinite(self.error) else math.inf

    def document(self) -> dict[str, Any]:
        """As `prove --json` shows it. JSON has no infinity: an error that is not a number is null."""
        return {"name": self.name, "error": finite(self.error), "bound": self.bound, "verdict": self.verdict}


def finite(value: float) -> float | None:
    """JSON has neither infinity nor what is not a number: None."""
    return float(value) if math.isfinite(value) else None


class Judge:
    """Compares a cell's arrays with the golden in one precision."""

    def __init__(
        self,
        text: Text,
        golden: Golden,
        dtype: str,
        excused: Callable[[Check], bool] = lambda check: False,
        trains: bool = True,
    ):
        """`excused` says of a check that differs whether a waiver covers it: then it accuses no activation. Unless the
        cell `trains` it has neither loss nor gradients.
        """
        self.text, self.golden, self.dtype, self.excused = text, golden, dtype, excused
        self.trains = trains and text.trains
        self.suspect: Check | None = None  # the first activation that departed and changed nothing so far

    def bound(self, name: str, steps: bool) -> float:
        """What the check `name` is allowed in this precision."""
        if self.dtype == "float64":
            return STEPS_64 if steps else FORWARD_64
        expected = self.golden.tensors[name]
        if self.dtype == "float32":
            return ROUNDINGS * expected.rounding
        assert expected.bfloat16 is not None  # run.prove has seen to it
        return ROUNDINGS * expected.bfloat16

    def asked(self, found: list[Check]) -> list[Check]:
        """Those of the checks whose bound is narrow enough to tell: in bfloat16, training magnifies rounding."""
        return [one for one in found if self.dtype != "bfloat16" or one.bound <= WIDEST]

    def tensor(
        self, name: str, array: np.ndarray | None, section: str, layer: str | None = None, use: bool = False
    ) -> Check:
        """Compare one array with the golden's tensor of that name; a missing or misshapen one differs infinitely."""
        expected = self.golden.tensors[name]
        steps = name.removeprefix("loud ").startswith(("step ", "losses", "trained"))
        error = math.inf
        if array is not None and tuple(np.shape(array)) == expected.shape:
            error = distance(summarise(name, array), expected)
        return Check(name, error, self.bound(name, steps), section, layer, use)

    def trace(self, arrays: dict[str, np.ndarray], kind: str = "") -> list[Check]:
        """Activations in order of computation, logits, loss, then gradients in the order in which they are computed.

        `kind` is what stands before the names in the golden: "" or "loud ". Activations locate a fault and are none by
        themselves: a ReLU may stand within a layer, a padding before it. Where logits, loss and every gradient agree,
        an activation that does not is left out, but remembered: other examples may show that it matters.
        """
        checks = []
        for layer in (one["name"] for one in self.text.layers):
            # What reaches a layer is the doing of the lines before its call; what leaves it is its own.
            checks.append(self.tensor(f"{kind}input/{layer}", arrays.get(f"input/{layer}"), "Model", layer, use=True))
            checks.append(self.tensor(f"{kind}output/{layer}", arrays.get(f"output/{layer}"), "Model", layer))
        checks = self.asked(checks)
        really = self._really(checks) if self.dtype == "bfloat16" else []
        last = self.text.layers[-1]["name"]
        logits = self.tensor(f"{kind}logits", arrays.get("logits"), "Model", last, use=True)
        if not self.trains:
            right = logits.verdict == "proven"
            return [one for one in checks if one.verdict == "proven" or not right] + [logits, *really]
        loss = self.tensor(f"{kind}loss", arrays.get("loss"), "Loss")
        gradients = [
            self.tensor(
                f"{kind}gradient/{layer['name']}.{name}",
                arrays.get(f"gradient/{layer['name']}.{name}"),
                "Model",
                layer["name"],
            )
            for layer in reversed(self.text.layers)
            for name in layer["parameters"]
            if f"{layer['name']}.{name}" in self.text.trained
        ]
        if all(check.verdict == "differs" for check in gradients):
            for check in gradients:  # every layer at once: what they share is the loss
                check.section, check.layer = "Loss", None
        outcome = self.asked([logits, loss, *gradients])
        worst = max((check.excess for check in outcome if not self.excused(check)), default=0.0)
        if worst <= 1:
            departed = [check for check in checks if check.excess > SLIGHT]
            self.suspect = self.suspect or next(iter(departed), None)
            checks = [check for check in checks if check.verdict == "proven"]
        elif worst > 10 * SLIGHT:  # so much is not the doing of a sum that was rounded a little more than allowed
            checks = [check for check in checks if not 1 < check.excess <= SLIGHT]
        return checks + outcome + really

    def _really(self, outputs: list[Check]) -> list[Check]:
        """That every layer with a product was computed in bfloat16: in float32 it would have come out far better."""
        multiply = [one["name"] for one in self.text.layers if _multiplies(one)]
        found = []
        for one in outputs:
            _, output, layer = one.name.partition("output/")
            if output and layer in multiply:
                found.append(Check(f"bfloat16 in {one.name}", float(one.error < LEAST), 0.0, "Model", layer))
        return found

    def group(self, prefix: str, arrays: dict[str, np.ndarray], section: str) -> list[Check]:
        """Every parameter under `prefix/`, and every optimizer slot that the cell could read.

        Where the parameters of one layer alone are wrong it is named; where several are, what they share is to blame.
        """
        known = [name for name in self.golden.tensors if name.startswith(prefix + "/")]
        slots = {name.split("/", 1)[0] for name in arrays if "/" in name}
        wanted = [name for name in known if name.count("/") == 1 or name.split("/")[1] in slots]
        order = {name: place for place, name in enumerate(self.text.shapes)}
        wanted.sort(key=lambda name: (name.count("/"), order.get(name.rsplit("/", 1)[1], 0)))
        checks = [self.tensor(name, arrays.get(name.split("/", 1)[1]), section) for name in wanted]
        wrong = {_layer_of(check.name) for check in checks if check.verdict == "differs"}
        if len(wrong) == 1 < len(self.text.layers):
            for check in checks:
                check.layer = _layer_of(check.name)
        return self.asked(checks)


def vague(golden: Golden) -> str | None:
    """Why bfloat16 tells too little of a text to be asked about at all; None where it tells enough."""
    errors = [one.bfloat16 for name, one in golden.tensors.items() if name.startswith("gradient/")]
    lost = sum(error is not None and error > LARGEST for error in errors)
    if lost <= len(errors) / 2:
        return None
    return f"{lost} of {len(errors)} gradients of the reference itself err by more than a sixth in bfloat16"


def _multiplies(layer: dict[str, Any]) -> bool:
    return any(spec["role"] in ("conv", "dense") for spec in layer["parameters"].values())


def _layer_of(name: str) -> str:
    """The layer of a check of a parameter: `step 1/velocity/fc1.bias` is of fc1."""
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def configuration(text: Text, received: dict[str, Any], trains: bool = True) -> list[Check]:
    """Every hyperparameter of the text stands in the version's Configuration with the text's value.

    A version that does not train has those of the training no more.
    """
    checks = []
    for name, expected in text.hyperparameters.items():
        value = received.get(name)
        if value is None and not trains:
            continue
        wrong = value is None or isinstance(value, str) != isinstance(expected, str) or value != expected
        checks.append(Check(f"configuration/{name}", float(wrong), 0.0, "Configuration", word=name))
    return checks


def shapes(expected: dict[str, dict[str, Any]], received: dict[str, list[int]], kind: str = "") -> list[Check]:
    """Names and shapes of all parameters match, layer by layer; an unmatched one on either side differs."""
    checks = []
    for name, spec in expected.items():
        wrong = name not in received or received[name] != list(spec["shape"])
        checks.append(Check(f"{kind}parameter/{name}", float(wrong), 0.0, "Model", name.rsplit(".", 1)[0]))
    for name in sorted(set(received) - set(expected)):
        checks.append(Check(f"{kind}parameter/{name}", 1.0, 0.0, "Model", name.rsplit(".", 1)[0]))
    order = {layer: place for place, layer in enumerate(dict.fromkeys(check.layer for check in checks))}
    return sorted(checks, key=lambda check: order[check.layer])


def round_trip(given: dict[str, np.ndarray], received: dict[str, np.ndarray]) -> Check:
    """Parameters come back exactly as they were put in."""
    wrong = sum(not np.array_equal(array, received[name]) for name, array in given.items())
    return Check("round trip", float(wrong), 0.0, "Model")
