"""float16 and bfloat16, in which weights may lie in memory, widened to the float32 in which kernels compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.common import address, jit, parallel
from refdiff.kernels.cpu.vector import PLAIN, TILE, float_of_bits

BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # NumPy has none: the upper half of a float32, under a name that no other array has
# What tells a compiled kernel, by its type, which numbers it reads: vector.NUMBERS.
KINDS = {np.dtype(np.float32): np.float32(0), np.dtype(np.float16): np.int16(0), BFLOAT16: np.uint16(0)}
SMALLEST = np.float32(2.0**-24)  # of the numbers of float16, other than 0
SHIFTED = np.int32(112 << 23)  # the exponents of both kinds begin 112 apart


def readable(weight: np.ndarray) -> np.ndarray:
    """The weight as compiled kernels take it: itself, but widened where it is float16 and the processor does not convert.

    Raises: Unsupported for a dtype that is none of KINDS
    """
    return weight if weight.dtype in KINDS and (weight.dtype != np.float16 or TILE != PLAIN) else widened(weight)


def source(weight: np.ndarray) -> tuple[int, Any]:
    """The address of a contiguous array and the kind of its numbers; the caller keeps it alive."""
    return address(weight), KINDS[weight.dtype]


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
