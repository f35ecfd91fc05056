"""How the keys and values of attention's heads lie in memory, and where products are spared, of what sizes they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refdiff.kernels.cpu.common import ONE, inline, jit
from refdiff.kernels.cpu.halves import FLOAT32
from refdiff.kernels.cpu.inner import READ_ON, STEP, row_ends
from refdiff.kernels.cpu.panels import ROWS, transpose

# The mean size of values where products are spared, about that of powers; and how many times the mean a number may be: what is
# paired with it loses as many digits.
VALUES, LARGEST = np.float32(0.0625), np.float32(256)
LEAST, MOST = np.float32(1e-18), np.float32(1e18)  # powers of two bring numbers between them to a size


@inline
def line_of(count: Any) -> Any:
    """Floats from one feature of turned values to the next: an odd number of lines, so that they spread over a cache."""
    return (count // 32 * 2 + (1 if count % 32 <= 16 else 3)) * 16


@jit
def _turn(start, stop, count, v, values):
    """values[h] = the transpose of head h, numbered through the batch.  Shapes: [B,S,N*d] -> [B*N,d,line_of(S)]"""
    (depth, line), width = values.shape[1:], v.shape[2]
    heads = width // depth
    for h in range(start, stop):
        source = v.ctypes.data + 4 * (h // heads * count * width + h % heads * depth)
        transpose(source, width, count, depth, values.ctypes.data + 4 * h * depth * line, line, FLOAT32)


@jit
def _measure(start, stop, keys, sizes, v, values, block, key_ends, value_ends, scales, undo, uneven):
    """_turn, and what spared products need of the heads start..stop: while they lie in a cache.

    Each feature of `values` is multiplied by a power of two that brings its mean size near VALUES, and `undo` becomes a row that
    undoes it. `scales` become rows of the power of two near the mean size of a head's keys and of what undoes it; `key_ends` and
    `value_ends` what row_ends makes of keys, and of `block` values of a feature. `uneven` becomes whether some number is too far
    from the mean of its kind; nothing is multiplied then, and the head's products are to be made one by one.
    Shapes: [B*S*N*d], (S, N, d), [B,S,N*d], [B*N,d,line_of(S)], -, [B*N,S + LANES], [B*N,blocks,d + ROWS], [B*N,2,columns],
        [B*N,d,columns], [B*N]
    """
    count, heads, depth = sizes
    width, keys_at, ends_at = heads * depth, keys.ctypes.data, key_ends.ctypes.data
    features, tops = np.zeros(depth, np.float32), np.zeros(depth, np.float32)
    for h in range(start, stop):
        _turn(h, h + 1, count, v, values)
        first = h // heads * count * width + h % heads * depth
        features[:], tops[:] = 0, 0
        for s in range(count):
            key = keys[first + s * width : first + s * width + depth]
            for i in range(depth):
                features[i] += abs(key[i])
                tops[i] = max(tops[i], abs(key[i]))
        mean = features.sum() / (count * depth)
        uneven[h] = not tops.max() <= LARGEST * mean < MOST
        for i in range(depth):
            features[i], tops[i] = _mean_and_top(values[h, i, :count])
            uneven[h] |= not tops[i] <= LARGEST * features[i] < MOST or 0 < features[i] < LEAST
        if uneven[h]:
            continue
        power = _power_near(mean)
        scales[h, 0], scales[h, 1] = power, ONE / power
        for s in range(0, count, ROWS):
            row = s * width + h % heads * depth  # of this picture, so that it does not matter what else is in the batch
            if row + ROWS * width + READ_ON <= count * width:
                row_ends(keys_at + 4 * (first + s * width), width, depth, ends_at + 4 * (h * key_ends.shape[1] + s))
            else:
                for i in range(s, min(s + ROWS, count)):
                    key_ends[h, i] = _end(keys[first + i * width : first + i * width + depth])
        for i in range(depth):
            power = _power_near(features[i]) / VALUES
            undo[h, i] = power if features[i] > 0 else 0  # zeros stay zeros
            _scale(values[h, i], ONE / power)
            for s in range(0, count, block):
                value_ends[h, s // block, i] = _end(values[h, i, s : min(s + block, count)])


@inline
def _mean_and_top(numbers: Any) -> Any:
    """The mean and the largest size."""
    total, top = np.float32(0), np.float32(0)
    for i in range(len(numbers)):
        total += abs(numbers[i])
        top = max(top, abs(numbers[i]))
    return total / np.float32(len(numbers)), top


@inline
def _scale(numbers: Any, factor: Any) -> None:
    for i in range(len(numbers)):
        numbers[i] *= factor


@inline
def _end(numbers: Any) -> Any:
    """What row_ends makes of one row."""
    total = np.float32(0)
    for k in range(0, len(numbers) - STEP + 1, STEP):
        total += numbers[k + 3] * numbers[k + 4] - numbers[k] * numbers[k + 1]
    return total


@inline
def _power_near(size: Any) -> Any:
    """The power of two at a size or below it, but no more than 2^63 and no less than 2^-63."""
    exponent = math.frexp(size)[1] - 1 if size > 0 else -63
    return np.float32(math.ldexp(1.0, min(max(exponent, -63), 63)))
