"""Attention, a block of scores at a time, and its gradients, with NumPy's batched matrix products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.common import ONE, exponential, jit, parallel, part, require_float32, scratch
from refdiff.kernels.cpu.product import _gather_columns
from refdiff.kernels.cpu.results import result
from refdiff.kernels.cpu.vector import TILE, copy_row, multiply_tile, transpose_square
from refdiff.kernels.cpu.vector_softmax import largest_of_columns, powers_of_columns

ROWS, COLUMNS, LANES = TILE
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
    batch, count, width = k.shape
    depth = width // heads
    values = result(batch * heads, -(-(depth + 1) // ROWS) * ROWS, count)
    parallel(_turn, len(values), v.size, v, depth, values)
    out = result(*q.shape)
    blocks = -(-q.shape[1] // QUERIES)
    work = q.shape[1] * count * batch * width
    parallel(_attend, batch * heads * blocks, work, blocks, q, k, values, depth, np.float32(scale / math.log(2.0)), causal, out)
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
    # Arrays whose addresses are taken are made here, for Numba would free its own after their last mention.
    sizes = {"queries": QUERIES * depth, "scores": (KEYS + ROWS) * COLUMNS, "sums": QUERIES * rows, "fresh": rows * COLUMNS}
    floats = [scratch(name, size) for name, size in sizes.items()]
    tops, zeros = np.empty(2 * QUERIES, np.float32), np.zeros(COLUMNS, np.float32)
    places = np.minimum(np.arange(count + ROWS), count - 1) * keys.shape[2]
    args = start, stop, blocks, q.reshape(-1), keys.reshape(-1), values, *rest, (*floats, tops, zeros)
    _stream(*args, (places, np.arange(rows) * count))


@jit
def _stream(start, stop, blocks, q, keys, values, depth, factor, causal, out, floats, rows_of):
    """The blocks of queries start..stop, numbered through the heads."""
    queries, width = out.shape[1:]
    panel, scores, sums, fresh, tops, zeros = floats
    heads, rows, count = width // depth, values.shape[1], values.shape[2]
    for item in range(start, stop):
        h, first = item // blocks, (item % blocks) * QUERIES
        batch, feature = h // heads, (h % heads) * depth
        many = min(QUERIES, queries - first)
        _begin(q, (batch * queries + first) * width + feature, width, many, depth, factor, panel)
        for i in range(2 * QUERIES):
            tops[i] = LEAST
        for i in range(QUERIES * rows):
            sums[i] = 0
        for s0 in range(0, min(count, first + many) if causal else count, KEYS):
            at = batch * count * width + feature, s0, h * rows * count + s0
            seen = min(KEYS, count - s0)
            for p in range(0, many, COLUMNS):
                shift = s0 - first - p
                if not causal or shift < COLUMNS:
                    _scores(at, seen, keys, panel, p, depth, zeros, scores, rows_of[0])
                    _soften(scores, seen, shift if causal else -count, tops, p)
                    _weigh(at[2], seen, values, scores, zeros, fresh, rows_of[1])
                    _absorb(fresh, tops, sums, p, rows)
        for i in range(many):
            p, j = i // COLUMNS * COLUMNS, i % COLUMNS
            inverse = ONE / sums[p * rows + depth * COLUMNS + j]
            for c in range(depth):
                out[batch, first + i, feature + c] = sums[p * rows + c * COLUMNS + j] * inverse


@part
def _begin(q, at, width, many, depth, factor, panel):
    """panel[p depth + c COLUMNS + j] = factor q[p + j,c], for panels p of queries, which begin `at` in flat memory."""
    for p in range(0, many, COLUMNS):
        _gather_columns(q, at + p * width, width, many - p, depth, panel, p * depth)
    for i in range((many + COLUMNS - 1) // COLUMNS * COLUMNS * depth):
        panel[i] *= factor


@part
def _scores(at, many, keys, panel, p, depth, zeros, scores, places):
    """scores[s,j] = keys[s] queries[p + j] for a block of keys and a panel of queries."""
    keys_at, places_at, panel_at = keys.ctypes.data + 4 * at[0], places.ctypes.data + 8 * at[1], panel.ctypes.data + 4 * p * depth
    zeros_at, scores_at = zeros.ctypes.data, scores.ctypes.data
    for i in range(0, many, ROWS):
        multiply_tile(keys_at, places_at + 8 * i, panel_at, depth, (zeros_at, 0), (scores_at + 4 * i * COLUMNS, COLUMNS))


@part
def _soften(scores, many, shift, tops, p):
    """Turn scores into 2^(score - new top), 0 for those not seen, and the panel's (tops, .) into (new tops, 2^(top - new top)).

    Query j sees the keys up to j - shift.
    Shapes: [S,columns], [panels,2,columns], of which panel p / columns
    """
    hidden = many if shift <= -many else max(-shift, 0)  # from here on some query does not see the key
    for s in range(hidden, many):
        for j in range(min(s + shift, COLUMNS)):
            scores[s * COLUMNS + j] = LEAST
    top_at, before_at = tops.ctypes.data + 8 * p, tops.ctypes.data + 8 * p + 4 * COLUMNS
    copy_row(top_at, before_at)
    largest_of_columns(scores.ctypes.data, many, top_at)
    powers_of_columns(before_at, 1, top_at)
    powers_of_columns(scores.ctypes.data, many, top_at)
    for s in range(hidden, many):
        for j in range(min(s + shift, COLUMNS)):
            scores[s * COLUMNS + j] = 0


@part
def _absorb(fresh, tops, sums, p, rows):
    """sums[c,j] = sums[c,j] shrink[j] + fresh[c,j], for the panel's sums and what its tops shrink by."""
    for c in range(rows):
        for j in range(COLUMNS):
            i = c * COLUMNS + j
            sums[p * rows + i] = sums[p * rows + i] * tops[2 * p + COLUMNS + j] + fresh[i]


@part
def _weigh(first, many, values, scores, zeros, fresh, steps):
    """fresh[c,j] = values[c] scores[j] for a block of keys and a panel of queries."""
    values_at, scores_at = values.ctypes.data + 4 * first, scores.ctypes.data
    zeros_at, fresh_at, steps_at = zeros.ctypes.data, fresh.ctypes.data, steps.ctypes.data
    for c in range(0, len(steps), ROWS):
        to = fresh_at + 4 * c * COLUMNS
        multiply_tile(values_at, steps_at + 8 * c, scores_at, many, (zeros_at, 0), (to, COLUMNS))


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
