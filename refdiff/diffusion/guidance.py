"""Classifier-free guidance: away from what the network predicts without the text, towards what it predicts with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refdiff.errors import BadRequest
from refdiff.xp import Array, array_module


def guide(unconditional: Array, conditional: Array, *, scale: float) -> Array:
    """The guided prediction; scale 1 is the conditional one, 0 the unconditional one.

    Math: u + scale (c - u)
    Shapes: [B,...], [B,...] -> [B,...]
    Source: Ho, Salimans 2022 (arXiv 2207.12598), equation 6, where w = scale - 1
    Traps: cfg-swap, cfg-off
    """
    return unconditional + scale * (conditional - unconditional)


def rescaled(guided: Array, conditional: Array, *, phi: float) -> Array:
    """The guided prediction brought back, by the share phi, to the deviation of the conditional one, picture by picture.

    Math: phi g std(c) / std(g) + (1 - phi) g
    Shapes: [B,...], [B,...] -> [B,...]
    Source: Lin et al. 2023 (arXiv 2305.08891), equations 14 to 16
    """
    return phi * (guided * (deviation(conditional) / deviation(guided))) + (1.0 - phi) * guided


def deviation(x: Array) -> Array:
    """The standard deviation of each picture.  Shapes: [B,...] -> [B,1,...]"""
    axes = tuple(range(1, x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    return array_module(x).sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True))


def branches(scale: float, *, phi: float) -> tuple[bool, bool]:
    """Whether the unconditional and the conditional branch have a part in the result: at scale 0 and 1 one is enough."""
    if scale == 1.0:
        return False, True
    return True, scale != 0.0 or phi != 0.0


def scales_of(scale: float | Sequence[float], sigmas: np.ndarray, *, interval: tuple[float, float] | None) -> tuple[float, ...]:
    """The scale of each step: the one given, or one a step; 1 for steps that begin outside the interval of sigmas.

    Math: scale where low < sigma <= high, else 1
    Shapes: sigmas [n+1] -> n numbers
    Raises: BadRequest for another number of scales than of steps
    Source: Kynkäänniemi et al. 2024 (arXiv 2404.07724), equation 5
    """
    steps = len(sigmas) - 1
    given = (float(scale),) * steps if isinstance(scale, int | float) else tuple(float(s) for s in scale)
    if len(given) != steps:
        raise BadRequest(f"{len(given)} scales of guidance for {steps} steps: give one, or one a step")
    if interval is None:
        return given
    low, high = interval
    return tuple(s if low < sigma <= high else 1.0 for s, sigma in zip(given, sigmas.tolist(), strict=False))
