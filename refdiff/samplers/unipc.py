"""UniPC: a predictor in several steps, and a corrector of one order more that costs no further call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from refdiff.samplers.dpm_multistep import Scheme, value
from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


def unipc(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    orders: Sequence[int],
    corrected: Sequence[bool],
    scheme: Scheme,
    size: Callable[[float], float],
) -> Iterator[Step]:
    """Each answer of the network first takes the step that led to it again, then predicts the next.

    Math: x' = keep x + gain (value(z) m_0 - B(z) sum_k rho_k (m_k - m_0) / r_k), r_k = log(s_0 / s_k) / log(s_0 / s'); the
    corrector has the new answer too, with r = 1
    Shapes: x and the results [B,...], sigmas [n+1], orders [n] in 1..3, corrected [n]: whether the step before is taken again
    Source: Zhao et al. 2023 (arXiv 2302.04867), algorithms 1 and 2, divided by sqrt(alpha); `size` is B
    Traps: state-reuse
    """
    answers: list[Array] = []
    base, order = x, 1
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoise(x, sigma)
        answer = scheme.quantity(x, denoised, sigma)
        if corrected[i] and answers:
            levels = [sigmas[i - 1 - k] for k in range(order)]
            shares = [*ratios(levels, sigma), 1.0]
            rho = [0.5] if order == 1 else combined(shares, exponent_of(scheme, levels[0], sigma), size)
            x = moved(scheme, size, base, [*answers[:order], answer], (levels[0], sigma), shares, rho)
        answers = [answer, *answers[:2]]
        order = min(orders[i], len(answers))
        levels = [sigmas[i - k] for k in range(order)]
        shares = ratios(levels, sigmas[i + 1])
        rho = [0.5] if order == 2 else combined(shares, exponent_of(scheme, sigma, sigmas[i + 1]), size)
        base, x = x, moved(scheme, size, x, answers[:order], (sigma, sigmas[i + 1]), shares, rho)
        yield Step(i, sigmas[i + 1], x, denoised)


def ratios(levels: Sequence[float], after: float) -> list[float]:
    """Where the older answers are, in steps from the newest: below 0."""
    return [math.log(levels[0] / level) / math.log(levels[0] / after) for level in levels[1:]]


def exponent_of(scheme: Scheme, sigma: float, after: float) -> float:
    """z: h in the scheme's own direction."""
    return scheme.exponent * (math.log(sigma / after) if after > 0.0 else math.inf)


def combined(shares: Sequence[float], z: float, size: Callable[[float], float]) -> list[float]:
    """The weights with which answers at these places integrate every power that they can.

    Math: sum_k rho_k r_k^(i-1) = i! phi_(i+1)(z) z / B(z), phi_1 = (e^z - 1) / z, phi_(i+1) = (phi_i - 1/i!) / z, i = 1..K
    """
    right, phi = [], math.expm1(z) / z if shares else 0.0
    for i in range(1, len(shares) + 1):
        phi = (phi - 1.0 / math.factorial(i)) / z
        right.append(math.factorial(i) * phi * z / size(z))
    return np.linalg.solve(np.vander(shares, increasing=True).T, right).tolist() if shares else []


def moved(
    scheme: Scheme,
    size: Callable[[float], float],
    x: Array,
    answers: Sequence[Array],
    ends: tuple[float, float],
    shares: Sequence[float],
    rho: Sequence[float],
) -> Array:
    """x after a step between two sigmas, from the first of the answers and the differences of the others to it."""
    z = exponent_of(scheme, *ends)
    x = scheme.keep(*ends) * x + scheme.gain(ends[1]) * value(z) * answers[0]
    for weight, share, other in zip(rho, shares, answers[1:], strict=False):
        x = x - (scheme.gain(ends[1]) * size(z) * weight / share) * (other - answers[0])
    return x


def itself(z: float) -> float:
    """B of "bh1"."""
    return z


def grown(z: float) -> float:
    """B of "bh2": e^z - 1."""
    return math.expm1(z)
