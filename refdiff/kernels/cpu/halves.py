"""Weights of two bytes a number, float16 or bfloat16, which kernels widen to float32 as they pack them."""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.common import address
from refdiff.kernels.cpu.vector import CONVERTS

BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # NumPy has none: the upper half of a float32, under a name that no other array has
# What tells a compiled kernel, by its type, which numbers it reads: vector.NUMBERS.
FLOAT32 = np.float32(0)
KINDS = {np.dtype(np.float32): FLOAT32, np.dtype(np.float16): np.int16(0), BFLOAT16: np.uint16(0)}


def readable(weight: np.ndarray) -> np.ndarray:
    """The weight as compiled kernels take it: itself, but float32 where it is float16 and the processor does not convert.

    Raises: Unsupported for a dtype that is none of KINDS
    """
    if weight.dtype not in KINDS:
        raise Unsupported(f"dtype {weight.dtype}")
    return weight.astype(np.float32) if weight.dtype == np.float16 and not CONVERTS else weight


def source(weight: np.ndarray) -> tuple[int, Any]:
    """The address of a contiguous array and the kind of its numbers; the caller keeps it alive."""
    return address(weight), KINDS[weight.dtype]
