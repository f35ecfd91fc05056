"""Churn: going back a little by fresh noise before each step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import fresh
from refdiff.xp import Array


def raised(sigmas: Sequence[float], *, steps: int, s_churn: float, s_tmin: float, s_tmax: float) -> list[float]:
    """The sigma that each step begins from, of a run of so many steps.

    Math: r = (1 + g) s, g = min(s_churn / n, sqrt(2) - 1) for s_tmin <= s <= s_tmax, else 0
    Shapes: [n+1] -> [n]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2
    """
    gain = min(s_churn / steps, math.sqrt(2.0) - 1.0)
    return [sigma * (1.0 + gain) if s_tmin <= sigma <= s_tmax else sigma for sigma in sigmas[:-1]]


def lifted(x: Array, sigma: float, up: float, s_noise: float, noise: Stream | None) -> Array:
    """x of sigma with noise up to another sigma.  Math: x + s_noise sqrt(r^2 - s^2) noise"""
    return x + s_noise * math.sqrt(up**2 - sigma**2) * fresh(noise, x)
