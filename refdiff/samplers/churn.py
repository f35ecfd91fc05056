"""Churn: going back a little by fresh noise before each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array

# (denoise, x, its sigma, the next sigma) -> x there, and what it was denoised to
OneStep = Callable[[Denoise, Array, float, float], tuple[Array, Array]]


def with_churn(step: OneStep) -> Callable[..., Iterator[Step]]:
    """The solver of single steps that goes back a little before each, by fresh noise which the network sees.

    Math: x is `lifted` from s to r of `raised`, then x' = step(x, r, s')
    With churn, noise is drawn for every step, also where r is s.
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2; k-diffusion's sampling.py
    """

    def solve(
        denoise: Denoise, x: Array, sigmas: Sequence[float], *,
        s_churn: float, s_tmin: float, s_tmax: float, s_noise: float, noise: Stream | None,
    ) -> Iterator[Step]:  # fmt: skip
        ups = raised(sigmas, steps=len(sigmas) - 1, s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax)
        for i, (sigma, up, after) in enumerate(zip(sigmas[:-1], ups, sigmas[1:], strict=True)):
            if s_churn > 0.0:
                x = lifted(x, sigma, up, s_noise, noise)
            x, denoised = step(denoise, x, up, after)
            yield Step(i, after, x, denoised)

    return solve


def raised(sigmas: Sequence[float], *, steps: int, s_churn: float, s_tmin: float, s_tmax: float) -> list[float]:
    """The sigma that each step begins from, of a run of so many steps.

    Math: r = (1 + g) s, g = min(s_churn / n, sqrt(2) - 1) for s_tmin <= s <= s_tmax, else 0
    Shapes: [n+1] -> [n]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2
    """
    gain = min(s_churn / steps, math.sqrt(2.0) - 1.0)
    return [sigma * (1.0 + gain) if s_tmin <= sigma <= s_tmax else sigma for sigma in sigmas[:-1]]


def lifted(x: Array, sigma: float, up: float, s_noise: float, noise: Stream | None) -> Array:
    """x of sigma with noise up to another sigma.  Math: x + s_noise sqrt(r^2 - s^2) noise"""
    return x + s_noise * math.sqrt(up**2 - sigma**2) * fresh(noise, x)
