"""Look at any named value inside a model without changing its text.

Models call `tap(name, x)` at block boundaries; it does nothing until somebody observes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_observer: Callable[[str, Any], None] | None = None


def tap(name: str, x: Any) -> None:
    """Show the value `x` to the observer under `name`, the path of the parameters that made it."""
    if _observer is not None:
        _observer(name, x)


@contextmanager
def observe(callback: Callable[[str, Any], None]) -> Iterator[None]:
    """Call `callback(name, x)` for every tapped value inside the with block; blocks may be nested, the inner one sees."""
    global _observer
    before = _observer
    _observer = callback
    try:
        yield
    finally:
        _observer = before
