"""What mixed precision with bfloat16 does to a reference's numbers, in NumPy.

Parameters, optimizer and loss stay in float32; what goes into a matrix product and what comes out of it, forward and
backward, is rounded to bfloat16, while the product's own sums are kept in float32, as hardware does it. Rounding is up
or down at random, in proportion to how near either is: each run is then another draw of the same error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Rounding = Callable[[Any], Any]


def rounding(seed: int) -> Rounding:
    """Return a function that rounds float32 arrays to bfloat16, and their gradients on the way back, by new draws."""
    from autograd.extend import defvjp, primitive

    bits = np.random.Philox(key=seed)

    def to_bfloat16(array: Any) -> np.ndarray:
        array = np.asarray(array, np.float32)
        drawn = bits.random_raw(-(-array.size // 4)).view(np.uint16)[: array.size].reshape(array.shape)
        return ((array.view(np.uint32) + drawn) & np.uint32(0xFFFF0000)).view(np.float32)

    rounded = primitive(to_bfloat16)
    defvjp(rounded, lambda result, array: rounded)
    return rounded


def rounded_matmul(rounded: Rounding) -> Callable[[Any, Any], Any]:
    """A matrix product of what is `rounded`, which is rounded again."""
    from autograd import numpy as exact

    def matmul(a: Any, b: Any) -> Any:
        return rounded(exact.matmul(rounded(a), rounded(b)))

    return matmul
