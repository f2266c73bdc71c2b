"""The names that a version uses, each with its line and its full name, from the syntax tree; in C++ from the tokens.

A name is found where it stands, not where the statement begins, so that a line of a long call is about what is on it.
Comments and docstrings are no names. What a name is short for is taken from the imports and from plain assignments:
`nn.GRU` below `from torch import nn` is `torch.nn.GRU`. Nothing is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

KINDS = ("name", "keyword", "string", "definition", "import")
_CPP_NAMES = re.compile(r"(?:[A-Za-z_]\w*)(?:(?:::|\.|->)~?[A-Za-z_]\w*)*")

# Of the language: nobody looks for them.
_CPP_WORDS = {
    "auto", "bool", "const", "double", "else", "for", "if", "include", "int", "int64_t", "namespace", "override",
    "return", "size_t", "struct", "template", "typename", "using", "void", "while",
}  # fmt: skip


@dataclass(frozen=True)
class Word:
    """One name: as written, and in `full`. `first` and `last` are the lines of the call that it heads, or of the
    statement that gives it its value; else both are `line`. `scope` are the classes and functions around it, outermost
    first, and `value` is what a keyword argument is given where that is a constant (`training=True`).
    """

    kind: str
    name: str
    full: str
    line: int
    first: int
    last: int
    scope: tuple[str, ...] = ()
    value: str = ""
    called: bool = False
    defines: bool = False  # it is given a value here: `self.conv1 = …`, `name="conv1"`
    made_by: str = ""  # the function whose call that value is, or whose keyword argument this is, as written

    @property
    def parts(self) -> list[str]:
        """The parts of a dotted name: `self`, `conv1`, `weight`."""
        return self.name.split(".")


@lru_cache(maxsize=128)
def words(path: Path) -> tuple[Word, ...]:
    """Every name of a version's file, in the order of lines. Raises SyntaxError where Python cannot read it."""
    source = path.read_text(encoding="utf-8")
    found = _Python(source).found if path.suffix == ".py" else list(_tokens(source))
    return tuple(sorted(found, key=lambda word: word.line))


@dataclass(frozen=True)
class Definition:
    """A class or function of the file's own: its name and its lines, decorators included."""

    name: str
    first: int
    last: int


@lru_cache(maxsize=128)
def definitions(path: Path) -> tuple[Definition, ...]:
    """The classes and functions at the top of a Python version; none of another language."""
    if path.suffix != ".py":
        return ()
    return tuple(
        Definition(node.name, min([node.lineno, *(one.lineno for one in node.decorator_list)]), node.end_lineno or 0)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    )


@dataclass(frozen=True)
class Loop:
    """A `for` of Python: its line, and those of its body."""

    line: int
    body: range


@lru_cache(maxsize=128)
def loops(path: Path) -> tuple[Loop, ...]:
    """The `for` statements of a Python version; none of another language."""
    if path.suffix != ".py":
        return ()
    return tuple(
        Loop(node.lineno, range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.For)
    )


class _Python(ast.NodeVisitor):
    """Collects words; `short` maps the names that imports and plain assignments bind to what they are short for."""

    def __init__(self, source: str):
        self.found: list[Word] = []
        self.short: dict[str, str] = {}
        self.scope: tuple[str, ...] = ()
        self.heads: set[int] = set()  # ids of the nodes that are called
        self.span: dict[int, tuple[int, int]] = {}  # node's id: lines of its call or statement
        self.targets: dict[int, str] = {}  # node's id: the function whose call it is given
        self.visit(ast.parse(source))

    def _add(self, kind: str, name: str, node: ast.AST, value: str = "") -> None:
        line = getattr(node, "end_lineno", 0) if isinstance(node, ast.Attribute) else getattr(node, "lineno", 0)
        first, last = self.span.get(id(node), (line, line))
        given = self.targets.get(id(node))
        called, full = id(node) in self.heads, self._full(name)
        more = (self.scope, value, called, given is not None, given or "")
        self.found.append(Word(kind, name, full, line, first, last, *more))

    def _full(self, name: str) -> str:
        root, dot, rest = name.partition(".")
        return self.short.get(root, root) + dot + rest

    def visit_Import(self, node: ast.Import) -> None:
        for one in node.names:
            if one.asname:
                self.short[one.asname] = one.name
            self.found.append(Word("import", one.asname or one.name, one.name, node.lineno, node.lineno, node.lineno))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for one in node.names:
            full = f"{node.module}.{one.name}"
            self.short[one.asname or one.name] = full
            line = getattr(one, "lineno", node.lineno)
            self.found.append(Word("import", one.asname or one.name, full, line, line, line))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._enter(node)

    def _enter(self, node: ast.ClassDef | ast.FunctionDef) -> None:
        self._add("definition", node.name, node)
        for one in node.decorator_list:
            self.visit(one)
        outer, self.scope = self.scope, (*self.scope, node.name)
        inner: list[ast.AST] = list(node.bases) if isinstance(node, ast.ClassDef) else [node.args]
        body = node.body[1:] if ast.get_docstring(node) else node.body
        for child in [*inner, *body]:
            self.visit(child)
        self.scope = outer

    def visit_Module(self, node: ast.Module) -> None:
        for child in node.body[1:] if ast.get_docstring(node) else node.body:
            self.visit(child)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assign(node, node.targets, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:  # a field of a class: `conv1: nn.Conv2d`
        self.targets[id(node.target)] = _dotted(node.annotation) or ""
        self.generic_visit(node)

    def _assign(self, node: ast.stmt, targets: list[ast.expr], value: ast.expr) -> None:
        flat = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
        values = value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(flat) else [value] * len(flat)
        for target, given in zip(flat, values, strict=True):
            maker = _dotted(given.func) if isinstance(given, ast.Call) else None
            self.targets[id(target)] = maker or ""
            self.span[id(target)] = (node.lineno, node.end_lineno or node.lineno)
            dotted = _dotted(given)
            if isinstance(target, ast.Name) and dotted and "." in dotted and dotted.split(".")[0] in self.short:
                self.short[target.id] = self._full(dotted)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.heads.add(id(node.func))
        self.span[id(node.func)] = (node.lineno, node.end_lineno or node.lineno)
        maker = _dotted(node.func) or ""
        if node.args and isinstance(node.args[0], (ast.Constant, ast.JoinedStr)):
            self.targets[id(node.args[0])] = maker  # `conv("conv1", x, …)`: the name comes first
        for keyword in node.keywords:
            value = keyword.value
            constant = str(value.value) if isinstance(value, ast.Constant) else ""
            if keyword.arg:
                self.targets[id(keyword)] = maker
                self._add("keyword", keyword.arg, keyword, constant)
            if keyword.arg == "name":
                self.targets[id(value)] = maker
                self.span[id(value)] = (node.lineno, node.end_lineno or node.lineno)
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        self.visit(node.value)

    def visit_arg(self, node: ast.arg) -> None:
        pass  # parameters are named alike whatever they mean

    def visit_Name(self, node: ast.Name) -> None:
        self._add("name", node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = _dotted(node)
        if name:
            self._add("name", name, node)
        else:  # of what a call or an index gives: `loss_fn(…).backward`
            self._add("name", f".{node.attr}", node)
            self.visit(node.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._add("string", node.value, node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pieces = [
            str(one.value).replace("{", "(") if isinstance(one, ast.Constant) else "{}" for one in node.values
        ]  # `f"layer{stage + 1}"` is "layer{}"
        self._add("string", "".join(pieces), node)
        for one in node.values:
            if isinstance(one, ast.FormattedValue):
                self.visit(one.value)


def _dotted(node: ast.AST) -> str | None:
    """`nn.init.zeros_` of such an expression; None of any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else None
    return None


def _tokens(source: str) -> Iterator[Word]:
    """The words of C++, line by line: names joined by `::`, `.` and `->` become dotted ones, strings stay strings."""
    from pygments.lexers import CppLexer
    from pygments.token import Comment, Literal

    code, strings = list(source), []
    for place, kind, text in CppLexer(stripnl=False).get_tokens_unprocessed(source):
        if kind in Comment and kind not in Comment.Preproc and kind not in Comment.PreprocFile:
            code[place : place + len(text)] = [c if c == "\n" else " " for c in text]
        elif kind in Literal.String and text.strip('"'):
            strings.append((source.count("\n", 0, place) + 1, text.strip('"')))
            code[place : place + len(text)] = " " * len(text)
    short: dict[str, str] = {}
    for number, line in enumerate("".join(code).splitlines(), 1):
        alias = re.match(r"\s*namespace (\w+) = ([\w:]+)", line)
        if alias:
            short[alias[1]] = _resolve(alias[2].replace("::", "."), short)
        used = re.match(r"\s*using ", line)
        for match in _CPP_NAMES.finditer(line):
            if match[0] in _CPP_WORDS:
                continue
            name = re.sub(r"::|->", ".", match[0])
            if re.search(r"[)\]]\s*(\.|->)$", line[: match.start()]):
                name = f".{name}"  # of what a call gives: `.padding(1)`
            if used and "." in name:
                short[name.rpartition(".")[2]] = name
            kind = "import" if alias or used or line.lstrip().startswith("#") else "name"
            called = line[match.end() :].startswith(("(", "<"))
            defines = "register_module" in line
            yield Word(kind, name, _resolve(name, short), number, number, number, (), "", called, defines)
    for number, text in strings:
        yield Word("string", text, text, number, number, number, defines=True)


def _resolve(name: str, short: dict[str, str]) -> str:
    root, dot, rest = name.partition(".")
    return short.get(root, root) + dot + rest
