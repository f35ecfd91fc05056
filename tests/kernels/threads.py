"""Whether a kernel gives the same bits on any number of threads, whichever of them does the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from refdiff.kernels.cpu import common


@contextmanager
def one_after_the_other(order: Callable[[range], Sequence[int]]) -> Iterator[None]:
    """Inside a with block, kernels' threads do not run at once: each begins when the one before it in this order has ended."""

    def on_threads(work: Callable[[int], None], parts: int) -> None:
        for i in order(range(parts)):
            work(i)

    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("refdiff.kernels.cpu.") and hasattr(module, "on_threads"):
                patch.setattr(module, "on_threads", on_threads)
        yield


def assert_same_bits(make: Callable[[], np.ndarray], threads: Sequence[int]) -> None:
    """What `make` gives on each of these numbers of threads, with none too small for a second one, is one array.

    So it is when the first or the last of them finds all work undone and leaves none to the others.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "SMALL", 0)
        found = []
        for count in threads:
            patch.setattr(common, "THREADS", count)
            found.append(make())
        for order in (list, lambda parts: parts[::-1]):
            with one_after_the_other(order):
                found.append(make())
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
