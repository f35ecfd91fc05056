"""Look at any named value inside a model, or put another in its place, without changing the model's text.

A layer hands its result on through `tap(name, x)`; a part of a model that is a `unit` does so by itself. Both do nothing until
somebody observes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

See = Callable[[str, Any], None]
Change = Callable[[str, Any], Any]  # (name, value) -> what goes on in its place
Know = Callable[[str], Any]  # name -> the value that is known already, so that it need not be computed, or None
_see: See | None = None
_change: Change | None = None
_know: Know | None = None


def tap(name: str, x: Any) -> Any:
    """Show `x` to the observer under `name`, the path of the parameters that made it; what goes on is `x`, or the observer's."""
    if _see is None:
        return x
    _see(name, x)
    return x if _change is None else _change(name, x)


def unit(part: Callable[..., Any]) -> Callable[..., Any]:
    """A part of a model, a function of (p, ...), whose one result is tapped under p.path; not run where the result is known."""

    @wraps(part)
    def run(p: Any, *args: Any, **constants: Any) -> Any:
        if _see is None:
            return part(p, *args, **constants)
        known = None if _know is None else _know(p.path)
        return tap(p.path, part(p, *args, **constants) if known is None else known)

    return run


@contextmanager
def observe(see: See, *, change: Change | None = None, know: Know | None = None) -> Iterator[None]:
    """Call `see(name, x)` for every tapped value inside the with block; blocks may be nested, the inner one sees.

    What goes on is `change(name, x)`, if given; a unit for which `know(name)` gives a value is not run.
    """
    global _see, _change, _know
    before = _see, _change, _know
    _see, _change, _know = see, change, know
    try:
        yield
    finally:
        _see, _change, _know = before
