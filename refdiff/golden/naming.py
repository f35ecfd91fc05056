"""Names of another program's tensors: a table that turns them into golden ones, and a word to who has none in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from refdiff.errors import BadRequest
from refdiff.golden.format import Trace

SHOWN = 3


def read_names(path: Path) -> dict[str, str]:
    """A table of lines `theirs = golden`; empty lines and those that begin with # count for nothing.

    Raises: BadRequest for a file that cannot be read, a line that is none of these, a name that stands twice
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path}: is no table of names that can be read: {error}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        theirs, equals, golden = (part.strip() for part in line.partition(" = "))
        if not (theirs and equals and golden):
            raise BadRequest(f"{path}: line {number} is not of the form: theirs = golden")
        if theirs in found or golden in found.values():
            raise BadRequest(f"{path}: line {number} has a name that stands in a line before")
        found[theirs] = golden
    return found


def require_common(theirs: Trace, golden: Trace, where: tuple[Path, Path]) -> None:
    """Raises: BadRequest where no tensor of theirs has a golden name"""
    if not set(theirs.tensors) & set(golden.tensors):
        raise BadRequest(
            f"{where[0]} and {where[1]} have no name in common: theirs are {some(theirs.tensors)}, golden ones "
            f"{some(golden.tensors)}: write a table with lines `theirs = golden` and give it with --rename FILE"
        )


def some(names: Iterable[str]) -> str:
    """A few names, spread over all."""
    every = list(names)
    chosen = every if len(every) <= SHOWN else [every[k * (len(every) - 1) // (SHOWN - 1)] for k in range(SHOWN)]
    return ", ".join(chosen) or "none"
