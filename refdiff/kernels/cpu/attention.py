"""Attention, a block of scores at a time, and its gradients, with NumPy's batched matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.core.primitive import Unsupported
from refdiff.kernels.cpu.common import ONE, _exp_row, exponential, jit, parallel, require_float32, scratch
from refdiff.kernels.cpu.vector import TILE, largest, multiply_tile

ROWS, COLUMNS, LANES = TILE
QUERIES, KEYS = 8 * ROWS, 256  # of a block of scores, which stays in the second cache
LEAST = np.float32(-3.0e38)  # before any score


@jit
def _softmax_rows(start, stop, scores, scale, causal, out):
    """out[r] = softmax(scale * scores[r]) for rows start..stop of [R,T,S]; causal rows see columns 0..t only."""
    width = scores.shape[2]
    shifted, e = np.empty(width, dtype=np.float32), np.empty(width, dtype=np.float32)
    for r in range(start, stop):
        for t in range(scores.shape[1]):
            row = scores[r, t]
            seen = min(t + 1, width) if causal else width
            top = row[0] * scale
            for s in range(seen):
                top = max(top, row[s] * scale)
            for s in range(seen):
                shifted[s] = row[s] * scale - top
            _exp_row(shifted, e, seen)
            total = np.float32(0)
            for s in range(seen):
                total += e[s]
            inverse = ONE / total
            for s in range(seen):
                out[r, t, s] = e[s] * inverse
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
    """Softmax and both products a block of queries and keys at a time: no matrix of scores is ever whole.

    Math: with the largest score m and the sum l so far, a block of scores s makes m' = max(m, s),
        l' = l e^(m - m') + sum e^(s - m'), o' = o e^(m - m') + e^(s - m') v; in the end o / l
    Shapes: [B,T,N*d], [B,S,N*d], [B,S,N*d] -> [B,T,N*d]
    Source: Milakov, Gimelshein 2018 (arXiv 1805.02867); Dao et al. 2022 (arXiv 2205.14135), algorithm 1
    """
    require_float32(q, k, v)
    if scale < 0 or q.size == 0 or k.size == 0:
        raise Unsupported("a negative scale, or nothing to attend to")
    q, k, v = (np.ascontiguousarray(a) for a in (q, k, v))
    batch, count, width = k.shape
    keys, values = _panels(_split_heads(k, heads).swapaxes(2, 3)), _panels(_split_heads(v, heads))
    out = np.empty(q.shape, dtype=np.float32)
    blocks = -(-q.shape[1] // QUERIES)
    work = q.shape[1] * count * batch * width
    parallel(_attend, batch * heads * blocks, work, blocks, q, keys, values, np.float32(scale), causal, out)
    return out


def _attend(start: int, stop: int, blocks: int, q: np.ndarray, keys: np.ndarray, values: np.ndarray, *rest: Any) -> None:
    scores, sums = scratch("scores", QUERIES * KEYS), scratch("sums", QUERIES * values.shape[1] * COLUMNS)
    # Arrays whose addresses are taken are made here, for Numba would free its own after their last mention.
    places, steps, zeros = np.zeros(QUERIES, np.int64), np.arange(QUERIES) * KEYS, np.zeros(COLUMNS, np.float32)
    args = (start, stop, blocks, q, keys, values, *rest, (scores, sums, zeros), (places, steps))
    _stream(*args)


def _panels(x: np.ndarray) -> np.ndarray:
    """Each head's matrix in panels of COLUMNS, 0 beyond the last.  Shapes: [B,N,R,K] -> [B*N,ceil(K/columns),R,columns]"""
    batch, heads, rows, many = x.shape
    across = -(-many // COLUMNS)
    wide = np.zeros((batch, heads, rows, across * COLUMNS), dtype=np.float32)
    wide[..., :many] = x
    return np.ascontiguousarray(wide.reshape(-1, rows, across, COLUMNS).transpose(0, 2, 1, 3))


@jit
def _stream(start, stop, blocks, q, keys, values, scale, causal, out, floats, rows_of):
    """The blocks of queries start..stop, numbered through the heads."""
    queries, width = q.shape[1:]
    depth, count, across = keys.shape[2], values.shape[2], values.shape[1]
    heads, wide = width // depth, across * COLUMNS
    scores, sums, zeros = floats
    places, steps = rows_of
    tops, totals = np.empty(QUERIES, np.float32), np.empty(QUERIES, np.float32)
    q_at, places_at, steps_at, zeros_at = q.ctypes.data, places.ctypes.data, steps.ctypes.data, zeros.ctypes.data
    keys_at, values_at, scores_at, sums_at = keys.ctypes.data, values.ctypes.data, scores.ctypes.data, sums.ctypes.data
    for item in range(start, stop):
        h, first = item // blocks, (item % blocks) * QUERIES
        batch, feature, rows = h // heads, (h % heads) * depth, min(QUERIES, queries - first)
        for i in range(QUERIES):
            places[i] = ((batch * queries + first + min(i, rows - 1)) * heads) * depth + feature
        tops[:], totals[:] = LEAST, 0
        sums[: QUERIES * wide] = 0
        for s0 in range(0, min(count, first + rows) if causal else count, KEYS):
            many = min(KEYS, count - s0)
            for i in range(0, rows, ROWS):
                for p in range((many + COLUMNS - 1) // COLUMNS):
                    right = keys_at + 4 * (h * keys.shape[1] + s0 // COLUMNS + p) * depth * COLUMNS
                    to = scores_at + 4 * (i * KEYS + p * COLUMNS)
                    multiply_tile(q_at, places_at + 8 * i, right, depth, (zeros_at, 0), (to, KEYS))
            for i in range(rows):
                seen = min(max(first + i + 1 - s0, 0), many) if causal else many
                row, kept = scores[i * KEYS : i * KEYS + many], sums[i * wide : (i + 1) * wide]
                tops[i], totals[i] = _absorb(row, seen, scale, tops[i], totals[i], kept)
            for i in range(0, rows, ROWS):
                for p in range(across):
                    right = values_at + 4 * ((h * across + p) * count + s0) * COLUMNS
                    to = sums_at + 4 * (i * wide + p * COLUMNS)
                    multiply_tile(scores_at, steps_at + 8 * i, right, many, (to, wide), (to, wide))
        for i in range(rows):
            inverse = ONE / totals[i]
            for c in range(depth):
                out[batch, first + i, feature + c] = sums[i * wide + c] * inverse


@jit
def _absorb(row, seen, scale, top, total, kept):
    """Turn a row's scores into e^(scale score - top) under the new top, 0 for those not seen, and shrink what was kept to it.

    Shapes: [S], [d] -> the new top, the new total
    """
    if seen == 0:
        row[:] = 0
        return top, total
    vectors = seen // LANES
    most = largest(row.ctypes.data, vectors) if vectors else row[0]
    for s in range(vectors * LANES, seen):
        most = max(most, row[s])
    new = max(top, most * scale)
    shrink = exponential(top - new)
    if shrink < ONE:
        total *= shrink
        for c in range(len(kept)):
            kept[c] *= shrink
    fresh = np.float32(0)
    for s in range(seen):
        e = exponential(row[s] * scale - new)
        row[s] = e
        fresh += e
    for s in range(seen, len(row)):
        row[s] = 0
    return new, total + fresh


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
