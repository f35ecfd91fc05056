"""How long things may be. Comments, docstrings and blank lines are free."""

from __future__ import annotations

from collections.abc import Iterator

from house.source import Source, Violation, parameters

FUNCTION_LINES = 50
FILE_LINES = 250
PARAMETERS = 8


def check(source: Source) -> Iterator[Violation]:
    """Functions of at most 50 lines and 8 parameters, files of at most 250 lines.

    A compiled loop of a kernel (its name begins with an underscore) takes its arrays one by one, as many as it needs.
    """
    if len(source.code_lines) > FILE_LINES:
        yield Violation(source.path, 1, f"{len(source.code_lines)} lines of code in one file (at most {FILE_LINES})")
    for function in source.functions:
        inside = range(function.lineno, (function.end_lineno or function.lineno) + 1)
        lines = len(source.code_lines.intersection(inside))
        if lines > FUNCTION_LINES:
            yield source.violation(function, f"{function.name} has {lines} lines of code (at most {FUNCTION_LINES})")
        count = len(parameters(function))
        compiled_loop = "kernels" in source.path.split("/") and function.name.startswith("_")
        if count > PARAMETERS and not compiled_loop:
            yield source.violation(function, f"{function.name} has {count} parameters (at most {PARAMETERS})")
