"""Euler's method, going down further than the next noise level and back up by fresh noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array


def euler_ancestral(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    downs: Sequence[float],
    ups: Sequence[float],
    s_noise: float,
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step follows the slope at its beginning to below the next sigma; fresh noise leads back up to it.

    Math: x' = x + (d - s) (x - D) / s + s_noise u noise, D = denoise(x, s), d^2 + u^2 = s'^2
    Nothing is drawn where u is 0: not on a step to sigma 0.
    Shapes: x and the results [B,...], sigmas [n+1], downs and ups [n]
    Source: k-diffusion's sampling.py, sample_euler_ancestral; the noise of Ho, Jain, Abbeel 2020 (arXiv 2006.11239)
    """
    for i, (sigma, down, up) in enumerate(zip(sigmas[:-1], downs, ups, strict=True)):
        denoised = denoise(x, sigma)
        x = x + (down - sigma) * ((x - denoised) / sigma)
        if up > 0.0:
            x = x + s_noise * up * fresh(noise, x)
        yield Step(i, sigmas[i + 1], x, denoised)
