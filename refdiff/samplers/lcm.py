"""Latent consistency models, and their trajectory form: the picture at once, then noise again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Denoise, Predict, Step, fresh
from refdiff.xp import Array


def lcm(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    taken: Sequence[float],
    kept: Sequence[float],
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step goes to the picture that the consistency function gives, and back to the next sigma by fresh noise.

    Math: D = taken denoise(x, s) + kept x; x' = D + s' noise
    Shapes: x and the results [B,...], sigmas [n+1], taken and kept [n]
    Source: Luo et al. 2023 (arXiv 2310.04378), equation 9 and algorithm 3
    """
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = taken[i] * denoise(x, sigma) + kept[i] * x
        after = sigmas[i + 1]
        x = denoised + after * fresh(noise, x) if after > 0.0 else denoised
        yield Step(i, after, x, denoised)


def tcd(
    predict: Predict, x: Array, sigmas: Sequence[float], *, targets: Sequence[float], eta: float, noise: Stream | None
) -> Iterator[Step]:
    """Each step goes along the predicted noise to its target, and up to the next sigma by fresh noise.

    Math: x' = D + r e + sqrt(s'^2 - r^2) noise, with the denoised latent D, the noise e in x, and the target r <= s',
    which is s' where eta, the paper's gamma, is 0
    Shapes: x and the results [B,...], sigmas [n+1], targets [n]
    Source: Zheng et al. 2024 (arXiv 2402.19159), equation 7 and algorithm 4
    """
    for i, (sigma, target) in enumerate(zip(sigmas, targets, strict=False)):
        denoised, direction = predict(x, sigma)
        x, after = denoised + target * direction, sigmas[i + 1]
        if eta > 0.0 and after > target:
            x = x + math.sqrt(after**2 - target**2) * fresh(noise, x)
        yield Step(i, after, x, denoised)


def consistency(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, up: Sequence[float], noise: Stream | None
) -> Iterator[Step]:
    """Each step goes to the picture that the consistency function gives, and up again by fresh noise.

    Math: x' = denoise(x, s) + up noise
    Shapes: x and the results [B,...], sigmas [n+1], up [n]: the deviation of the noise after each step
    Source: Song et al. 2023 (arXiv 2303.01469), algorithm 1
    """
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoise(x, sigma)
        x = denoised + up[i] * fresh(noise, x) if up[i] > 0.0 else denoised
        yield Step(i, sigmas[i + 1], x, denoised)
