"""RePaint: a part of a picture anew, and the way there more than once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array

Down = Callable[[Array, float, float], tuple[Array, Array]]  # (x, sigma, the next) -> x there, and what it was denoised to


def repaint(
    x: Array, sigmas: Sequence[float], *, betas: Sequence[Sequence[float]], down: Down, noise: Stream | None
) -> Iterator[Step]:
    """Where sigma falls, a step `down`; where it rises, noise comes back, beta by beta, to the variance-preserving latent.

    Shapes: x and the results [B,...], sigmas [n+1], betas [n,k], 0 where sigma falls
    Source: Lugmayr et al. 2022 (arXiv 2201.09865), algorithm 1
    """
    denoised = x
    for i, (sigma, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        if after < sigma:
            x, denoised = down(x, sigma, after)
        else:
            x = x / math.sqrt(1.0 + sigma**2)
            for beta in betas[i]:
                x = math.sqrt(1.0 - beta) * x + math.sqrt(beta) * fresh(noise, x)
            x = x * math.sqrt(1.0 + after**2)
        yield Step(i, after, x, denoised)


def filling(
    denoise: Denoise, *, original_image: Array, mask: Array, eta: float, limit: Callable[[Array], Array], noise: Stream | None
) -> Down:
    """DDIM's step where the mask is 0; where it is 1 the original with noise, which is the same noise.

    Math: as `ddim`, unknown = limit(D) + sqrt(s'^2 - u^2) e + u z; x' = mask (original + s' z) + (1 - mask) unknown
    Noise is drawn for a step to sigma 0 too, as upstream does, though it is not used.
    Shapes: original_image [B,...], mask the same or what goes with it
    Source: Lugmayr et al. 2022 (arXiv 2201.09865), equation 8; diffusers' scheduling_repaint.py
    """

    def down(x: Array, sigma: float, after: float) -> tuple[Array, Array]:
        denoised = denoise(x, sigma)
        direction = (x - denoised) / sigma
        denoised, drawn = limit(denoised), fresh(noise, x)
        up = eta * after * math.sqrt(sigma**2 - after**2) / sigma
        unknown = denoised + math.sqrt(after**2 - up**2) * direction + up * drawn
        return mask * (original_image + after * drawn) + (1.0 - mask) * unknown, denoised

    return down
