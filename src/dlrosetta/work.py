"""How much work one example is, counted from the text: floating-point operations and bytes.

The reference's forward pass is run in full size on one example, with every matrix product noted and not computed
(products.py): a convolution there is a product of patches, a recurrent layer one a step, attention two a layer. No
framework is asked, so that the count is the same for all, and of what the text says rather than of what a framework
makes of it.

**FLOPs** are two for each multiplication and addition of a product; nothing else is counted. A product (m, k) × (k, n)
has 2 m k n. Products with the zeros of a padding, and those that a causal mask throws away, are counted: frameworks
compute them, or may. In a train step each product comes again as two of the same size, one for the gradient of either
operand; one that depends on nothing trained, such as the images, needs none.

**Bytes** are the least that must be moved where no layer's activations stay in a cache until the next: float32, four
bytes a number, and as many for a token's.

- Forward, each layer of the text (those of `tap`) reads its input and writes its output. So are the logits written,
  where no layer of the text puts them out. What lies between layers (activation functions, pooling, attention) is taken
  to be fused with one of them: it moves nothing.
- Backward, each layer reads its output's gradient and, once more, its input, and writes its input's gradient, where
  there is something trained before it.
- Once a batch, and so divided by its size: forward, every parameter is read, but of tables that are only looked up the
  rows alone, which are the layer's output. In a train step every parameter, its gradient and each of the optimizer's
  numbers for it is written once and read once; running statistics, which have neither gradient nor such numbers, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlrosetta import reference
from dlrosetta.texts import Text, sized

BYTES = 4  # of a number in float32, and of a token


@dataclass(frozen=True)
class Work:
    """Of one example: FLOPs and bytes of a train step (in a text that does not train, of its forward pass) and of the
    forward pass alone.
    """

    flops: int
    bytes: float
    flops_forward: int
    bytes_forward: float

    def document(self) -> dict[str, float]:
        """The entry `work` of a result."""
        return {
            "flops_per_item": self.flops,
            "bytes_per_item": self.bytes,
            "flops_per_item_forward": self.flops_forward,
            "bytes_per_item_forward": self.bytes_forward,
        }


class _Count:
    """Sums up what one forward pass does; its methods stand in for the reference's products and its tap."""

    def __init__(self, tables: dict[str, np.ndarray]):
        from autograd.extend import primitive

        self.flops = self.backward_flops = self.moved = self.backward_moved = 0
        self.multiplied: set[str] = set()  # tables that are operands of products too
        self.last: Any = None
        self._tables = tables
        self._product = primitive(_zeros)

    def matmul(self, a: Any, b: Any) -> Any:
        from autograd.tracer import isbox

        flops = 2 * math.prod(_shape(a, b)) * a.shape[-1]
        self.flops += flops
        self.backward_flops += flops * (isbox(a) + isbox(b))
        for name, table in self._tables.items():
            if any(np.may_share_memory(table, _inner(operand)) for operand in (a, b)):
                self.multiplied.add(name)
        return self._product(a, b)

    def tap(self, layer: str, x: Any, y: Any) -> None:
        from autograd.tracer import isbox

        self.moved += x.size + y.size
        self.backward_moved += y.size + x.size * (1 + isbox(x))
        self.last = y

    def end(self, logits: Any) -> None:
        if logits is not self.last:
            self.moved += logits.size
            self.backward_moved += logits.size


def _inner(value: Any) -> Any:
    """What is behind all marks."""
    from autograd.tracer import getval, isbox

    while isbox(value):
        value = getval(value)
    return value


def _shape(a: Any, b: Any) -> tuple[int, ...]:
    """Of a product of a (…, m, k) and b (…, k, n)."""
    return (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])


def _zeros(a: Any, b: Any) -> np.ndarray:
    """Of that shape, without computing anything."""
    return np.broadcast_to(np.zeros((), a.dtype), _shape(a, b))


def _marking(function: Any, value: Any) -> None:
    """Call it such that all that depends on the value is marked. Nothing is differentiated, so no node of the graph is
    kept, with the activations that it would need: they are hundreds of megabytes.
    """
    from autograd.core import VJPNode
    from autograd.tracer import Node, notrace_primitives, trace

    class Mark(Node):
        def __init__(self, *_: Any):
            pass

        def initialize_root(self) -> None:
            pass

    notrace_primitives[Mark] = notrace_primitives[VJPNode]  # what has no derivative passes no mark on
    trace(Mark.new_root(), function, value)


def count(text: Text) -> Work:
    """The work of one example of a text in full size. Takes a second at most, computes no product, and holds neither
    parameters nor, where it can be helped, activations.
    """
    specs = text.full_parameters
    parameters = {name: np.broadcast_to(np.ones((), np.float32), spec["shape"]) for name, spec in specs.items()}
    tables = {name: np.ones(spec["shape"], np.float32) for name, spec in specs.items() if spec["role"] == "embedding"}
    parameters.update(tables)  # these are known by their memory
    counted = _Count(tables)
    module = reference.load(text, text.hyperparameters, counted.matmul)
    spec = text.inputs[text.input]
    shape = (1, *sized(spec["shape"], text.hyperparameters))
    example = np.zeros(shape, np.int64 if spec["draw"] in ("tokens", "labels") else np.float32)

    def forward(trained: dict[str, Any]) -> Any:
        logits = module.forward({**parameters, **trained}, example, counted.tap)
        counted.end(logits)
        return logits

    with np.errstate(all="ignore"):  # numbers mean nothing here
        if text.trains:
            trained = {name: array for name, array in parameters.items() if specs[name]["role"] != "statistic"}
            _marking(forward, trained)
        else:
            forward({})
    held = sum(array.size for name, array in parameters.items() if name not in tables or name in counted.multiplied)
    batch = text.hyperparameters["BATCH_SIZE"]
    forward_bytes = BYTES * (counted.moved + held / batch)
    if not text.trains:
        return Work(counted.flops, forward_bytes, counted.flops, forward_bytes)
    numbers = sum(array.size for array in parameters.values()) + sum(array.size for array in trained.values())
    numbers += sum(np.size(slot) for slot in module.initial_state(trained).values())
    step_bytes = BYTES * (counted.moved + counted.backward_moved + 2 * numbers / batch)
    return Work(counted.flops + counted.backward_flops, step_bytes, counted.flops, forward_bytes)
