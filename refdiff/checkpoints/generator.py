"""Numbers from names: the counter-based generator of the synthetic weights, in integer arithmetic.

docs/synthetic_weights.md says all of it in words, with values to compare; that page and this file must agree.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import numpy as np

from refdiff.core.params import Leaf

GOLDEN = 0x9E3779B97F4A7C15
MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
CENTRE = 131070  # the mean of a sum of four 16-bit integers
SPREAD = 37837  # its standard deviation, rounded: sqrt((2^32 - 1) / 3)
PIECE = 2**15  # elements at a time, so that they stay in the cache

STEPS = {"bias": 2.0**-20, "offset": 2.0**-19, "gain": 2.0**-18, "embedding": 2.0**-16}
# Weights have the standard deviation factor / sqrt(fan_in); the factor goes by the name's ending, 1 where none fits.
FACTORS = {
    "to_q.weight": 1.5, "to_k.weight": 1.5, "q_proj.weight": 1.5, "k_proj.weight": 1.5,
    "time_embedding.linear_1.weight": 2.0, "time_embedding.linear_2.weight": 2.0,
}  # fmt: skip


def tensor(seed: int, component: str, name: str, leaf: Leaf) -> np.ndarray:
    """The whole of one synthetic parameter, float32."""
    return np.concatenate([np.zeros(0, np.float32), *pieces(seed, component, name, leaf)]).reshape(leaf.shape)


def pieces(seed: int, component: str, name: str, leaf: Leaf) -> Iterator[np.ndarray]:
    """One synthetic parameter in row-major order, piece by piece, float32.

    Math: value = base + n step, n the centred integer of `centred_integers`, base 1 for gains and 0 otherwise
    """
    key, size = key_of(seed, component, name), math.prod(leaf.shape)
    step = np.float32(step_of(name, leaf))
    base = np.float32(1.0 if leaf.init == "gain" else 0.0)
    for start in range(0, size, PIECE):
        yield centred_integers(key, start, min(PIECE, size - start)).astype(np.float32) * step + base


def key_of(seed: int, component: str, name: str) -> int:
    """The 64-bit key of a parameter: the first eight bytes, little-endian, of SHA-256("seed/component/name")."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{component}/{name}".encode()).digest()[:8], "little")


def step_of(name: str, leaf: Leaf) -> float:
    """What one unit of the integer is worth, before it is rounded to float32."""
    if leaf.init != "weight":
        return STEPS[leaf.init]
    factor = next((factor for ending, factor in FACTORS.items() if name.endswith(ending)), 1.0)
    return factor / math.sqrt(leaf.fan_in) / SPREAD


def centred_integers(key: int, start: int, count: int) -> np.ndarray:
    """Elements start, start + 1, ... of a key's sequence: integers from -131070 to 131070, nearly normal.

    Math: z_i = mix(key + (i + 1) GOLDEN mod 2^64), n_i = the sum of the four 16-bit parts of z_i, less their mean
    Shapes: [count] int64
    Source: SplitMix64: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", figure 17
    """
    z = _RAMP[:count] + np.uint64((key + start * GOLDEN) & 0xFFFFFFFFFFFFFFFF)
    z ^= z >> np.uint64(30)
    z *= np.uint64(MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(MIX_2)
    z ^= z >> np.uint64(31)
    pairs = (z & _EVEN) + ((z >> np.uint64(16)) & _EVEN)  # two sums of two parts each, side by side
    sums = ((pairs >> np.uint64(32)) + pairs) & np.uint64(0xFFFFFFFF)
    return sums.view(np.int64) - CENTRE


_EVEN = np.uint64(0x0000FFFF0000FFFF)
_RAMP = np.arange(1, PIECE + 1, dtype=np.uint64) * np.uint64(GOLDEN)
