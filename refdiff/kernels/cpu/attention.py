"""Attention, a block of scores at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu import attention_blocks, blocks
from refdiff.kernels.cpu.common import (
    PER_NUMBER,
    address,
    jit,
    on_threads,
    parallel,
    part,
    parts_of,
    require_float32,
    scratch,
)
from refdiff.kernels.cpu.halves import FLOAT32, PAIR, SPARED, in_pairs, narrowed
from refdiff.kernels.cpu.heads import _measure, _turn, line_of
from refdiff.kernels.cpu.inner import SPARES, column_ends, column_scales, multiply, spares
from refdiff.kernels.cpu.online_softmax import LEAST, NEVER, soften
from refdiff.kernels.cpu.panels import gather_columns, pair_panel, transpose
from refdiff.kernels.cpu.repeats import once
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.tile import SHORT
from refdiff.kernels.cpu.turns import counters, each
from refdiff.kernels.cpu.vector import TILE, bytes_of, copy_row, integer_at
from refdiff.kernels.cpu.vector_softmax import (
    add_to_scaled,
    divide_columns,
    exceeds,
    multiply_rows,
    powers_of_tile,
    scale_columns,
)

ROWS, COLUMNS, LANES = TILE
# Of a stretch, and of a block, which stays in the second cache, and a panel of its scores in the first.
QUERIES, KEYS = 8 * COLUMNS, 240
ROOM = np.float32(60)  # how far a score may lie above the largest of earlier ones, as a power of two
SPARED_ROOM = np.float32(4)  # how far scores may lie above tops there: powers much larger than values would be inexact


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, *, heads: int, scale: float, causal: bool) -> np.ndarray:
    """Softmax and both products a block of keys and a panel of queries at a time: no matrix of scores is ever whole.

    Queries are columns, so the panel of scores that the first product makes is what the second one takes, and a vector holds as
    many queries.
    Math: with the largest score m so far, a block of scores s makes m' = max(m, s), o' = o 2^(m - m') + the sum of v 2^(s - m')
        and l' likewise with 1 for v; in the end o / l. Here s = log2(e) scale k q. In a whole block m' = m will do while s is at
        most m + ROOM: o and l then hold up to 2^ROOM times as much, of which float32 has room for values up to 1e15 or so
    Shapes: [B,T,N*d], [B,S,N*d], [B,S,N*d] -> [B,T,N*d]
    Source: Milakov, Gimelshein 2018 (arXiv 1805.02867); Dao et al. 2022 (arXiv 2205.14135), algorithm 1
    """
    require_float32(q, k, v)
    if scale < 0 or q.size == 0 or k.size == 0:
        raise Unsupported("a negative scale, or nothing to attend to")
    if len(q) != len(k) or q.shape[2] != k.shape[2] or k.shape != v.shape or k.shape[2] % heads:
        raise Unsupported(f"shapes that do not fit: {q.shape}, {k.shape}, {v.shape} for {heads} heads")
    q, k, v = (np.ascontiguousarray(a) for a in (q, k, v))
    batch, count, width = k.shape
    depth = width // heads
    if in_pairs(depth) and blocks.MATRIX_UNIT:
        return attention_blocks.attention(q, k, v, heads=heads, scale=scale, causal=causal)
    values = result(batch * heads, depth, line_of(count))
    values[:, :, count:] = 0
    keys, turned = k.reshape(-1), values.reshape(-1)
    kind = PAIR if in_pairs(depth) else SPARED if SPARES else FLOAT32
    ends = result(len(values), count + LANES), result(len(values), -(-count // KEYS), depth + ROWS)
    scales, undo = (np.ones((len(values), rows, COLUMNS), np.float32) for rows in (2, depth))
    uneven = np.zeros(len(values), np.bool_)
    if kind is SPARED:
        parallel(_measure, len(values), v.size, keys, (count, heads, depth), v, values, KEYS, *ends, scales, undo, uneven)
    else:
        parallel(_turn, len(values), v.size, count, v, values)
    if kind is PAIR:
        keys, turned = narrowed(keys), narrowed(turned)
    out = result(*q.shape)
    stretches, work = -(-q.shape[1] // QUERIES), q.shape[1] * k.size // PER_NUMBER
    sizes, of_heads = (stretches, heads, q.shape[1], count, depth), (*ends, scales, undo)
    of_kinds = (np.flatnonzero(~uneven), kind), (np.flatnonzero(uneven), FLOAT32)
    parts = parts_of(len(values) * stretches, work)
    args = scale / math.log(2.0), causal, out, [(counters(parts), numbers, of) for numbers, of in of_kinds if numbers.size]
    on_threads(lambda i: _attend((i, parts), sizes, q, keys, turned, of_heads, *args), parts)
    return out


def _attend(
    thread: tuple, sizes: tuple, q: np.ndarray, keys: np.ndarray, values: np.ndarray, of_heads: tuple, *rest: Any
) -> None:
    """The stretches of queries of all heads, of which each thread takes the next when it is free."""
    stretches, heads, _, count, depth = sizes
    factor, causal, out, of_kinds = rest
    line, rows = line_of(count), -(-depth // ROWS) * ROWS
    floats = {"queries": QUERIES * depth, "scores": (KEYS + ROWS) * COLUMNS, "sums": QUERIES * (rows + 1)}
    own = (
        *(scratch(name, size) for name, size in floats.items()),
        scratch("fresh", (rows + 1) * COLUMNS),
        scratch("found", 2 * COLUMNS),
        scratch("query ends", QUERIES),
        scratch("query scales", 2 * QUERIES),
        scratch("power ends", COLUMNS),
    )
    places = np.minimum(np.arange(count + ROWS), count - 1) * heads * depth, np.minimum(np.arange(rows), depth - 1) * line
    lines = np.repeat(np.array([factor, LEAST, 0, NEVER, 1], np.float32), COLUMNS)
    at = tuple(address(x) for x in (q, keys, values, *places, lines, scratch("tops", 2 * QUERIES), *own, *of_heads, out))
    for turn, numbers, kind in of_kinds:
        _stream(thread, (address(turn), address(numbers), len(numbers) * stretches), (*sizes, rows), causal, at, kind)


@jit
def _stream(thread, turns, sizes, causal, at, kind):
    """Stretches of queries while there are any. `at`: addresses; `kind`: as multiply_tile has it.

    `turns`: the addresses of counters and of the heads' numbers, through the batch, and how many stretches they have.
    """
    stretches, heads, queries, count, depth, rows = sizes
    q, keys, values, places, steps, lines, tops, panel, scores, sums, fresh, found = at[:12]
    query_ends, scales, power_ends, key_ends, value_ends, head_scales, undone, out = at[12:]
    row, whole = 4 * COLUMNS, 4 * rows * COLUMNS  # bytes, of a panel's sums too, after which the row of their divisors lies
    factor, least, nothing, never, ones = lines, lines + row, lines + 2 * row, lines + 3 * row, lines + 4 * row
    zeros, states, width = (nothing, 0), (nothing, least, found), heads * depth
    number, words, line, value_step = bytes_of(kind), 4 // bytes_of(kind), line_of(count), depth + ROWS
    for item, _ in each(turns[0], turns[2], 1, thread):
        h, first = integer_at(turns[1] + 8 * (item // stretches)), item % stretches * QUERIES
        batch, feature, many = h // heads, h % heads * depth, min(QUERIES, queries - first)
        place, head = 4 * ((batch * queries + first) * width + feature), number * (batch * count * width + feature)
        of_head = head_scales + 8 * h * COLUMNS
        for p in range(0, many, COLUMNS):
            gather_columns(q + place + 4 * p * width, width, many - p, depth, panel + 4 * p * depth, FLOAT32)
            _prepare(panel + 4 * p * depth, depth, factor, of_head, (scales + 8 * p, query_ends + 4 * p), kind)
            copy_row(least, tops + 8 * p)
        for s in range(0, min(count, first + many) if causal else count, KEYS):
            seen = min(KEYS, count - s)
            for p in range(0, many, COLUMNS):
                shift, top, to = s - first - p, tops + 8 * p, sums + 4 * p * (rows + 1)
                new = fresh if s else to
                factors = keys + head, places + 8 * s, panel + 4 * p * depth, depth // words
                ends, undo = (key_ends + 4 * (h * (count + LANES) + s), 1, query_ends + 4 * p), scales + 8 * p + 4 * COLUMNS
                if causal and shift >= COLUMNS:  # no query of the panel sees the block
                    continue
                whole_block = s > 0 and not causal and seen == KEYS
                near = whole_block and _powers(factors, top, states, new + whole, scores, ends, undo, kind)
                if not near:
                    _tiles(factors[0], factors[1], seen, factors[2], factors[3], zeros, scores, ends, kind)
                    if spares(kind):
                        scale_columns(scores, seen, undo)
                    if seen % words:
                        copy_row(never, scores + 4 * seen * COLUMNS)  # the partner of the last key
                    soften(scores, seen, shift if causal else -count, top, new + whole, kind)
                ends = value_ends + 4 * (h * -(-count // KEYS) + s // KEYS) * value_step, 1, power_ends
                far = near and spares(kind) and exceeds(found + 4 * COLUMNS, SPARED_ROOM)
                _mix((values + number * (h * depth * line + s), steps, depth), (scores, seen), zeros, new, ends, far, kind)
                if s:
                    kept = ones if near else top + 4 * COLUMNS
                    add_to_scaled(to, depth, kept, fresh)
                    add_to_scaled(to + whole, 1, kept, fresh + whole)
        for p in range(0, many, COLUMNS):
            to = sums + 4 * p * (rows + 1)
            divide_columns(to, depth, to + whole)
            if spares(kind):
                multiply_rows(to, depth, undone + 4 * h * depth * COLUMNS)
            transpose(to, np.int64(COLUMNS), depth, min(many - p, COLUMNS), out + place + 4 * p * width, width, FLOAT32)


@part
def _prepare(panel, depth, factor, of_head, places, kind):
    """A panel of queries as its products take it.

    `of_head`: two rows, of heads._measure; `places`: where the panel's scales, two rows, and what column_ends makes of it go.
    """
    scale_columns(panel, depth, factor)
    if spares(kind):
        scales, ends = places
        column_scales((panel,), depth, scales)
        scale_columns(scales, 1, of_head)
        scale_columns(scales + 4 * COLUMNS, 1, of_head + 4 * COLUMNS)
        scale_columns(panel, depth, scales)
        column_ends(panel, depth, ends)
    if bytes_of(kind) == 2:
        pair_panel(panel, depth)


@part
def _mix(values, powers, zeros, out, ends, far, kind):
    """out = V P for the powers of a block; those that are `far` from values in size are multiplied one by one."""
    (at, steps, depth), (p, seen) = values, powers
    if spares(kind) and not far:
        column_ends(p, seen, ends[2])
    if far:
        _tiles(at, steps, depth, p, seen, zeros, out, ends, FLOAT32)
    else:
        _tiles(at, steps, depth, p, -(-seen // (4 // bytes_of(kind))), zeros, out, ends, kind)


@part
def _powers(factors, top, states, sums, scores, ends, undo, kind):
    """Whether no score of a whole block is too far above earlier tops; then `scores` has its powers, and `sums` their sums.

    Those tops need not be the largest: a power of two is as exact whatever its size. `states` are rows: what sums and largest
    distances begin with, and room for both.
    """
    (keys, places, queries, depth), (zeros, least, found) = factors, states
    copy_row(zeros, found)
    copy_row(least, found + 4 * COLUMNS)
    for i in range(0, KEYS, ROWS):
        at, of_keys = scores + bytes_of(kind) * i * COLUMNS, (ends[0] + 4 * i, 1, ends[2])
        powers_of_tile(keys, places + 8 * i, queries, depth, top, found, at, of_keys, undo, kind)
    if exceeds(found + 4 * COLUMNS, ROOM):
        return False
    copy_row(found, sums)
    return True


@part
def _tiles(a, rows, many, b, depth, zeros, out, ends, kind):
    """out = A B for `many` rows of A and a panel of columns; all are addresses, as inner.multiply has them."""
    i = 0
    while i < many:
        # Two short tiles in the place of a whole one and a few rows.
        left = min(many - i, SHORT) if 0 < (many - i) % ROWS <= 2 * SHORT - ROWS else many - i
        of_rows = ends[0] + 4 * i, 1, ends[2]
        multiply(a, rows + 8 * i, left, b, depth, zeros, (out + 4 * i * COLUMNS, COLUMNS), of_rows, kind)
        i += SHORT if left <= SHORT else ROWS


KERNELS = {"attention": once(attention, 3)}
