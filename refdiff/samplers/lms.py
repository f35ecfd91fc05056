"""A linear multistep method with weights for the noise levels as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


def lms(denoise: Denoise, x: Array, sigmas: Sequence[float], *, order: int) -> Iterator[Step]:
    """Each step follows the polynomial through the last slopes, `order` of them at most.

    Math: x' = x + sum_k w_k e_k, e = (x - denoise(x, s)) / s, w of `weights`
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Adams and Bashforth's method for uneven steps; k-diffusion's sampling.py, sample_lms
    Traps: state-reuse
    """
    slopes: list[Array] = []
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoise(x, sigma)
        slopes = [(x - denoised) / sigma, *slopes[: order - 1]]
        known = [sigmas[i - k] for k in range(len(slopes))]
        x = x + sum(w * e for w, e in zip(weights(known, sigma, sigmas[i + 1]), slopes, strict=True))
        yield Step(i, sigmas[i + 1], x, denoised)


def weights(known: Sequence[float], begin: float, end: float) -> list[float]:
    """The integral from begin to end of the polynomial that is 1 at one of the known sigmas and 0 at the others, for each.

    Math: w_k = int prod_{j != k} (s - s_j) / (s_k - s_j) ds, by Gauss and Legendre's rule, exact for it
    Shapes: [k] -> [k]
    """
    nodes, shares = np.polynomial.legendre.leggauss((len(known) + 1) // 2)
    at = 0.5 * (end - begin) * nodes + 0.5 * (end + begin)
    found = []
    for k, own in enumerate(known):
        basis = np.prod([(at - other) / (own - other) for j, other in enumerate(known) if j != k], axis=0)
        found.append(float(0.5 * (end - begin) * np.sum(shares * basis)))
    return found
