"""Counting what crosses between host and device, and refusing what crosses without being asked to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class ImplicitTransfer(TypeError):
    """A value of a device array was wanted on the host where nobody wrote to_host."""


@dataclass
class Transfers:
    """How many arrays went to the device, and how many values came back; `events` says which, in order."""

    to_device: int = 0
    to_host: int = 0
    events: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Both directions together."""
        return self.to_device + self.to_host


_counters: list[Transfers] = []
_implicit_allowed = False


@contextmanager
def count_transfers() -> Iterator[Transfers]:
    """Count inside the with block; blocks may be nested, and each counts what is inside it."""
    counter = Transfers()
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters[:] = [c for c in _counters if c is not counter]


@contextmanager
def implicit_transfers() -> Iterator[None]:
    """Inside the with block float(x), bool(x), x.item() ... are counted, as CuPy allows them, and not refused."""
    global _implicit_allowed
    before = _implicit_allowed
    _implicit_allowed = True
    try:
        yield
    finally:
        _implicit_allowed = before


def note_to_device(event: str) -> None:
    """One array goes to the device."""
    for counter in _counters:
        counter.to_device += 1
        counter.events.append(event)


def note_to_host(event: str) -> None:
    """One array, or one number, comes back."""
    for counter in _counters:
        counter.to_host += 1
        counter.events.append(event)


def note_implicit(event: str) -> None:
    """A number comes back because Python asked for it.

    Raises: ImplicitTransfer unless implicit transfers are allowed here.
    """
    if not _implicit_allowed:
        raise ImplicitTransfer(f"{event} brings a value of a device array to the host: keep it there, or use to_host")
    note_to_host(event)
