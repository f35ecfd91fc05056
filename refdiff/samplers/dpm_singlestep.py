"""DPM-Solver in single steps: one, two or three answers of the network carry x over their whole distance at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.dpm_multistep import Scheme
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array

Expand = Callable[[Sequence[Array], Sequence[float]], list[Array]]


def dpm_singlestep(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    orders: Sequence[int],
    scheme: Scheme,
    expand: Expand,
    noise: Stream | None,
) -> Iterator[Step]:
    """A call of order k begins again at the latent of k - 1 calls before, now with k answers.

    Math: x' = keep x_b + sum_k w_k d_k + spread noise, b the last of order 1, d_k = h^k times a polynomial's terms there
    Shapes: x and the results [B,...], sigmas [n+1], orders [n]: 1, or one more than the one before
    Source: Lu et al. 2022 (arXiv 2206.00927, algorithms 1 and 2; arXiv 2211.01095, algorithm 1), divided by sqrt(alpha)
    Traps: state-reuse
    """
    answers: list[Array] = []
    base = x
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoise(x, sigma)
        after = sigmas[i + 1]
        answers = [*answers[-2:], scheme.quantity(x, denoised, sigma)]
        order = min(orders[i], len(answers))
        base = x if order == 1 else base
        begin = sigmas[i + 1 - order]
        terms = expand(answers[-order:], [*sigmas[i + 1 - order : i + 1], after])
        weights = scheme.weights(begin, after, order)
        x = scheme.keep(begin, after) * base + sum(w * d for w, d in zip(weights, terms, strict=False))
        spread = scheme.spread(begin, after)
        if spread > 0.0:
            x = x + spread * fresh(noise, x)
        yield Step(i, after, x, denoised)


def chord(answers: Sequence[Array], levels: Sequence[float]) -> list[Array]:
    """Value at the first of the answers and slope from there to the last ("midpoint").

    Shapes: up to 3 answers [B,...]; levels: their sigmas and the one to go to
    """
    if len(answers) == 1:
        return [answers[0]]
    share = math.log(levels[0] / levels[-2]) / math.log(levels[0] / levels[-1])
    return [answers[0], (answers[-1] - answers[0]) / share]


def parabola(answers: Sequence[Array], levels: Sequence[float]) -> list[Array]:
    """Value, slope and half of the curvature at the first of the answers ("heun").  Shapes: as chord"""
    if len(answers) < 3:
        return chord(answers, levels)
    near, far = (math.log(levels[0] / level) / math.log(levels[0] / levels[-1]) for level in levels[1:3])
    to_near, to_far = (answers[1] - answers[0]) / near, (answers[2] - answers[0]) / far
    return [answers[0], (far * to_near - near * to_far) / (far - near), (to_far - to_near) / (far - near)]
