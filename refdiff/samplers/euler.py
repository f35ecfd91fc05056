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
    raised: Sequence[float],
    s_noise: float,
    again: Callable[[Array, Array, Array, float, float], Array],
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step follows the slope at its beginning; with churn it first goes back a little, by fresh noise.

    Math: r = raised[i] >= s; x^ = x + s_noise sqrt(r^2 - s^2) noise; x' = x^ + (s' - r) (x^ - D) / r, D = denoise(x^, r)
    As upstream does, the network is asked before the noise, at x and s; `again(x, denoise(x, s), x^, s, r)` is what is taken
    for D.
    Shapes: x and the results [B,...], sigmas [n+1], raised [n]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2 without its correction
    """
    for i, (sigma, up) in enumerate(zip(sigmas, raised, strict=False)):
        denoised = denoise(x, sigma)
        if up > sigma:
            noisier = x + s_noise * math.sqrt(up**2 - sigma**2) * fresh(noise, x)
            x, denoised = noisier, again(x, denoised, noisier, sigma, up)
        x = x + (sigmas[i + 1] - up) * ((x - denoised) / up)
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
