"""Philox 4x32-10, a random function without a state, and normals as cuRAND makes them of its words.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3; Box, Muller 1958
"""

from __future__ import annotations

import numpy as np

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1, in units of 2**-32
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
INVERSE = np.float32(2.0**-32)
INVERSE_2PI = np.float32(2.0**-32 * 2.0 * np.pi)


def philox(counters: np.ndarray, key: int) -> np.ndarray:
    """Four random words for each counter of 128 bits, by a key of 64 bits.

    Math: ten times (c0,c1,c2,c3) := (high(M1 c2) ^ c1 ^ k0, low(M1 c2), high(M0 c0) ^ c3 ^ k1, low(M0 c0)), and k0, k1
        each go on by its step
    Shapes: [4,n] uint64 holding words of 32 bits, the lowest first -> [4,n] uint32
    """
    c0, c1, c2, c3 = counters
    for i in range(ROUNDS):
        k0, k1 = (np.uint64((half + i * step) % 2**32) for half, step in zip((key, key >> 32), KEY_STEPS, strict=True))
        first, second = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = second >> HALF ^ c1 ^ k0, second & LOW, first >> HALF ^ c3 ^ k1, first & LOW
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def counters(offset: int, lanes: int) -> np.ndarray:
    """The counters of `lanes` threads, each with a sequence of its own, at a place in it.  Shapes: -> [4,lanes] uint64"""
    rows = np.zeros((4, lanes), dtype=np.uint64)
    rows[0], rows[1] = offset & 0xFFFFFFFF, offset >> 32
    lane = np.arange(lanes, dtype=np.uint64)
    rows[2], rows[3] = lane & LOW, lane >> HALF
    return rows


def box_muller(words: np.ndarray) -> np.ndarray:
    """Standard normals from pairs of words, the one with the sine first, each step rounded to float32.

    Math: u = (x + 1/2) 2^-32, v = (y + 1/2) 2^-32; sqrt(-2 ln u) (sin 2 pi v, cos 2 pi v)
    Shapes: [4,n] uint32 -> [4,n] float32
    Source: cuRAND's device functions; a GPU takes a faster sine and cosine, which are off by up to some 2^-21
    """
    x, y = words[0::2].astype(np.float32), words[1::2].astype(np.float32)
    u = x * INVERSE + INVERSE / 2
    v = (y.astype(np.float64) * INVERSE_2PI + INVERSE_2PI / 2).astype(np.float32)  # multiplied and added with one rounding
    radius = np.sqrt(np.float32(-2.0) * np.log(u.astype(np.float64)).astype(np.float32))
    sine, cosine = (f(v.astype(np.float64)).astype(np.float32) for f in (np.sin, np.cos))
    return np.stack([radius * sine, radius * cosine], axis=1).reshape(words.shape)
