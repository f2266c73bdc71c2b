"""What a text's forward pass does, step by step: its layers and the operations between them, with shapes.

The reference is run on one example in full size, with matrix products not computed (as `work` does), and listened to:
`tap` tells of layers, its functions (`relu`, `attention`) of operations, its arrays of sums and concatenations. So
nothing about a model is written down twice. Numbers mean nothing here, shapes and the order do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlrosetta import reference
from dlrosetta.texts import Text, sized

# Functions of references, as operations of `concepts.toml` with what more is to say of them.
OPERATIONS = {
    "relu": ("op:relu", ""),
    "gelu": ("op:gelu", ""),
    "attention": ("op:attention", ""),
    "max_pool2x2": ("op:max-pool", "2×2"),
    "max_pool3x3": ("op:max-pool", "3×3"),
    "avg_pool2x2": ("op:average-pool", "2×2"),
}
NOT_OPERATIONS = ("forward", "network", "layers")  # what they call is listened to


@dataclass
class Step:
    """One layer or operation. `shape` is of its output, without the batch; `sources` are the numbers of the steps whose
    output it takes, -1 being the input of the model.
    """

    concept: str  # "op:convolution"
    shape: tuple[int, ...]
    sources: list[int]
    layer: str = ""  # the name of a layer of the text, or of one of its dropouts
    detail: str = ""  # "3×3 / 2", whose stride is 2; a rate; what a product is with
    parameters: int = 0  # numbers that are trained; running statistics are not

    @property
    def block(self) -> str:
        """The block that a layer is in: "layer1.0"."""
        return self.layer.rpartition(".")[0]


def steps(text: Text) -> list[Step]:
    """The forward pass of the text's model in full size. Takes about a second for the largest."""
    return _Listener(text).steps


class _Heard(np.ndarray):
    """An array whose sums are heard of; `listener` is set by it."""

    listener: _Listener

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        def plain(values: Any) -> tuple[Any, ...]:
            return tuple(one.view(np.ndarray) if isinstance(one, _Heard) else one for one in values)

        if "out" in more:
            more["out"] = plain(more["out"])
        result = getattr(ufunc, method)(*plain(inputs), **more)
        result = self.listener.heard(result) if isinstance(result, np.ndarray) else result
        if ufunc is np.add and method == "__call__" and all(np.ndim(one) > 1 for one in inputs):
            self.listener.joined("op:add", list(inputs), result)
        return result


@dataclass
class _Listener:
    text: Text
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.made: dict[int, int] = {}  # an array's id: the step that put it out
        self.kept: list[Any] = []  # so that no id is given twice
        self.inside = 0  # functions that are operations, as a whole
        self.kind = type("Heard", (_Heard,), {"listener": self})
        self.specs = {layer["name"]: layer for layer in self.text.full_layers}
        self.module = reference.load(self.text, self.text.hyperparameters, self.product)
        for name, value in list(vars(self.module).items()):
            own = callable(value) and getattr(value, "__module__", "") == self.module.__name__
            if own and name not in NOT_OPERATIONS:
                setattr(self.module, name, self.listened(name, value))
        numpy: Any = vars(self.module)["np"]
        numpy.concatenate = self.watched(numpy.concatenate, "op:concatenate")
        numpy.mean = self.watched(numpy.mean, "op:mean")
        numpy.reshape = self.watched(numpy.reshape, "op:flatten")
        self.run()

    def run(self) -> None:
        spec = self.text.inputs[self.text.input]
        tokens = spec["draw"] in ("tokens", "labels")
        shape = (1, *sized(spec["shape"], self.text.hyperparameters))
        example = self.heard(np.zeros(shape, np.int64 if tokens else np.float32))
        self.made[id(example)] = -1
        self.parameters = {
            name: self.heard(np.ones(spec["shape"], np.float32)) for name, spec in self.text.full_parameters.items()
        }
        with np.errstate(all="ignore"):
            self.module.forward(self.parameters, example, self.tap)

    def heard(self, array: np.ndarray) -> np.ndarray:
        result: np.ndarray = array.view(self.kind)
        self.kept.append(result)
        return result

    def add(self, step: Step, result: Any) -> None:
        self.steps.append(step)
        self.made[id(result)] = len(self.steps) - 1
        self.kept.append(result)

    def source(self, array: Any) -> list[int]:
        """The step that put an array out; the last one where it has been reshaped since."""
        return [self.made.get(id(array), len(self.steps) - 1)]

    def tap(self, layer: str, x: Any, y: Any) -> None:
        from dlrosetta.site.lines import op_of

        self.drop_product()
        spec = self.specs[layer]
        count = sum(math.prod(one["shape"]) for one in spec["parameters"].values() if one["role"] != "statistic")
        detail = ""
        kernel = next((one["shape"] for one in spec["parameters"].values() if one["role"] == "conv"), None)
        if kernel:
            stride = x.shape[2] // y.shape[2]
            detail = f"{kernel[2]}×{kernel[3]}" + (f" / {stride}" if stride > 1 else "")
        sources = [len(self.steps) - 1] if id(x) not in self.made else self.source(x)
        if np.ndim(x) < 2:  # positions, which come from nowhere
            sources = []
        for one in self.text.dropout:  # which the reference leaves out
            if one["feeds"] == layer:
                rate = str(self.text.hyperparameters[one["constant"]])
                self.steps.append(Step("op:dropout", tuple(x.shape[1:]), sources, one["name"], rate))
                sources = [len(self.steps) - 1]
        self.add(Step(op_of(spec), tuple(y.shape[1:] if np.ndim(x) > 1 else y.shape), sources, layer, detail, count), y)

    def product(self, a: Any, b: Any) -> Any:
        shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        result: Any = self.heard(np.broadcast_to(np.zeros((), np.float32), shape))
        if not self.inside:
            table = next((name for name, array in self.parameters.items() if np.may_share_memory(array, b)), "")
            self.add(Step("op:product", tuple(shape[1:]), self.source(a), "", table.rpartition(".")[0]), result)
        return result

    def drop_product(self) -> None:
        """A product that a layer tells of is no step of its own."""
        if self.steps and self.steps[-1].concept == "op:product":
            self.steps.pop()

    def joined(self, concept: str, inputs: list[Any], result: Any) -> None:
        """A sum or concatenation of what steps have put out; not of a product and its bias."""
        known = [self.made[id(one)] for one in inputs if id(one) in self.made]
        if not self.inside and len(known) == len(inputs) > 1:
            self.add(Step(concept, tuple(result.shape[1:]), known), result)

    def listened(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(x: Any, *more: Any, **options: Any) -> Any:
            self.inside += 1
            result = function(x, *more, **options)
            self.inside -= 1
            if not isinstance(result, np.ndarray):
                return result
            result = self.heard(result)
            if name in OPERATIONS and not self.inside:
                concept, detail = OPERATIONS[name]
                if concept == "op:attention":
                    detail = f"HEADS = {self.text.hyperparameters['HEADS']}"
                self.add(Step(concept, tuple(result.shape[1:]), self.source(x), "", detail), result)
            return result

        return call

    def watched(self, function: Callable[..., Any], concept: str) -> Callable[..., Any]:
        """One of NumPy's own functions, as the reference calls it."""

        def call(x: Any, *more: Any, **options: Any) -> Any:
            result = function(x, *more, **options)
            if self.inside:
                return result
            result = self.heard(np.asarray(result))
            if concept == "op:concatenate" and len(x) > 1:
                self.joined(concept, list(x), result)
            elif concept != "op:concatenate" and id(x) in self.made and result.ndim < np.ndim(x):
                self.add(Step(concept, tuple(result.shape[1:]), self.source(x)), result)
            return result

        return call
