"""DDIM: denoising diffusion implicit models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Denoise, Step, fresh, restated
from refdiff.xp import Array


def ddim(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    targets: Sequence[float],
    limit: Callable[[Array], Array],
    eta: float,
    use_clipped_model_output: bool,
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step goes along the predicted noise to the next sigma, a share of it replaced by fresh noise.

    Math: with D = denoise(x, s), e = (x - D) / s and the step's end r: u = eta r sqrt(s^2 - r^2) / s,
    x' = limit(D) + sqrt(r^2 - u^2) e + u noise; with use_clipped_model_output e is (x - limit(D)) / s, as in GLIDE
    `targets[i]` is where step i goes; where it is not sigmas[i + 1], the next step takes the same variance-preserving
    sample for one of its own sigma, as upstream does when the number of steps does not divide the training times.
    Shapes: x and the results [B,...], sigmas [n+1], targets [n]
    Source: Song, Meng, Ermon 2020 (arXiv 2010.02502), equations 12 and 16, divided by sqrt(alpha)
    Traps: final-alpha, prev-t-stride
    """
    for i, (sigma, target) in enumerate(zip(sigmas, targets, strict=False)):
        denoised = denoise(x, sigma)
        limited = limit(denoised)
        direction = (x - (limited if use_clipped_model_output else denoised)) / sigma
        up = eta * target * math.sqrt(max(sigma**2 - target**2, 0.0)) / sigma
        x = limited + math.sqrt(max(target**2 - up**2, 0.0)) * direction
        if up > 0.0:
            x = x + up * fresh(noise, x)
        x = restated(x, target, sigmas[i + 1])
        yield Step(i, sigmas[i + 1], x, limited)
