"""Attention, a block of scores at a time, and its gradients, with NumPy's batched matrix products."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from refdiff.core.primitive import Unsupported
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
from refdiff.kernels.cpu.product import WHOLE, Weight, gather_columns, product
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.vector import TILE, copy_row, multiply_tile, transpose_square
from refdiff.kernels.cpu.vector_softmax import largest_of_columns, powers_of_columns

ROWS, COLUMNS, LANES = TILE
FEW = 1 << 16  # scores of a head that are made all at once
QUERIES, KEYS = 8 * COLUMNS, 240  # of a block, whose keys and values stay in the second cache, a panel of its scores in the first
LEAST = np.float32(-3.0e38)  # before any score


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
    many queries; a row of ones beside the values makes the sum of a softmax one of the products.
    Math: with the largest score m so far, a block of scores s makes m' = max(m, s) and, for v and for ones alike,
        o' = o 2^(m - m') + v 2^(s - m'); in the end o / o of ones. Here s = log2(e) scale k q
    Shapes: [B,T,N*d], [B,S,N*d], [B,S,N*d] -> [B,T,N*d]
    Source: Milakov, Gimelshein 2018 (arXiv 1805.02867); Dao et al. 2022 (arXiv 2205.14135), algorithm 1
    """
    require_float32(q, k, v)
    if scale < 0 or q.size == 0 or k.size == 0:
        raise Unsupported("a negative scale, or nothing to attend to")
    q, k, v = (np.ascontiguousarray(a) for a in (q, k, v))
    if q.shape[1] * k.shape[1] <= FEW:
        return _head_by_head(q, k, v, heads, np.float32(scale), causal)
    batch, count, width = k.shape
    depth = width // heads
    values = result(batch * heads, -(-(depth + 1) // ROWS) * ROWS, count)
    parallel(_turn, len(values), v.size, v, depth, values)
    out = result(*q.shape)
    blocks = -(-q.shape[1] // QUERIES)
    work = q.shape[1] * count * batch * width // PER_NUMBER
    parallel(_attend, batch * heads * blocks, work, blocks, q, k, values, depth, np.float32(scale / math.log(2.0)), causal, out)
    return out


def _head_by_head(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, scale: np.float32, causal: bool) -> np.ndarray:
    """Where all scores of a head stay in a cache: two products with a softmax between them."""
    (batch, queries, width), count, out = q.shape, k.shape[1], result(*q.shape)
    depth, rows, p = width // heads, np.arange(queries), np.empty((1, queries, count), np.float32)
    for b, feature in itertools.product(range(batch), range(0, width, depth)):
        own, others = (slice(x * width + feature, None) for x in (b * queries, b * count))
        keys = Weight(k.reshape(-1)[others], (count, 1, depth), (width, 0, 1))
        values = Weight(v.reshape(-1)[others], (depth, 1, count), (1, 0, width))
        scores = product(q.reshape(-1)[own], rows * width, WHOLE, keys, None)
        _softmax_rows(0, 1, scores[None], scale, causal, p)
        out[b, :, feature : feature + depth] = product(p.reshape(-1), rows * count, WHOLE, values, None)
    return out


@jit
def _turn(start, stop, v, depth, values):
    """values[h] = the transpose of head h, numbered through the batch, then a row of ones, then zeros."""
    count, width = v.shape[1:]
    heads, wide = width // depth, depth - depth % LANES
    whole = count - count % LANES
    for h in range(start, stop):
        batch, first, own = h // heads, (h % heads) * depth, values[h]
        for s in range(0, whole, LANES):
            for c in range(0, wide, LANES):
                source = v.ctypes.data + 4 * ((batch * count + s) * width + first + c)
                transpose_square(source, width, values.ctypes.data + 4 * ((h * values.shape[1] + c) * count + s), count)
        for c in range(depth):
            for s in range(whole if c < wide else 0, count):
                own[c, s] = v[batch, s, first + c]
        own[depth], own[depth + 1 :] = 1, 0


def _attend(start: int, stop: int, blocks: int, q: np.ndarray, keys: np.ndarray, values: np.ndarray, *rest: Any) -> None:
    depth, rows, count = rest[0], *values.shape[1:]
    panel = scratch("queries", QUERIES * depth)
    scores, sums, fresh = (
        scratch(name, size)
        for name, size in (("scores", (KEYS + ROWS) * COLUMNS), ("sums", QUERIES * rows), ("fresh", rows * COLUMNS))
    )
    tops, zeros = np.empty(2 * QUERIES, np.float32), np.zeros(COLUMNS, np.float32)
    places, steps = np.minimum(np.arange(count + ROWS), count - 1) * keys.shape[2], np.arange(rows) * count
    at = address(keys), address(places), address(values), address(steps), address(zeros)
    _stream(start, stop, blocks, (rows, count, *rest[:3]), address(q), rest[3], at, (panel, scores, sums, fresh, tops))


@jit
def _stream(start, stop, blocks, sizes, q, out, at, floats):
    """The blocks of queries start..stop, numbered through the heads; `q` and `at` are addresses."""
    rows, count, depth, factor, causal = sizes
    queries, width = out.shape[1:]
    panel, scores, sums, fresh, tops = floats
    heads = width // depth
    for item in range(start, stop):
        h, first = item // blocks, (item % blocks) * QUERIES
        batch, feature = h // heads, (h % heads) * depth
        many = min(QUERIES, queries - first)
        for p in range(0, many, COLUMNS):
            start_at = q + 4 * ((batch * queries + first + p) * width + feature)
            gather_columns(start_at, width, many - p, depth, panel.ctypes.data + 4 * p * depth)
        for i in range((many + COLUMNS - 1) // COLUMNS * COLUMNS * depth):
            panel[i] *= factor
        for i in range(2 * QUERIES):
            tops[i] = LEAST
        for i in range(QUERIES * rows):
            sums[i] = 0
        for s0 in range(0, min(count, first + many) if causal else count, KEYS):
            seen = min(KEYS, count - s0)
            keys, places = at[0] + 4 * (batch * count * width + feature), at[1] + 8 * s0
            values = at[2] + 4 * (h * rows * count + s0)
            for p in range(0, many, COLUMNS):
                shift = s0 - first - p
                if not causal or shift < COLUMNS:
                    to, fresh_at = np.int64(scores.ctypes.data), np.int64(fresh.ctypes.data)
                    _tiles(keys, places, seen, np.int64(panel.ctypes.data) + 4 * p * depth, depth, at[4], to)
                    _soften(scores, seen, shift if causal else -count, tops.ctypes.data + 8 * p)
                    _tiles(values, at[3], rows, to, seen, at[4], fresh_at)
                    for c in range(0, rows * COLUMNS, COLUMNS):
                        for j in range(COLUMNS):
                            i = p * rows + c + j
                            sums[i] = sums[i] * tops[2 * p + COLUMNS + j] + fresh[c + j]
        for i in range(many):
            p, j = i // COLUMNS * COLUMNS, i % COLUMNS
            inverse = ONE / sums[p * rows + depth * COLUMNS + j]
            for c in range(depth):
                out[batch, first + i, feature + c] = sums[p * rows + c * COLUMNS + j] * inverse


@part
def _tiles(a, rows, many, b, depth, zeros, out):
    """out = A B for `many` rows of A and a panel of columns; all are addresses, as multiply_tile has them."""
    for i in range(0, many, ROWS):
        multiply_tile(a, rows + 8 * i, b, depth, (zeros, 0), (out + 4 * i * COLUMNS, COLUMNS))


@inline
def _soften(scores: Any, many: Any, shift: Any, tops: Any) -> None:
    """Turn scores into 2^(score - new top), 0 for those not seen, and (tops, .) into (new tops, 2^(top - new top)).

    Query j sees the keys up to j - shift; `tops` is an address.
    Shapes: [S,columns], [2,columns]
    """
    hidden = many if shift <= -many else max(-shift, 0)  # from here on some query does not see the key
    for s in range(hidden, many):
        for j in range(min(s + shift, COLUMNS)):
            scores[s * COLUMNS + j] = LEAST
    copy_row(tops, tops + 4 * COLUMNS)
    largest_of_columns(scores.ctypes.data, many, tops)
    powers_of_columns(tops + 4 * COLUMNS, 1, tops)
    powers_of_columns(scores.ctypes.data, many, tops)
    for s in range(hidden, many):
        for j in range(min(s + shift, COLUMNS)):
            scores[s * COLUMNS + j] = 0


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


KERNELS = {"softmax": softmax, "attention": attention, "attention_vjp": attention_vjp}
