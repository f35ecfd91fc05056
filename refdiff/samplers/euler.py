"""Euler's method on the probability flow, with churn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array


def euler(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    s_churn: float,
    s_tmin: float,
    s_tmax: float,
    s_noise: float,
    again: Callable[[Array, Array, Array, float, float], Array],
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step follows the slope at its beginning; with churn it first goes back a little, by fresh noise.

    Math: g = min(s_churn / n, sqrt(2) - 1) for s_tmin <= s <= s_tmax, else 0; r = (1 + g) s;
    x^ = x + s_noise sqrt(r^2 - s^2) noise; x' = x^ + (s' - r) (x^ - D) / r, D = denoise(x^, r)
    As upstream does, the network is asked before the noise, at x and s; `again(x, denoise(x, s), x^, s, r)` is what is taken
    for D.
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2 without its correction
    """
    gain = min(s_churn / (len(sigmas) - 1), math.sqrt(2.0) - 1.0)
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoise(x, sigma)
        raised = sigma * (1.0 + gain) if s_tmin <= sigma <= s_tmax else sigma
        if raised > sigma:
            noisier = x + s_noise * math.sqrt(raised**2 - sigma**2) * fresh(noise, x)
            x, denoised = noisier, again(x, denoised, noisier, sigma, raised)
        x = x + (sigmas[i + 1] - raised) * ((x - denoised) / raised)
        yield Step(i, sigmas[i + 1], x, denoised)


def same_picture(x: Array, denoised: Array, noisier: Array, sigma: float, raised: float) -> Array:
    """For a network that predicts the picture."""
    return denoised


def same_noise(x: Array, denoised: Array, noisier: Array, sigma: float, raised: float) -> Array:
    """For a network that predicts the noise, of which there is more now.  Math: x^ - r (x - D) / s"""
    return noisier - raised * ((x - denoised) / sigma)


def same_velocity(x: Array, denoised: Array, noisier: Array, sigma: float, raised: float) -> Array:
    """For a network that predicts the velocity: upstream takes the velocity's share at s, not at r, of x^.

    Math: D + (x^ - x) / (1 + s^2)
    """
    return denoised + (noisier - x) / (1.0 + sigma * sigma)
