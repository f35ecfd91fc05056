"""PNDM without its Runge-Kutta start, as Stable Diffusion 1.x uses it: a linear multistep method (PLMS)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.samplers.step import Denoise, Step, restated
from refdiff.xp import Array

# Adams and Bashforth's weights for the newest slope, the one before, ...
WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def plms(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, targets: Sequence[float], restarts: Sequence[float]
) -> Iterator[Step]:
    """Each step follows a weighted mean of the last four slopes; the first is taken twice, with the mean of both ends.

    Math: x' = x + (s' - s) sum_k w_k e_k, e = (x - denoise(x, s)) / s
    Shapes: x and the results [B,...], sigmas [n+1], targets [n] as in ddim, restarts [n]: a first step begins again there
    Source: Liu et al. 2022 (arXiv 2202.09778), equations 9 and 12; the start as in diffusers' scheduling_pndm.py
    Traps: pndm-dup, state-reuse
    """
    slopes: list[Array] = []
    for i, (sigma, target) in enumerate(zip(sigmas, targets, strict=False)):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[:3]]
        slope = sum(w * e for w, e in zip(WEIGHTS[len(slopes) - 1], slopes, strict=True))
        if i == 0 and len(sigmas) > 2:
            trial = restated(x + (target - sigma) * slope, target, sigmas[1])
            denoised = denoise(trial, sigmas[1])
            slope = 0.5 * (slope + (trial - denoised) / sigmas[1])
            x = restated(x, sigma, restarts[0])
            sigma, target = restarts[0], sigmas[1]
        x = restated(x + (target - sigma) * slope, target, sigmas[i + 1])
        yield Step(i, sigmas[i + 1], x, denoised)
