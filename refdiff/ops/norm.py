"""Normalisations: GroupNorm and LayerNorm, with the biased variance and eps inside the root."""

from __future__ import annotations

from refdiff.core.primitive import primitive
from refdiff.ops.activation import silu, silu_vjp
from refdiff.xp import Array, array_module


def group_norm_vjp(
    g: Array, out: Array, x: Array, weight: Array, bias: Array, *, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    """Math: with n = normalised x and h = g weight: dx = (h - mean(h) - n mean(h n)) / sqrt(var + eps), means over the group."""
    normal, rstd = _standardise(x.reshape(x.shape[0], groups, -1), eps=eps)
    h = (g * weight[:, None, None]).reshape(normal.shape)
    dx = rstd * (h - h.mean(axis=-1, keepdims=True) - normal * (h * normal).mean(axis=-1, keepdims=True))
    normal = normal.reshape(x.shape)
    return dx.reshape(x.shape), (g * normal).sum(axis=(0, 2, 3)), g.sum(axis=(0, 2, 3))


@primitive(vjp=group_norm_vjp)
def group_norm(x: Array, weight: Array, bias: Array, *, groups: int, eps: float) -> Array:
    """Normalise each group of consecutive channels of each image, then scale and shift each channel.

    Math: y = (x - mean) / sqrt(var + eps) weight + bias, mean and biased var over (C/G, H, W)
    Shapes: [B,C,H,W], [C], [C] -> [B,C,H,W]
    Source: Wu, He 2018 (arXiv 1803.08494), equations 1 to 7
    Traps: gn-eps, gn-layout, gn-unbiased, gn-groups, ln-eps-outside
    """
    normal, _ = _standardise(x.reshape(x.shape[0], groups, -1), eps=eps)
    return normal.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def group_norm_silu_vjp(
    g: Array, out: Array, x: Array, weight: Array, bias: Array, *, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    """Math: the chain rule through silu, then through group_norm."""
    inner = group_norm.spec(x, weight, bias, groups=groups, eps=eps)
    (g_inner,) = silu_vjp(g, out, inner)
    return group_norm_vjp(g_inner, inner, x, weight, bias, groups=groups, eps=eps)


@primitive(vjp=group_norm_silu_vjp)
def group_norm_silu(x: Array, weight: Array, bias: Array, *, groups: int, eps: float) -> Array:
    """A fusion: silu(group_norm(x)).

    Shapes: [B,C,H,W], [C], [C] -> [B,C,H,W]
    """
    return silu.spec(group_norm.spec(x, weight, bias, groups=groups, eps=eps))


def layer_norm_vjp(g: Array, out: Array, x: Array, weight: Array, bias: Array, *, eps: float) -> tuple[Array, Array, Array]:
    """Math: as group_norm, with the last axis as the only group."""
    normal, rstd = _standardise(x, eps=eps)
    h = g * weight
    dx = rstd * (h - h.mean(axis=-1, keepdims=True) - normal * (h * normal).mean(axis=-1, keepdims=True))
    leading = tuple(range(x.ndim - 1))
    return dx, (g * normal).sum(axis=leading), g.sum(axis=leading)


@primitive(vjp=layer_norm_vjp)
def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float) -> Array:
    """Normalise the last axis, then scale and shift each feature.

    Math: y = (x - mean) / sqrt(var + eps) weight + bias, mean and biased var over D
    Shapes: [...,D], [D], [D] -> [...,D]
    Source: Ba, Kiros, Hinton 2016 (arXiv 1607.06450), equation 4
    Traps: ln-eps, ln-eps-outside
    """
    normal, _ = _standardise(x, eps=eps)
    return normal * weight + bias


def _standardise(x: Array, *, eps: float) -> tuple[Array, Array]:
    """x with mean 0 and variance 1 along the last axis, and the factor 1 / sqrt(var + eps)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = 1.0 / array_module(x).sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    return centred * rstd, rstd
