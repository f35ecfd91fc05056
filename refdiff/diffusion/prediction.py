"""What a network predicts, and how it becomes the denoised latent.

All functions take the network's own input x = a x0 + s noise with a^2 + s^2 = 1, where sigma = s / a.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from refdiff.xp import Array

Conversion = Callable[[Array, Array, float, float], Array]


def denoised_from_epsilon(x: Array, epsilon: Array, a: float, s: float) -> Array:
    """x0 = (x - s epsilon) / a.  Source: Ho, Jain, Abbeel 2020 (arXiv 2006.11239), equation 15"""
    return (x - s * epsilon) / a


def denoised_from_v(x: Array, v: Array, a: float, s: float) -> Array:
    """x0 = a x - s v.  Source: Salimans, Ho 2022 (arXiv 2202.00512), appendix D.  Traps: vpred-as-eps"""
    return a * x - s * v


def denoised_from_sample(x: Array, x0: Array, a: float, s: float) -> Array:
    """The prediction itself."""
    return x0


def epsilon_from_denoised(x: Array, x0: Array, a: float, s: float) -> Array:
    """epsilon = (x - a x0) / s."""
    return (x - a * x0) / s


def epsilon_itself(x: Array, epsilon: Array, a: float, s: float) -> Array:
    """The prediction itself."""
    return epsilon


def epsilon_from_v(x: Array, v: Array, a: float, s: float) -> Array:
    """epsilon = a v + s x.  Source: Salimans, Ho 2022 (arXiv 2202.00512), appendix D"""
    return a * v + s * x


def v_from_denoised(x: Array, x0: Array, a: float, s: float) -> Array:
    """v = a epsilon - s x0 = (a x - x0) / s."""
    return (a * x - x0) / s


DENOISED: dict[str, Conversion] = {
    "epsilon": denoised_from_epsilon,
    "v_prediction": denoised_from_v,
    "sample": denoised_from_sample,
}

EPSILON: dict[str, Conversion] = {
    "epsilon": epsilon_itself,
    "v_prediction": epsilon_from_v,
    "sample": epsilon_from_denoised,
}


def signal_and_noise(sigma: float) -> tuple[float, float]:
    """a = 1 / sqrt(1 + sigma^2) and s = sigma a."""
    a = 1.0 / math.sqrt(1.0 + sigma * sigma)
    return a, sigma * a
