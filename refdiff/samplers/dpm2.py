"""DPM-Solver-2 as Karras et al. write it, and with fresh noise: the slope in the middle of each step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.churn import lifted, raised
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


def dpm2_with_churn(
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
    """The same after going back a little, by fresh noise: it is `lifted` to the sigmas of `raised`; m^2 = r s'.

    With churn, noise is drawn for every step, also where it goes nowhere.
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2; k-diffusion's sampling.py, sample_dpm_2
    """
    ups = raised(sigmas, steps=len(sigmas) - 1, s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax)
    for i, (sigma, up, target) in enumerate(zip(sigmas[:-1], ups, sigmas[1:], strict=True)):
        if s_churn > 0.0:
            x = lifted(x, sigma, up, s_noise, noise)
        x, denoised = _through_the_middle(denoise, x, up, math.sqrt(up * target), target)
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
