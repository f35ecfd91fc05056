"""What a network predicts, and how it becomes the denoised latent.

The functions of (x, prediction, a, s) take the network's own input x = a x0 + s noise with a^2 + s^2 = 1, where
sigma = s / a; those of flow matching x = (1 - sigma) x0 + sigma noise; EDM's x0 + sigma noise.
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


def denoised_from_flow(x: Array, v: Array, sigma: float) -> Array:
    """x0 = x - sigma v, where x = (1 - sigma) x0 + sigma noise and v = noise - x0.

    Source: Esser et al. 2024 (arXiv 2403.03206), section 2
    """
    return x - sigma * v


def flow_from_denoised(x: Array, x0: Array, sigma: float) -> Array:
    """v = (x - x0) / sigma."""
    return (x - x0) / sigma


def noise_from_flow(x: Array, v: Array, sigma: float) -> Array:
    """noise = x + (1 - sigma) v."""
    return x + (1.0 - sigma) * v


def edm_scale(sigma: float, data: float) -> float:
    """c_in = 1 / sqrt(sigma^2 + data^2), where x = x0 + sigma noise and x0 has the deviation `data`.

    Source: Karras et al. 2022 (arXiv 2206.00364), table 1
    """
    return 1.0 / math.sqrt(sigma**2 + data**2)


def denoised_from_edm(x: Array, output: Array, sigma: float, data: float) -> Array:
    """x0 = c_skip x + c_out F.  Source: Karras et al. 2022 (arXiv 2206.00364), equation 7 and table 1"""
    scale = edm_scale(sigma, data)
    return (data * scale) ** 2 * x + sigma * data * scale * output


def edm_from_denoised(x: Array, x0: Array, sigma: float, data: float) -> Array:
    """F = (x0 - c_skip x) / c_out."""
    scale = edm_scale(sigma, data)
    return (x0 - (data * scale) ** 2 * x) / (sigma * data * scale)


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
