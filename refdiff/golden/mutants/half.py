"""Bugs of half precision: where a program in float32 computes a part in float16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refdiff import ops
from refdiff.core.tap import tap
from refdiff.golden.mutants import changes
from refdiff.golden.mutants.kind import Change, Variant, Variants, patched
from refdiff.models import clip_text, transformer, vae
from refdiff.xp import array_module

Round = Callable[[Any], Any]


def float16(x: Any) -> Any:
    """The numbers as float16 holds them; beyond 65504 infinite."""
    return x.astype("float16").astype(x.dtype)


def group_norms(rounded: Round) -> list[Change]:
    """GroupNorms whose numbers, mean and variance are rounded."""

    def norm(x: Any, weight: Any, bias: Any, *, groups: int, eps: float) -> Any:
        flat = rounded(x.reshape(x.shape[0], groups, -1))
        centred = flat - rounded(flat.mean(axis=-1, keepdims=True))
        variance = rounded((centred * centred).mean(axis=-1, keepdims=True))
        normal = centred / array_module(x).sqrt(variance + eps)
        return normal.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]

    def fused(x: Any, weight: Any, bias: Any, *, groups: int, eps: float) -> Any:
        return ops.silu(norm(x, weight, bias, groups=groups, eps=eps))

    return changes.norms(norm, fused)


def attending(scores_of: Callable[[Any], Any], softmax: Callable[[Any], Any]) -> list[Change]:
    """Attention with another softmax of scores that were changed."""

    def attend(q: Any, k: Any, v: Any, *, heads: int, scale: float, causal: bool) -> Any:
        xp = array_module(q)
        q_h, k_h, v_h = (x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v))
        scores = scores_of(q_h @ k_h.swapaxes(-1, -2)) * scale
        if causal:
            scores = xp.where(xp.arange(k.shape[1])[None, :] > xp.arange(q.shape[1])[:, None], -xp.inf, scores)
        return (softmax(scores).astype(v.dtype) @ v_h).transpose(0, 2, 1, 3).reshape(q.shape)

    return changes.attentions(attend, transformer, vae, clip_text)


def naive(scores: Any) -> Any:
    """Exponentials in float32, which end at e^88.7."""
    e = array_module(scores).exp(scores.astype("float32"))
    return e / e.sum(axis=-1, keepdims=True)


def as_it_is(x: Any) -> Any:
    """No change."""
    return x


def rounded_convolutions(rounded: Round) -> Variant:
    """The autoencoder's convolutions with rounded results."""

    def conv3x3(p: Any, x: Any) -> Any:
        return tap(p.path, rounded(ops.conv2d(x, p.weight, p.bias, stride=1, padding=(1, 1, 1, 1))))

    def conv1x1(p: Any, x: Any) -> Any:
        return tap(p.path, rounded(ops.conv2d(x, p.weight, p.bias, stride=1, padding=(0, 0, 0, 0))))

    changed = changes.convolutions(conv3x3, ops.upsample_nearest)
    return patched(*(change for change in changed if change[0] is vae), (vae, "conv1x1", conv1x1))


VARIANTS: Variants = {
    "gn-halfprec": {
        "float16": patched(*group_norms(float16)),
        "bfloat16": patched(*group_norms(changes.bfloat16)),
    },
    "attn-fp16": {
        "float16": patched(*attending(float16, ops.softmax)),
        "bfloat16": patched(*attending(changes.bfloat16, ops.softmax)),
    },
    "softmax-naive": {"float32": patched(*attending(as_it_is, naive))},
    "vae-fp16": {"float16": rounded_convolutions(float16)},
}
