"""Softmax and multi-head attention."""

from __future__ import annotations

from refdiff.core.primitive import primitive
from refdiff.xp import Array, array_module


def softmax_vjp(g: Array, out: Array, x: Array) -> tuple:
    """Math: dx = p (g - <g, p>), p = softmax(x)."""
    return (out * (g - (g * out).sum(axis=-1, keepdims=True)),)


@primitive(vjp=softmax_vjp)
def softmax(x: Array) -> Array:
    """Softmax of the last axis; the maximum is subtracted first, so no exponential overflows.

    Math: p_i = e^(x_i) / sum_j e^(x_j)
    Traps: softmax-naive
    """
    e = array_module(x).exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention_vjp(
    g: Array, out: Array, q: Array, k: Array, v: Array, *, heads: int, scale: float, causal: bool
) -> tuple[Array, Array, Array]:
    """Math: with P the probabilities: dV = P^T g, dP = g V^T, dS = P (dP - rowsum(dP P)), dQ = scale dS K, dK = scale dS^T Q."""
    q_h, k_h, v_h, g_h = (_split_heads(a, heads) for a in (q, k, v, g))
    p = _probabilities(q_h, k_h, scale=scale, causal=causal)
    (ds,) = softmax_vjp(g_h @ v_h.swapaxes(-1, -2), p, p)
    ds = ds * scale
    dq, dk, dv = ds @ k_h, ds.swapaxes(-1, -2) @ q_h, p.swapaxes(-1, -2) @ g_h
    return _merge_heads(dq), _merge_heads(dk), _merge_heads(dv)


@primitive(vjp=attention_vjp)
def attention(q: Array, k: Array, v: Array, *, heads: int, scale: float, causal: bool) -> Array:
    """Multi-head scaled dot-product attention, between the stages "project to q, k, v" and "project the result".

    Math: softmax(scale Q K^T) V for each head; causal: token t sees tokens 0..t only
    Shapes: [B,T,N*d], [B,S,N*d], [B,S,N*d] -> [B,T,N*d]; head n owns the features n*d..(n+1)*d
    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1 and section 3.2.2
    Traps: attn-no-scale, te-no-causal, heads-vs-dim, softmax-naive
    """
    q_h, k_h, v_h = (_split_heads(a, heads) for a in (q, k, v))
    return _merge_heads(_probabilities(q_h, k_h, scale=scale, causal=causal) @ v_h)


def _probabilities(q: Array, k: Array, *, scale: float, causal: bool) -> Array:
    """[B,N,T,d], [B,N,S,d] -> [B,N,T,S]"""
    xp = array_module(q)
    scores = (q @ k.swapaxes(-1, -2)) * scale
    if causal:
        future = xp.arange(k.shape[-2])[None, :] > xp.arange(q.shape[-2])[:, None]
        scores = xp.where(future, -xp.inf, scores)
    return softmax.spec(scores)


def _split_heads(x: Array, heads: int) -> Array:
    """[B,T,N*d] -> [B,N,T,d]"""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(0, 2, 1, 3)


def _merge_heads(x: Array) -> Array:
    """[B,N,T,d] -> [B,T,N*d]"""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)
