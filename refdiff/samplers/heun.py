"""Heun's method on the probability flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.samplers.churn import with_churn
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


heun_with_churn = with_churn(heun_step)
