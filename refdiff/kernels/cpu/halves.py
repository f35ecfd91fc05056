"""Numbers of two bytes: weights of float16 or bfloat16, and activations that become bfloat16 where such are multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.core import primitive
from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.bfloat16 import PAIRS, narrow_vector
from refdiff.kernels.cpu.common import address, jit, parallel
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.vector import CONVERTS, TILE

BFLOAT16 = np.dtype([("bfloat16", "<u2")])  # NumPy has none: the upper half of a float32, under a name that no other array has
# What tells a compiled kernel, by its type, which numbers it reads: vector.NUMBERS.
FLOAT32 = np.float32(0)
PAIR = np.uint16(0)
SPARED = np.int32(0)  # float32, of which inner.py spares products
KINDS = {np.dtype(np.float32): FLOAT32, np.dtype(np.float16): np.int16(0), BFLOAT16: PAIR}
CHUNK = 16 * TILE.lanes  # numbers that are narrowed at a time
# Whether products of bfloat16, where they are asked for, are made: without instructions for them they gain nothing.
MULTIPLIES = PAIRS


def in_pairs(depth: int) -> bool:
    """Whether a product of that depth is made of bfloat16: asked for, worth it, and no number is left without its pair."""
    return MULTIPLIES and primitive.products() == "bfloat16" and depth % 2 == 0


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


def narrowed(x: np.ndarray) -> np.ndarray:
    """The bits of the bfloat16 nearest to each float32 of flat memory; beyond its largest number, 3.39e38, that is infinity.

    Shapes: [N] -> [N]
    """
    out, whole = room_for_narrowed(x)
    parallel(narrow, whole, x.size, address(x), address(out))
    return out


def room_for_narrowed(x: np.ndarray) -> tuple[np.ndarray, int]:
    """Memory for the bfloat16 of flat memory, and how many chunks of it are still to be narrowed: what is beyond them has been.

    Shapes: [N] -> [N]
    """
    whole, chunks = x.size // CHUNK, -(-x.size // CHUNK)
    out = result(chunks * CHUNK // 2).view(np.uint16)
    if whole < chunks:
        rest = np.zeros(CHUNK, dtype=np.float32)
        rest[: x.size - whole * CHUNK] = x[whole * CHUNK :]
        narrow(0, 1, address(rest), address(out) + 2 * whole * CHUNK)
    return out[: x.size], whole


@jit
def narrow(start: Any, stop: Any, source: Any, target: Any) -> None:
    """The chunks start..stop of float32 become bfloat16; addresses."""
    for i in range(start * CHUNK, stop * CHUNK, TILE.lanes):
        narrow_vector(source + 4 * i, target + 2 * i)
