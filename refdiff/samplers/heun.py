"""Heun's method on the probability flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


def heun(denoise: Denoise, x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
    """Each step follows the mean of the slopes at its beginning and at the end that the first one leads to.

    Math: e = (x - denoise(x, s)) / s, y = x + (s' - s) e, x' = x + (s' - s) (e + (y - denoise(y, s')) / s') / 2;
    to s' = 0, where there is no second slope, x' = y
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1
    """
    for i, (sigma, target) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = denoise(x, sigma)
        slope = (x - denoised) / sigma
        trial = x + (target - sigma) * slope
        if target > 0.0:
            slope = 0.5 * (slope + (trial - denoise(trial, target)) / target)
            trial = x + (target - sigma) * slope
        x = trial
        yield Step(i, target, x, denoised)
