"""Attention of bfloat16 in the matrix unit of amx.py, a block of scores at a time, as attention.py has it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refdiff.kernels.cpu import amx
from refdiff.kernels.cpu.common import PER_NUMBER, address, inline, jit, on_threads, parallel, part, parts_of, scratch
from refdiff.kernels.cpu.halves import FLOAT32, PAIR
from refdiff.kernels.cpu.heads import _turn, line_of
from refdiff.kernels.cpu.online_softmax import LEAST, NEVER, soften
from refdiff.kernels.cpu.panels import COLUMNS, gather_columns, pair_panel, transpose
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.turns import counters, each
from refdiff.kernels.cpu.vector import copy_row
from refdiff.kernels.cpu.vector_softmax import add_to_scaled, divide_columns, scale_columns

SIDE, STEP, BYTES = amx.SIDE, amx.STEP, amx.BYTES
QUERIES, KEYS = 8 * COLUMNS, 256  # of a stretch, and of a block, a panel of whose scores stays in the first cache


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, *, heads: int, scale: float, causal: bool) -> np.ndarray:
    """Arguments are contiguous, and fit one another.

    Math: attention.attention's, where m' is always the largest score so far
    Shapes: [B,T,N*d], [B,S,N*d], [B,S,N*d] -> [B,T,N*d]
    """
    (batch, queries, width), count = q.shape, k.shape[1]
    depth = width // heads
    lines = result(batch * heads, depth, line_of(count))
    of_keys, of_features = -(-count // SIDE), -(-depth // SIDE)
    keys = result(len(lines), of_keys, of_features, BYTES // 4)
    values = result(len(lines), of_features, of_keys, BYTES // 4)
    parallel(_pack_heads, len(lines), k.size, k, v, lines, keys, values)
    out, stretches = result(*q.shape), -(-queries // QUERIES)
    parts = parts_of(len(lines) * stretches, queries * k.size // PER_NUMBER)
    turns, sizes = counters(parts), (len(lines) * stretches, stretches, heads, queries, count, depth)
    rows = np.repeat(np.array([scale / math.log(2.0), LEAST, 0, NEVER], np.float32), COLUMNS)

    def work(thread: int) -> None:
        features = of_features * SIDE
        floats = {
            "tops": 2 * QUERIES,
            "queries": QUERIES * features,
            "scores": KEYS * COLUMNS,
            "sums": QUERIES * (features + 1),
            "fresh": (features + 1) * COLUMNS,
        }
        own = (scratch(name, size) for name, size in floats.items())
        _stream((thread, parts), address(turns), sizes, causal, tuple(address(x) for x in (q, keys, values, out, rows, *own)))

    on_threads(work, parts)
    return out


@jit
def _pack_heads(start, stop, k, v, lines, keys, values):
    """Keys and turned values of the heads start..stop as bfloat16 in blocks of rows, zeros beyond the last row and number.

    A block's rows are keys, or features of values; its steps are of features, or of keys. `lines` becomes the turned values.
    Shapes: [B,S,N*d], [B,S,N*d], [B*N,d,line_of(S)], [B*N,blocks,steps,BYTES / 4], [B*N,blocks,steps,BYTES / 4]
    """
    depth, (count, width) = lines.shape[1], k.shape[1:]
    heads = width // depth
    wide, long = keys.shape[2] * STEP, values.shape[2] * STEP
    key, line = np.zeros(wide, np.float32), np.zeros(long, np.float32)
    for h in range(start, stop):
        _turn(h, h + 1, count, v, lines)
        batch, feature = h // heads, h % heads * depth
        for s in range(long):
            if s < count:
                key[:depth] = k[batch, s, feature : feature + depth]
            else:
                key[:] = 0
            _pack_row(key.ctypes.data, wide, keys[h].ctypes.data, s)
        for i in range(wide):
            if i < depth:
                line[:count] = lines[h, i, :count]
            else:
                line[:] = 0
            _pack_row(line.ctypes.data, long, values[h].ctypes.data, i)


@inline
def _pack_row(row: Any, many: Any, blocks: Any, i: Any) -> None:
    """So many numbers of one row, numbered through the blocks."""
    to = blocks + i // SIDE * (many // STEP) * BYTES + i % SIDE * 2 * STEP
    for k in range(0, many, STEP):
        amx.narrow_step(row + 4 * k, to + k // STEP * BYTES)


@jit
def _stream(thread, turns, sizes, causal, at):
    """Stretches of queries while there are any, of which `turns` is the address of counters. `at`: addresses."""
    items, stretches, heads, queries, count, depth = sizes
    q, keys, values, out, lines, tops, panel, scores, sums, fresh = at
    row, width, of_keys, of_features = 4 * COLUMNS, heads * depth, -(-count // SIDE), -(-depth // SIDE)
    factor, least, nothing, never = lines, lines + row, lines + 2 * row, lines + 3 * row
    deep, whole, zeros = of_features * SIDE, of_features * SIDE * row, (nothing, 0)
    amx.begin()
    for item, _ in each(turns, items, 1, thread):
        h, first = item // stretches, item % stretches * QUERIES
        many, place = min(QUERIES, queries - first), 4 * ((h // heads * queries + first) * width + h % heads * depth)
        for p in range(0, many, COLUMNS):
            _prepare(q + place + 4 * p * width, (width, many - p, depth, deep), factor, nothing, panel + 4 * p * deep)
            copy_row(least, tops + 8 * p)
        for s in range(0, min(count, first + many) if causal else count, KEYS):
            steps = -(-min(KEYS, count - s) // STEP)
            left = keys + (h * of_keys + s // SIDE) * of_features * BYTES, of_features * BYTES
            right = values + (h * of_features * of_keys + s // STEP) * BYTES, of_keys * BYTES
            for p in range(0, many, COLUMNS):
                shift, top, to = s - first - p, tops + 8 * p, sums + 4 * p * (deep + 1)
                if causal and shift >= COLUMNS:  # no query of the panel sees the block
                    continue
                new = fresh if s else to
                _blocks(left, steps, panel + 4 * p * deep, of_features, zeros, scores)
                for i in range(count - s, steps * STEP):  # keys that there are not
                    copy_row(never, scores + i * row)
                soften(scores, steps * STEP, shift if causal else -count, top, new + whole, PAIR)
                _blocks(right, of_features, scores, steps, zeros, new)
                if s:
                    add_to_scaled(to, depth, top + row, fresh)
                    add_to_scaled(to + whole, 1, top + row, fresh + whole)
        for p in range(0, many, COLUMNS):
            to = sums + 4 * p * (deep + 1)
            divide_columns(to, depth, to + whole)
            transpose(to, np.int64(COLUMNS), depth, min(many - p, COLUMNS), out + place + 4 * p * width, width, FLOAT32)
    amx.end()


@part
def _prepare(q, size, factor, nothing, panel):
    """A panel of queries, scaled, as pairs, in the first half of its memory; zeros beyond the last feature."""
    width, left, depth, deep = size
    gather_columns(q, width, left, depth, panel, FLOAT32)
    scale_columns(panel, depth, factor)
    for i in range(depth, deep):
        copy_row(nothing, panel + 4 * i * COLUMNS)
    pair_panel(panel, deep)


@part
def _blocks(left, many, panel, steps, zeros, out):
    """out = A B for so many blocks of rows of A: (the address, bytes from one to the next)."""
    for i in range(many):
        amx.multiply_block(left[0] + i * left[1], panel, steps, zeros, (out + 4 * i * SIDE * COLUMNS, COLUMNS))
