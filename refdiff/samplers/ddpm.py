"""DDPM: ancestral sampling of the diffusion that a network was trained on, with every choice of its variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Predict, Step, fresh
from refdiff.xp import Array, array_module

Deviation = Callable[[Array, float, float], Array]  # (what else it says, smallest variance, largest variance)


def ddpm(
    predict: Predict,
    x: Array,
    sigmas: Sequence[float],
    *,
    small: Sequence[float],
    large: Sequence[float],
    random: Sequence[bool],
    deviation: Deviation,
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step draws from the posterior of the next latent, given this one and the denoised one.

    Math: with D the denoised latent, s the sigma and r the next: x' = D + (r/s)^2 (x - D) + sqrt(1 + r^2) d noise, where d is
    the deviation in variance-preserving form, between the roots of `small` and `large`; no noise where `random` is false
    Shapes: x and the results [B,...], sigmas [n+1], small, large, random [n]
    Source: Ho, Jain, Abbeel 2020 (arXiv 2006.11239), equations 6 and 7, divided by sqrt(alpha)
    """
    for i, sigma in enumerate(sigmas[:-1]):
        denoised, further = predict(x, sigma)
        after = sigmas[i + 1]
        x = denoised + (after / sigma) ** 2 * (x - denoised)
        if random[i]:
            x = x + math.sqrt(1.0 + after**2) * deviation(further, small[i], large[i]) * fresh(noise, x)
        yield Step(i, after, x, denoised)


def smallest(further: Array, small: float, large: float) -> float:
    """The deviation that is right for data that are one point.  Source: Ho et al. 2020, section 3.2"""
    return math.sqrt(small)


def largest(further: Array, small: float, large: float) -> float:
    """The deviation that is right for data that are unit noise.  Source: Ho et al. 2020, section 3.2"""
    return math.sqrt(large)


def learned(variance: Array, small: float, large: float) -> Array:
    """The network gives the variance itself; none below 0.  Shapes: [B,...] -> [B,...]"""
    xp = array_module(variance)
    return xp.sqrt(xp.maximum(variance, 0.0))


def learned_range(share: Array, small: float, large: float) -> Array:
    """The network says where the variance's logarithm is, from -1 for the smallest to 1 for the largest.

    Shapes: [B,...] -> [B,...]
    Source: Nichol, Dhariwal 2021 (arXiv 2102.09672), equation 15
    """
    low, high = math.log(small), math.log(large)
    return array_module(share).exp(0.25 * (high - low) * share + 0.25 * (high + low))
