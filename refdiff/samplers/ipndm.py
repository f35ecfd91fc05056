"""iPNDM: a linear multistep method with the weights of even steps, which learns its first steps from fewer predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.samplers.pndm import weighted
from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


def ipndm(denoise: Denoise, x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
    """Each step follows a weighted mean of the last four slopes, the first steps of as many as there are.

    Math: x' = x + (s' - s) sum_k w_k e_k, e = (x - denoise(x, s)) / s; first x' = D + s' e, which is the same and loses no digits
    where s is so large that there is no picture in x
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Liu et al. 2022 (arXiv 2202.09778), equations 9 and 12, without the start by Runge and Kutta
    Traps: state-reuse
    """
    slopes: list[Array] = []
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[:3]]
        after = sigmas[i + 1]
        x = x + (after - sigma) * weighted(slopes) if i else denoised + after * slopes[0]
        yield Step(i, after, x, denoised)
