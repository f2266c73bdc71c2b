"""Puts another function in the place of a reference's matrix products, `@` and `np.matmul`: all its work is in them.

Mixed precision rounds what goes into them (bfloat16.py), and the work of a model is theirs (work.py). A reference that
multiplies matrices in another way, by `np.dot` or `np.einsum`, is not seen.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

Matmul = Callable[[Any, Any], Any]


def replace(module: ModuleType, path: Path, matmul: Matmul) -> None:
    """Execute a reference anew in its module such that its products are `matmul`'s."""
    from autograd import numpy as exact

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
