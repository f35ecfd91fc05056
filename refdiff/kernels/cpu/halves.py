"""float16, in which weights may lie in memory, widened to the float32 in which kernels compute."""

from __future__ import annotations

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.common import jit, parallel
from refdiff.kernels.cpu.vector import float_of_bits

SMALLEST = np.float32(2.0**-24)  # of the numbers of float16, other than 0
SHIFTED = np.int32(112 << 23)  # the exponents of both kinds begin 112 apart


def widened(weight: np.ndarray) -> np.ndarray:
    """The same numbers in float32; an array that is float32 comes back as it is.

    Raises: Unsupported for another dtype
    """
    if weight.dtype == np.float32:
        return weight
    if weight.dtype != np.float16:
        raise Unsupported(f"dtype {weight.dtype}")
    out = np.empty(weight.shape, dtype=np.float32)
    parallel(_widen, weight.size, weight.size, np.ascontiguousarray(weight).reshape(-1).view(np.uint16), out.reshape(-1))
    return out


@jit
def _widen(start, stop, halves, out):
    """By their bits: NumPy's own conversion takes one number at a time.

    A half has a sign, 5 bits of exponent and 10 of the number; an exponent of 0 stands for multiples of 2^-24, one of 31 for
    infinity and NaN.
    """
    for i in range(start, stop):
        half = np.int32(halves[i])
        rest = half & np.int32(0x7FFF)
        bits = (rest << np.int32(13)) + SHIFTED
        if rest >= np.int32(0x7C00):
            bits += SHIFTED
        value = float_of_bits(bits)
        if rest < np.int32(0x0400):
            value = np.float32(rest) * SMALLEST
        out[i] = -value if half & np.int32(0x8000) else value
