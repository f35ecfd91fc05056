"""Attention, a block of scores at a time; its gradients, by NumPy's batched matrix products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.bfloat16 import pair_rows
from refdiff.kernels.cpu.common import (
    ONE,
    PER_NUMBER,
    address,
    exponential,
    inline,
    jit,
    parallel,
    part,
    require_float32,
    scratch,
)
from refdiff.kernels.cpu.halves import FLOAT32, PAIR, in_pairs, narrowed
from refdiff.kernels.cpu.panels import gather_columns, transpose
from refdiff.kernels.cpu.repeats import once
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.tile import SHORT, multiply_tile
from refdiff.kernels.cpu.vector import TILE, bytes_of, copy_row, put_float
from refdiff.kernels.cpu.vector_softmax import (
    add_to_scaled,
    divide_columns,
    exceeds,
    largest_of_columns,
    powers_of_columns,
    powers_of_tile,
    scale_columns,
)

ROWS, COLUMNS, _ = TILE
QUERIES, KEYS = 8 * COLUMNS, 240  # of a block, whose keys and values stay in the second cache, a panel of its scores in the first
ROOM = np.float32(60)  # how far a score may lie above the largest of earlier ones, as a power of two
LEAST, NEVER = np.float32(-3.0e38), np.float32(-np.inf)  # before any score, and of a key that is not seen


@jit
def _softmax_rows(start, stop, scores, scale, causal, out):
    """out[r] = softmax(scale * scores[r]) for rows start..stop of [R,T,S]; causal rows see columns 0..t only."""
    width = scores.shape[2]
    for r in range(start, stop):
        for t in range(scores.shape[1]):
            row = scores[r, t]
            seen = min(t + 1, width) if causal else width
            top = row[0] * scale
            for s in range(seen):
                top = max(top, row[s] * scale)
            total = np.float32(0)
            for s in range(seen):
                e = exponential(row[s] * scale - top)
                out[r, t, s] = e
                total += e
            inverse = ONE / total
            for s in range(seen):
                out[r, t, s] *= inverse
            for s in range(seen, width):
                out[r, t, s] = 0


@jit
def _softmax_back(start, stop, p, dp, scale, ds):
    """ds = scale * p * (dp - <dp, p>) for rows start..stop of [R,T,S]."""
    width = p.shape[2]
    for r in range(start, stop):
        for t in range(p.shape[1]):
            inner = np.float32(0)
            for s in range(width):
                inner += p[r, t, s] * dp[r, t, s]
            for s in range(width):
                ds[r, t, s] = scale * p[r, t, s] * (dp[r, t, s] - inner)


def softmax(x: np.ndarray) -> np.ndarray:
    """Shapes: [...,S] -> [...,S]"""
    require_float32(x)
    rows = np.ascontiguousarray(x).reshape(-1, 1, x.shape[-1])
    out = np.empty(rows.shape, dtype=np.float32)
    parallel(_softmax_rows, len(rows), rows.size, rows, ONE, False, out)
    return out.reshape(x.shape)


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
    values = result(batch * heads, depth, count + count % 2)
    values[:, :, count:] = 0
    parallel(_turn, len(values), v.size, count, v, values)
    keys, turned = k.reshape(-1), values.reshape(-1)
    if in_pairs(depth):
        keys, turned = narrowed(keys), narrowed(turned)
    out = result(*q.shape)
    blocks, work = -(-q.shape[1] // QUERIES), q.shape[1] * k.size // PER_NUMBER
    sizes = blocks, heads, q.shape[1], count, depth
    parallel(_attend, len(values) * blocks, work, sizes, q, keys, turned, scale / math.log(2.0), causal, out)
    return out


@jit
def _turn(start, stop, count, v, values):
    """values[h] = the transpose of head h, numbered through the batch."""
    (depth, line), width = values.shape[1:], v.shape[2]
    heads = width // depth
    for h in range(start, stop):
        source = v.ctypes.data + 4 * (h // heads * count * width + h % heads * depth)
        transpose(source, width, count, depth, values.ctypes.data + 4 * h * depth * line, line, FLOAT32)


def _attend(start: int, stop: int, sizes: tuple, q: np.ndarray, keys: np.ndarray, values: np.ndarray, *rest: Any) -> None:
    _, heads, _, count, depth = sizes
    factor, causal, out = rest
    line, rows = count + count % 2, -(-depth // ROWS) * ROWS
    floats = {"queries": QUERIES * depth, "scores": (KEYS + ROWS) * COLUMNS, "sums": QUERIES * (rows + 1)}
    own = (
        *(scratch(name, size) for name, size in floats.items()),
        scratch("fresh", (rows + 1) * COLUMNS),
        scratch("found", 2 * COLUMNS),
    )
    places = np.minimum(np.arange(count + ROWS), count - 1) * heads * depth, np.minimum(np.arange(rows), depth - 1) * line
    lines = np.repeat(np.array([factor, LEAST, 0, NEVER, 1], np.float32), COLUMNS)
    at = tuple(address(x) for x in (q, keys, values, *places, lines, scratch("tops", 2 * QUERIES), *own, out))
    _stream(start, stop, (*sizes, rows), causal, at, FLOAT32 if keys.dtype == np.float32 else PAIR)


@jit
def _stream(start, stop, sizes, causal, at, kind):
    """The blocks of queries start..stop, numbered through the heads. `at`: addresses; `kind`: as multiply_tile has it."""
    blocks, heads, queries, count, depth, rows = sizes
    q, keys, values, places, steps, lines, tops, panel, scores, sums, fresh, found, out = at
    factor, least, nothing, never, ones = (
        lines,
        lines + 4 * COLUMNS,
        lines + 8 * COLUMNS,
        lines + 12 * COLUMNS,
        lines + 16 * COLUMNS,
    )
    zeros, states, width = (nothing, 0), (nothing, least, found), heads * depth
    number = bytes_of(kind)
    words, line = 4 // number, count + count % 2
    whole = 4 * rows * COLUMNS  # bytes of a panel's sums, after which the row of their divisors lies
    for item in range(start, stop):
        h, first = item // blocks, item % blocks * QUERIES
        batch, feature, many = h // heads, h % heads * depth, min(QUERIES, queries - first)
        place, head = 4 * ((batch * queries + first) * width + feature), number * (batch * count * width + feature)
        for p in range(0, many, COLUMNS):
            gather_columns(q + place + 4 * p * width, width, many - p, depth, panel + 4 * p * depth, FLOAT32)
            scale_columns(panel + 4 * p * depth, depth, factor)
            if words == 2:
                _pair(panel + 4 * p * depth, depth)
            copy_row(least, tops + 8 * p)
        for s in range(0, min(count, first + many) if causal else count, KEYS):
            seen = min(KEYS, count - s)
            for p in range(0, many, COLUMNS):
                shift, top, to = s - first - p, tops + 8 * p, sums + 4 * p * (rows + 1)
                new = fresh if s else to
                factors = keys + head, places + 8 * s, panel + 4 * p * depth, depth // words
                near = s > 0 and not causal and seen == KEYS and _powers(factors, top, states, new + whole, scores, kind)
                if not near and (not causal or shift < COLUMNS):
                    _tiles(factors[0], factors[1], seen, factors[2], factors[3], zeros, scores, kind)
                    if seen % words:
                        copy_row(never, scores + 4 * seen * COLUMNS)  # the partner of the last key
                    _soften(scores, seen, shift if causal else -count, top, new + whole, kind)
                if not causal or shift < COLUMNS:
                    values_at = values + number * (h * depth * line + s)
                    _tiles(values_at, steps, depth, scores, -(-seen // words), zeros, new, kind)
                    if s:
                        kept = ones if near else top + 4 * COLUMNS
                        add_to_scaled(to, depth, kept, fresh)
                        add_to_scaled(to + whole, 1, kept, fresh + whole)
        for p in range(0, many, COLUMNS):
            to = sums + 4 * p * (rows + 1)
            divide_columns(to, depth, to + whole)
            transpose(to, np.int64(COLUMNS), depth, min(many - p, COLUMNS), out + place + 4 * p * width, width, FLOAT32)


@part
def _powers(factors, top, states, sums, scores, kind):
    """Whether no score of a whole block is too far above earlier tops; then `scores` has its powers, and `sums` their sums.

    Those tops need not be the largest: a power of two is as exact whatever its size. `states` are rows: what sums and largest
    distances begin with, and room for both.
    """
    (keys, places, queries, depth), (zeros, least, found) = factors, states
    copy_row(zeros, found)
    copy_row(least, found + 4 * COLUMNS)
    for i in range(0, KEYS, ROWS):
        powers_of_tile(keys, places + 8 * i, queries, depth, top, found, scores + bytes_of(kind) * i * COLUMNS, kind)
    if exceeds(found + 4 * COLUMNS, ROOM):
        return False
    copy_row(found, sums)
    return True


@part
def _tiles(a, rows, many, b, depth, zeros, out, kind):
    """out = A B for `many` rows of A and a panel of columns; all are addresses, as multiply_tile has them."""
    i = 0
    while i < many:
        # Two short tiles in the place of a whole one and a few rows.
        left = min(many - i, SHORT) if 0 < (many - i) % ROWS <= 2 * SHORT - ROWS else many - i
        multiply_tile(a, rows + 8 * i, left, b, depth, zeros, (out + 4 * i * COLUMNS, COLUMNS), kind)
        i += SHORT if left <= SHORT else ROWS


@part
def _pair(panel, rows):
    """The rows of a panel as pairs of bfloat16, in its first half."""
    for i in range(0, rows, 2):
        pair_rows(panel + 4 * i * COLUMNS, panel + 2 * i * COLUMNS)


@inline
def _soften(scores: Any, many: Any, shift: Any, tops: Any, sums: Any, kind: Any) -> None:
    """Turn scores into 2^(score - new top), 0 for those not seen, and (tops, .) into (new tops, 2^(top - new top)).

    Query j sees the keys up to j - shift; all are addresses, `sums` of the row for the sums over keys. `kind` says what the
    powers become: see powers_of_columns.
    Shapes: [S,columns], [2,columns], [columns]
    """
    hidden = many if shift <= -many else max(-shift, 0)  # from here on some query does not see the key
    _hide(scores, hidden, many, shift)
    copy_row(tops, tops + 4 * COLUMNS)
    largest_of_columns(scores, many, tops)
    powers_of_columns(tops + 4 * COLUMNS, 1, tops, sums, FLOAT32)  # whose sum the next call replaces
    powers_of_columns(scores, many, tops, sums, kind)


@part
def _hide(scores: Any, first: Any, many: Any, shift: Any) -> None:
    """The scores of keys that a query does not see, from the key `first` on: their powers are 0."""
    for s in range(first, many):
        for j in range(min(s + shift, COLUMNS)):
            put_float(NEVER, scores + 4 * (s * COLUMNS + j))


def attention_vjp(
    g: np.ndarray,
    out: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    heads: int,
    scale: float,
    causal: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradients of attention."""
    require_float32(g, q, k, v)
    q_h, k_h, v_h, g_h = (_split_heads(a, heads) for a in (q, k, v, g))
    p = _probabilities(q_h, k_h, scale, causal)
    dp = g_h @ v_h.swapaxes(-1, -2)
    shape = (-1, *p.shape[2:])
    ds = np.empty(p.shape, dtype=np.float32)
    parallel(
        _softmax_back,
        p.shape[0] * p.shape[1],
        p.size,
        p.reshape(shape),
        dp.reshape(shape),
        np.float32(scale),
        ds.reshape(shape),
    )
    dq, dk, dv = ds @ k_h, ds.swapaxes(-1, -2) @ q_h, p.swapaxes(-1, -2) @ g_h
    return _merge_heads(dq), _merge_heads(dk), _merge_heads(dv)


def _probabilities(q: np.ndarray, k: np.ndarray, scale: float, causal: bool) -> np.ndarray:
    """[B,N,T,d], [B,N,S,d] -> [B,N,T,S]"""
    scores = q @ k.swapaxes(-1, -2)
    p = np.empty(scores.shape, dtype=np.float32)
    shape = (-1, *p.shape[2:])
    parallel(
        _softmax_rows,
        p.shape[0] * p.shape[1],
        p.size,
        scores.reshape(shape),
        np.float32(scale),
        causal,
        p.reshape(shape),
    )
    return p


def _split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """[B,T,N*d] -> [B,N,T,d], contiguous features, so that each product is one library call."""
    return np.ascontiguousarray(x).reshape(x.shape[0], x.shape[1], heads, -1).transpose(0, 2, 1, 3)


def _merge_heads(x: np.ndarray) -> np.ndarray:
    """[B,N,T,d] -> [B,T,N*d]"""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


KERNELS = {"softmax": softmax, "attention": once(attention, 3), "attention_vjp": attention_vjp}
