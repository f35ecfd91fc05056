"""Classifier-free guidance: away from what the network predicts without the text, towards what it predicts with it."""

from __future__ import annotations

from refdiff.xp import Array


def guide(unconditional: Array, conditional: Array, *, scale: float) -> Array:
    """The guided prediction; scale 1 is the conditional one, 0 the unconditional one.

    Math: u + scale (c - u)
    Shapes: [B,...], [B,...] -> [B,...]
    Source: Ho, Salimans 2022 (arXiv 2207.12598), equation 6, where w = scale - 1
    Traps: cfg-swap, cfg-off
    """
    return unconditional + scale * (conditional - unconditional)


def needs_unconditional(scale: float) -> bool:
    """Whether the unconditional branch has a part in the result: at scale 1 one call of the network is enough."""
    return scale != 1.0
