"""A batch whose second half repeats the first is computed once.

A guided step gives the U-Net the same latents twice, and nothing tells the halves apart before the first cross-attention: until
then, which is at the largest size, every layer would do the same work again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from refdiff.kernels.cpu.common import nchw, nhwc
from refdiff.kernels.cpu.results import result


def once(kernel: Callable, batches: int) -> Callable:
    """The kernel, called with half of each of its first `batches` arguments where their halves are the same bits.

    Every kernel gives a picture the same numbers whatever else is in its batch, so nothing changes but the time.
    """

    @functools.wraps(kernel)
    def run(*args: Any, **constants: Any) -> np.ndarray:
        pictures, others = args[:batches], args[batches:]
        if not all(_repeats(x) for x in pictures):
            return kernel(*args, **constants)
        y = kernel(*(x[: len(x) // 2] for x in pictures), *others, **constants)
        return _twice(y) if y.flags.c_contiguous else nchw(_twice(nhwc(y)))

    return run


def _twice(y: np.ndarray) -> np.ndarray:
    both = result(2, *y.shape)
    both[:] = y
    return both.reshape(-1, *y.shape[1:])


def _repeats(x: np.ndarray) -> bool:
    """Whether the second half of a batch has the bits of the first; most that do not are told by the first number."""
    half = len(x) // 2 if x.ndim else 0
    if x.ndim < 2 or x.dtype != np.float32 or len(x) % 2 or x[:half].size == 0:
        return False
    if x[(0,) * x.ndim] != x[(half, *(0,) * (x.ndim - 1))]:
        return False
    bits = x.view(np.uint32)
    return bool(np.array_equal(bits[:half], bits[half:]))
