"""Euler's method on the probability flow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


def euler(denoise: Denoise, x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
    """Each step follows the slope at its beginning.

    Math: x' = x + (s' - s) (x - denoise(x, s)) / s
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1 without its correction
    """
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoise(x, sigma)
        x = x + (sigmas[i + 1] - sigma) * ((x - denoised) / sigma)
        yield Step(i, sigmas[i + 1], x, denoised)
