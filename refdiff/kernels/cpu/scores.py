"""Where whole scores are stored: softmax, and the gradients of attention by NumPy's batched matrix products."""

from __future__ import annotations

import numpy as np

from refdiff.kernels.cpu.common import ONE, exponential, jit, parallel, require_float32


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


KERNELS = {"softmax": softmax, "attention_vjp": attention_vjp}
