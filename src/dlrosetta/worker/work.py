"""What any framework does, whatever the text: a matrix product, a copy and a convolution, by the adapter's own `work`.
And whether a fence has waited for it.
"""

import time

import numpy as np

from dlrosetta.worker.layouts import Layouts
from dlrosetta.worker.timing import late

KINDS = ("product", "copy", "convolution")
DRAWN = 65537  # numbers that an array repeats; a prime, so that no two rows are alike
COLUMNS = 1024  # of an array that is copied
IMAGES, SIDE, KERNEL = 16, 32, 3  # of a convolution: how many images, their height and width, those of its kernel
ROWS = 4  # of the result, that are looked at;
BOUND = 1e-4  # a product in float32 errs by 1e-6 to 1e-5, in TF32 by 3e-4


class Work(object):
    """One kind of work in one size, on arrays that are kept from one request to the next."""

    def __init__(self, adapter, state, layout):
        """`state` is of no model: the adapter's fence takes it. `layout` is framework.toml's table."""
        self.adapter, self.state, self.layouts = adapter, state, Layouts(layout, [])
        self.prepared, self.once = None, None

    def do(self, kind, size, count):
        """Do it `count` times, in float32, on arrays made before, between two fences: a "product" of two matrices
        (size, size), a "copy" of `size` numbers, negated or not, or a "convolution" of images of `size` channels to as
        many, padded by zeros to the same height and width, in the framework's own layout. Answer the seconds, and by
        how many the last result was late behind the fence.
        """
        if self.prepared != (kind, size):
            self._prepare(kind, size)
        once = self.once
        self.adapter.synchronize(self.state)
        start = time.perf_counter()
        for _ in range(count):
            result = once()
        self.adapter.synchronize(self.state, result)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "late_s": late(self.adapter, result)}

    def _prepare(self, kind, size):
        work = getattr(self.adapter, "work", None)
        if work is None or kind not in KINDS:
            known = ", ".join(KINDS) if work else "none: the adapter has no `work`"
            raise ValueError("Expected a kind of work: %s. Received: %r" % (known, kind))
        self.prepared = self.once = None  # what was kept is let go of before more is made
        self.adapter.set_dtype("float32")
        shapes = {
            "product": [(size, size)] * 2,
            "copy": [(size // COLUMNS, COLUMNS)],
            "convolution": [(IMAGES, size, SIDE, SIDE), (size, size, KERNEL, KERNEL)],
        }[kind]
        drawn = np.random.RandomState(0).uniform(-1, 1, DRAWN).astype(np.float32)
        arrays = [np.resize(drawn[number:], shape) for number, shape in enumerate(shapes)]
        once = work(kind, *self._native(kind, arrays))
        result = once()
        self.adapter.synchronize(self.state, result)
        result = np.asarray(self.adapter.to_numpy(result))
        if kind == "convolution":
            result = self.layouts.activation_to_canonical("", result, False)[0]  # (size, SIDE, SIDE)
        found, exact = result[:ROWS].astype(np.float64), _exact(kind, arrays)
        if found.shape != exact.shape:
            raise ValueError("Expected a %s of shape %s. Received: %s" % (kind, exact.shape, found.shape))
        error = min(np.linalg.norm(found - one) / np.linalg.norm(exact) for one in (exact, -exact))
        if not error < BOUND:
            raise ValueError("Expected a %s in float32. Received: one with a relative error of %.0e" % (kind, error))
        self.prepared, self.once = (kind, size), once

    def _native(self, kind, arrays):
        """Images and kernel of a convolution as the framework has them; other arrays as they are."""
        if kind != "convolution":
            return arrays
        images, kernel = arrays
        axes = np.argsort(self.layouts.conv)
        return self.layouts.images_to_native(images), np.ascontiguousarray(kernel.transpose(axes))


def _exact(kind, arrays):
    """The first rows of what should come out, in float64; of a convolution, the first channels of the first image."""
    if kind == "copy":
        return arrays[0][:ROWS].astype(np.float64)
    first, second = (array.astype(np.float64) for array in (arrays[0][:ROWS], arrays[1]))
    if kind == "product":
        return first.dot(second)
    edge = KERNEL // 2
    padded = np.pad(first[0], [(0, 0), (edge, edge), (edge, edge)], mode="constant")
    found = np.zeros((ROWS, SIDE, SIDE))
    for row in range(KERNEL):
        for column in range(KERNEL):
            seen = padded[:, row : row + SIDE, column : column + SIDE]
            found += np.tensordot(second[:ROWS, :, row, column], seen, 1)
    return found
