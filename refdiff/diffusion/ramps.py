"""Noise levels between two given ones, spaced as papers and programs space them, largest first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def karras(count: int, *, low: float, high: float, rho: float) -> np.ndarray:
    """Equal distances in the rho-th root of sigma.

    Shapes: -> [count]
    Source: Karras et al. 2022 (arXiv 2206.00364), equation 5
    """
    ramp = np.linspace(0, 1, count)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def exponential(count: int, *, low: float, high: float) -> np.ndarray:
    """Equal distances in the logarithm of sigma.  Shapes: -> [count]"""
    return np.exp(np.linspace(math.log(high), math.log(low), count))


def polyexponential(count: int, *, low: float, high: float, rho: float) -> np.ndarray:
    """Distances in the logarithm of sigma that grow as a power.  Shapes: -> [count]  Source: k-diffusion's sampling.py"""
    ramp = np.linspace(1, 0, count) ** rho
    return np.exp(ramp * (math.log(high) - math.log(low)) + math.log(low))


def beta(count: int, *, low: float, high: float, a: float, b: float) -> np.ndarray:
    """The quantiles of a beta distribution.  Shapes: -> [count]  Source: Lee et al. 2024 (arXiv 2407.12173), section 4.2"""
    return low + beta_quantiles(1 - np.linspace(0, 1, count), a, b) * (high - low)


def beta_quantiles(shares: np.ndarray, a: float, b: float) -> np.ndarray:
    """Where a beta distribution's share below has these values.  Shapes: [n] -> [n]"""
    from scipy.special import betaincinv  # seldom wanted, and slow to import

    return betaincinv(a, b, shares)


def arctangent(count: int, *, low: float, high: float) -> np.ndarray:
    """Equal distances in the arctangent of sigma: "KL optimal".

    Shapes: -> [count]
    Source: Sabour, Fidler, Kreis 2024 (arXiv 2404.14507), section 3.1, for data of unit variance
    """
    return np.tan(np.linspace(math.atan(high), math.atan(low), count))


def laplace(count: int, *, low: float, high: float, mean: float, scale: float) -> np.ndarray:
    """The quantiles of a Laplace distribution of log sigma, none beyond the ends, so that some may come twice.

    Shapes: -> [count]
    Source: Hang et al. 2024 (arXiv 2407.03297), table 1; the 1e-5 that keeps the logarithm finite is ComfyUI's
    """
    x = np.linspace(0, 1, count)
    return np.clip(np.exp(mean - scale * np.sign(0.5 - x) * np.log(1 - 2 * np.abs(0.5 - x) + 1e-5)), low, high)


def preserving(count: int, *, slope: float, least: float, end: float) -> np.ndarray:
    """Equal distances in time, where beta is linear in it: `least` at time 0, `least + slope` at time 1, down to time `end`.

    Math: sigma = sqrt(e^(slope t^2 / 2 + least t) - 1)
    Shapes: -> [count]
    Source: Song et al. 2021 (arXiv 2011.13456), equation 33; k-diffusion's get_sigmas_vp
    """
    t = np.linspace(1, end, count)
    return np.sqrt(np.expm1(0.5 * slope * t**2 + least * t))


def linear_quadratic(count: int, *, high: float, threshold: float) -> np.ndarray:
    """Down from `high` by equal steps for the first half of them, of `threshold` in all, then along a parabola to 0.

    Math: sigma / high = 1 - threshold i / m for i <= m = count // 2, then 1 - (a j^2 + b j + threshold), j = i - m, with the
    slope b = threshold / m of the line and a such that the last is 0
    Shapes: -> [count + 1], the 0 among them; for one step [high, 0]
    Source: Mochi 1 (genmoai), its infer.py; ComfyUI's linear_quadratic
    """
    if count == 1:
        return np.array([high, 0.0])
    linear, curved = count // 2, count - count // 2
    slope = threshold / linear
    bend = (1 - threshold - slope * curved) / curved**2
    j = np.arange(curved + 1)
    fallen = np.append(slope * np.arange(linear), bend * j**2 + slope * j + threshold)
    return high * np.append(1 - fallen[:-1], 0.0)


def through(levels: Sequence[float], count: int) -> np.ndarray:
    """As many levels as wanted along given ones: their logarithms, interpolated by place.

    Shapes: [k] -> [count]
    Source: Sabour, Fidler, Kreis 2024 (arXiv 2404.14507), the how-to on its page
    """
    places = np.linspace(0, 1, len(levels))
    return np.exp(np.interp(np.linspace(0, 1, count), places, np.log(levels)))


def time_of(sigma: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The training time of a sigma, between times by the logarithm; outside the table its end.

    With betas of zero terminal SNR the last sigmas of the table may fall: the last time at or below this sigma counts.
    Shapes: [n], table [T] -> [n]
    Source: k-diffusion's external.py
    """
    logs, wanted = np.log(table), np.log(np.maximum(sigma, 1e-10))
    low = np.minimum(np.where(wanted[:, None] >= logs, np.arange(len(table)), 0).max(axis=1), len(table) - 2)
    share = np.clip((logs[low] - wanted) / (logs[low] - logs[low + 1]), 0, 1)
    return (1 - share) * low + share * (low + 1)
