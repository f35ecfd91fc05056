"""Whether a kernel gives the same bits on any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from refdiff.kernels.cpu import common


def assert_same_bits(make: Callable[[], np.ndarray], threads: Sequence[int]) -> None:
    """What `make` gives on each of these numbers of threads, with none too small for a second one, is one array."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "SMALL", 0)
        found = []
        for count in threads:
            patch.setattr(common, "THREADS", count)
            found.append(make())
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
