"""Noise levels between two given ones, spaced as papers and programs space them, largest first."""

from __future__ import annotations

import math

import numpy as np
import scipy.stats


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
    return low + scipy.stats.beta.ppf(1 - np.linspace(0, 1, count), a, b) * (high - low)


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
