"""DPM-Solver-2 as Karras et al. write it, and with fresh noise: the slope in the middle of each step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.churn import with_churn
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array


def dpm2(denoise: Denoise, x: Array, sigmas: Sequence[float], *, middles: Sequence[float]) -> Iterator[Step]:
    """Each step follows the slope in its middle, to which the slope at its beginning leads; without a middle, that one.

    Math: e = (x - denoise(x, s)) / s, y = x + (m - s) e, x' = x + (s' - s) (y - denoise(y, m)) / m, m^2 = s s'
    Shapes: x and the results [B,...], sigmas [n+1], middles [n], 0 where there is none
    Source: Karras et al. 2022 (arXiv 2206.00364), appendix on DPM-Solver; Lu et al. 2022 (arXiv 2206.00927), algorithm 1
    """
    for i, (sigma, target, middle) in enumerate(zip(sigmas[:-1], sigmas[1:], middles, strict=True)):
        x, denoised = _through_the_middle(denoise, x, sigma, middle, target)
        yield Step(i, target, x, denoised)


def dpm2_ancestral(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    middles: Sequence[float],
    downs: Sequence[float],
    ups: Sequence[float],
    s_noise: float,
    noise: Stream | None,
) -> Iterator[Step]:
    """The same down to below the next sigma; fresh noise leads back up to it.

    Math: x' = dpm2's to d, with m^2 = s d, + s_noise u noise
    Nothing is drawn where u is 0: not on a step to sigma 0.
    Shapes: x and the results [B,...], sigmas [n+1], middles, downs and ups [n]
    Source: k-diffusion's sampling.py, sample_dpm_2_ancestral
    """
    for i, (sigma, middle, down, up) in enumerate(zip(sigmas[:-1], middles, downs, ups, strict=True)):
        x, denoised = _through_the_middle(denoise, x, sigma, middle, down)
        if up > 0.0:
            x = x + s_noise * up * fresh(noise, x)
        yield Step(i, sigmas[i + 1], x, denoised)


def _through_the_middle(denoise: Denoise, x: Array, sigma: float, middle: float, target: float) -> tuple[Array, Array]:
    """x at the target, and what it was denoised to at sigma."""
    denoised = denoise(x, sigma)
    slope = (x - denoised) / sigma
    if middle > 0.0:
        trial = x + (middle - sigma) * slope
        slope = (trial - denoise(trial, middle)) / middle
    return x + (target - sigma) * slope, denoised


def dpm2_step(denoise: Denoise, x: Array, sigma: float, target: float) -> tuple[Array, Array]:
    """One of `dpm2`'s steps, with m^2 = s s'.  Shapes: [B,...] -> [B,...], [B,...]"""
    return _through_the_middle(denoise, x, sigma, math.sqrt(sigma * target), target)


dpm2_with_churn = with_churn(dpm2_step)
