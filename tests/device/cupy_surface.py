"""What the installed CuPy offers: its names and signatures, read without a GPU."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import cupy

# What compiled code has: the first line of the docstring, "_ndarray_base.sum(self, axis=None) -> _ndarray_base".
_DOCSTRING_SIGNATURE = re.compile(r"(?:\w+\.)*\w+\((?P<parameters>.*)\)(?:\s*->.*)?$")


@functools.cache
def signature(function: Callable) -> inspect.Signature:
    """The signature of a CuPy function, ufunc or method (then with `self`).

    Raises: LookupError where CuPy does not say.
    """
    if isinstance(function, cupy.ufunc):
        return _from_docstring(function)
    try:
        found = inspect.signature(function)
    except ValueError:
        return _from_docstring(function)
    kinds = [p.kind for p in found.parameters.values()]
    if kinds == [inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD]:
        return _from_docstring(function)
    return found


def _from_docstring(function: Any) -> inspect.Signature:
    first_line = (function.__doc__ or "").split("\n")[0].replace("\\", "")
    match = _DOCSTRING_SIGNATURE.match(first_line)
    if match is None or "[" in first_line:
        raise LookupError(f"CuPy does not say how {function} is called")
    parameters = ", ".join(_without_c_type(p) for p in _split(match["parameters"]))
    return inspect.signature(eval(f"lambda {parameters}: None"))


def _without_c_type(parameter: str) -> str:
    return re.sub(r"^\w+\s+(?=\w)", "", parameter.strip())


def _split(parameters: str) -> list[str]:
    """Split at the commas that stand outside brackets."""
    return re.findall(r"(?:[^,(]|\([^)]*\))+", parameters)
