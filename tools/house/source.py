"""One source file as the rules see it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

Function = ast.FunctionDef | ast.AsyncFunctionDef
_NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING),
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Violation:
    """A place where a rule is broken."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Source:
    """A Python file: its path from the top of the repository, with slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed text."""
        return ast.parse(self.text)

    @cached_property
    def code_lines(self) -> set[int]:
        """The numbers of the lines that hold code: no comments, no docstrings, no blank lines."""
        lines: set[int] = set()
        for token in self._tokens:
            if token.type not in _NO_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
        for docstring in self.docstrings:
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
        return lines

    @cached_property
    def comments(self) -> dict[int, str]:
        """The comments by line number."""
        return {t.start[0]: t.string for t in self._tokens if t.type == tokenize.COMMENT}

    @cached_property
    def docstrings(self) -> list[ast.Constant]:
        """The docstrings of the module, its classes and its functions."""
        owners = (n for n in ast.walk(self.tree) if isinstance(n, ast.Module | ast.ClassDef | Function))
        return [d for owner in owners if (d := docstring_node(owner)) is not None]

    @cached_property
    def functions(self) -> list[Function]:
        """Every function, methods and inner functions included."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    @cached_property
    def public_functions(self) -> list[Function]:
        """Functions and methods of public classes whose names do not begin with an underscore."""
        return list(_public(self.tree))

    def excused(self, node: ast.AST) -> bool:
        """Whether a comment `# house: reason` stands on the first or the last line of the node."""
        lines = {getattr(node, "lineno", 0), getattr(node, "end_lineno", 0)}
        return any(re.match(r"# house: \S+", self.comments.get(line, "")) for line in lines)

    def violation(self, node: ast.AST, message: str) -> Violation:
        """A violation at the node's line."""
        return Violation(self.path, getattr(node, "lineno", 1), message)

    @cached_property
    def _tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))


def docstring_node(owner: ast.AST) -> ast.Constant | None:
    """The docstring of a module, class or function."""
    body = getattr(owner, "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        return body[0].value if isinstance(body[0].value.value, str) else None
    return None


def parameters(function: Function) -> list[ast.arg]:
    """The parameters, `self` and `cls` left out."""
    a = function.args
    found = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    return found[1:] if found and found[0].arg in ("self", "cls") else found


def _public(node: ast.Module | ast.ClassDef) -> Iterator[Function]:
    for child in node.body:
        if isinstance(child, Function) and not child.name.startswith("_"):
            yield child
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _public(child)
