"""Among how many threads of a caller the processors are shared, so that kernels take no more than their part of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_own = threading.local()


def sharers() -> int:
    """How many threads compute at once, this one among them, as far as it was told."""
    return getattr(_own, "sharers", 1)


@contextmanager
def shared_by(count: int) -> Iterator[None]:
    """Inside a with block this thread is one of `count` that compute at once."""
    before = sharers()
    _own.sharers = count
    try:
        yield
    finally:
        _own.sharers = before
