"""Heun's method on the probability flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.churn import lifted, raised
from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


def heun(denoise: Denoise, x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
    """Each step follows the mean of the slopes at its beginning and at the end that the first one leads to.

    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1
    """
    for i, (sigma, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        x, denoised = heun_step(denoise, x, sigma, after)
        yield Step(i, after, x, denoised)


def heun_with_churn(
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
    """The same after going back a little, by fresh noise: it is `lifted` to the sigmas of `raised`.

    With churn, noise is drawn for every step, also where it goes nowhere.
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2
    """
    ups = raised(sigmas, steps=len(sigmas) - 1, s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax)
    for i, (sigma, up, after) in enumerate(zip(sigmas[:-1], ups, sigmas[1:], strict=True)):
        if s_churn > 0.0:
            x = lifted(x, sigma, up, s_noise, noise)
        x, denoised = heun_step(denoise, x, up, after)
        yield Step(i, after, x, denoised)


def heun_step(denoise: Denoise, x: Array, sigma: float, after: float) -> tuple[Array, Array]:
    """x at the sigma `after`, and what it was denoised to at the sigma before.

    Math: e = (x - denoise(x, s)) / s, y = x + (s' - s) e, x' = x + (s' - s) (e + (y - denoise(y, s')) / s') / 2;
    to s' = 0, where there is no second slope, x' = y
    Shapes: [B,...] -> [B,...], [B,...]
    """
    denoised = denoise(x, sigma)
    slope = (x - denoised) / sigma
    trial = x + (after - sigma) * slope
    if after > 0.0:
        slope = 0.5 * (slope + (trial - denoise(trial, after)) / after)
        trial = x + (after - sigma) * slope
    return trial, denoised
