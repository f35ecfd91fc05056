"""DPM-Solver++ in single steps of order 2, with fresh noise: "DPM++ 2S a"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array


def dpmpp_2s_ancestral(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    downs: Sequence[float],
    ups: Sequence[float],
    s_noise: float,
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step takes the picture as the network sees it halfway down to below the next sigma; fresh noise leads back up.

    Math: y = (m/s) x + (1 - m/s) denoise(x, s), m^2 = s d; x' = (d/s) x + (1 - d/s) denoise(y, m) + s_noise u noise,
    d^2 + u^2 = s'^2; down to d = 0, x' = denoise(x, s)
    Nothing is drawn where u is 0.
    Shapes: x and the results [B,...], sigmas [n+1], downs and ups [n] (`ancestral.down_and_up`)
    Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 1, divided by alpha; k-diffusion's sampling.py for the noise
    """
    for i, (sigma, down, up) in enumerate(zip(sigmas[:-1], downs, ups, strict=True)):
        denoised = picture = denoise(x, sigma)
        if down > 0.0:
            middle = math.sqrt(sigma * down)
            picture = denoise((middle / sigma) * x + (1.0 - middle / sigma) * denoised, middle)
        x = (down / sigma) * x + (1.0 - down / sigma) * picture
        if up > 0.0:
            x = x + s_noise * up * fresh(noise, x)
        yield Step(i, sigmas[i + 1], x, denoised)
