"""Euler's method on the probability flow, with churn that the network sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.churn import lifted, raised
from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


def euler_with_churn(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    s_churn: float,
    s_tmin: float,
    s_tmax: float,
    s_noise: float,
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step follows the slope at its beginning; with churn it first goes back a little, by fresh noise.

    Math: x^ = x + s_noise sqrt(r^2 - s^2) noise, r of `raised`; x' = x^ + (s' - r) (x^ - D) / r, D = denoise(x^, r)
    With churn, noise is drawn for every step, also where r is s.
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2 without its correction; k-diffusion's sampling.py
    """
    ups = raised(sigmas, steps=len(sigmas) - 1, s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax)
    for i, (sigma, up, after) in enumerate(zip(sigmas[:-1], ups, sigmas[1:], strict=True)):
        if s_churn > 0.0:
            x = lifted(x, sigma, up, s_noise, noise)
        denoised = denoise(x, up)
        x = x + (after - up) * ((x - denoised) / up)
        yield Step(i, after, x, denoised)
