"""Euler's method on the probability flow, with churn that the network sees."""

from __future__ import annotations

from refdiff.samplers.churn import with_churn
from refdiff.samplers.step import Denoise
from refdiff.xp import Array


def euler_step(denoise: Denoise, x: Array, sigma: float, after: float) -> tuple[Array, Array]:
    """x at the sigma `after`, along the slope at its beginning, and what it was denoised to there.

    Math: x' = x + (s' - s) (x - D) / s, D = denoise(x, s)
    Shapes: [B,...] -> [B,...], [B,...]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2 without its correction
    """
    denoised = denoise(x, sigma)
    return x + (after - sigma) * ((x - denoised) / sigma), denoised


euler_with_churn = with_churn(euler_step)
