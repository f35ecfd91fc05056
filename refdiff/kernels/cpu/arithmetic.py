"""Sums of large arrays, on all threads and into memory that was used before."""

from __future__ import annotations

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.common import parallel, require_float32
from refdiff.kernels.cpu.results import result


def add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Both must lie in memory in one order, without gaps.  Shapes: any, the same -> the same"""
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        raise Unsupported("a single number")
    require_float32(a, b)
    order = sorted(range(a.ndim), key=lambda axis: -a.strides[axis])
    if a.shape != b.shape:
        raise Unsupported("other shapes")
    one, other = a.transpose(order), b.transpose(order)
    if not (one.flags.c_contiguous and other.flags.c_contiguous):
        raise Unsupported("another layout, or gaps between the numbers")
    out = result(*one.shape)
    parallel(_add, one.size, one.size, one.reshape(-1), other.reshape(-1), out.reshape(-1))
    return out.transpose(np.argsort(order))


def _add(start: int, stop: int, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    np.add(a[start:stop], b[start:stop], out=out[start:stop])


KERNELS = {"add": add}
