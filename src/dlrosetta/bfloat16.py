"""What mixed precision with bfloat16 does to a reference's numbers, in NumPy.

Parameters, optimizer and loss stay in float32; what goes into a matrix product and what comes out of it, forward and
backward, is rounded to bfloat16, while the product's own sums are kept in float32, as hardware does it. Rounding is up
or down at random, in proportion to how near either is: each run is then another draw of the same error.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
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


def round_products(module: ModuleType, path: Path, rounded: Rounding) -> None:
    """Execute a reference anew in its module such that its products, `@` and `np.matmul`, are of what is `rounded`."""
    from autograd import numpy as exact

    def matmul(a: Any, b: Any) -> Any:
        return rounded(exact.matmul(rounded(a), rounded(b)))

    tree = ast.fix_missing_locations(_Named().visit(ast.parse(path.read_text(encoding="utf-8"))))
    exec(compile(tree, str(path), "exec"), vars(module))
    vars(module)["np"] = SimpleNamespace(**{**vars(exact), "matmul": matmul})


class _Named(ast.NodeTransformer):
    """`a @ b` by the name of what it does."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.MatMult):
            return node
        function = ast.Attribute(ast.Name("np", ast.Load()), "matmul", ast.Load())
        return ast.copy_location(ast.Call(function, [node.left, node.right], []), node)
