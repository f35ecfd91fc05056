"""A solver is short: no file of one over 250 lines, no function of the samplers over 40 lines of code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import refdiff.samplers

FILES = sorted(Path(refdiff.samplers.__file__).parent.rglob("*.py"))


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def length(function):
    """Without the docstring."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return function.end_lineno - first.lineno + 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_short(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    for function in functions(tree):
        assert length(function) <= 40, function.name
    solves = any(isinstance(node, ast.Yield) for node in ast.walk(tree))
    assert len(text.splitlines()) <= 250 or not solves
    assert solves or path.parent.name != "samplers" or path.stem not in ("euler", "ddim", "unipc")
