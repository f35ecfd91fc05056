"""SA-Solver: Adams's methods, predictor and corrector, for the diffusion with as much noise as one likes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array

NODES, SHARES = np.polynomial.legendre.leggauss(32)


@dataclass(frozen=True)
class Adams:
    """What is integrated over l = -log s, for the noise tau; k = 1 + tau^2.

    `quantity(x, denoised, sigma)` is taken for a polynomial of l; `gain(s', k)` times its integral with exp(rate(k) (l' - l))
    comes to `keep(s, s', k)` of x, `spread(s, s', tau)` of fresh noise, and `more(h, k)` of the last slope where the order is 2.
    """

    quantity: Callable[[Array, Array, float], Array]
    rate: Callable[[float], float]
    gain: Callable[[float, float], float]
    keep: Callable[[float, float, float], float]
    spread: Callable[[float, float, float], float]
    more: Callable[[float, float], float]

    def moved(self, x: Array, answers: Sequence[Array], levels: Sequence[float], ends: tuple[float, float], tau: float) -> Array:
        """x after a step between two sigmas, but for the noise, from the answers at these levels, newest first."""
        (begin, end), k = ends, 1.0 + tau**2
        weights = [self.gain(end, k) * w for w in integrals(levels, begin, end, self.rate(k))]
        if len(levels) == 2:
            more = self.more(math.log(begin / end), k) / math.log(levels[1] / levels[0])
            weights = [weights[0] + more, weights[1] - more]
        return self.keep(begin, end, k) * x + sum(w * answer for w, answer in zip(weights, answers, strict=False))


def sa_solver(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    orders: Sequence[int],
    corrections: Sequence[int],
    taus: Sequence[float],
    scheme: Adams,
    noise: Stream | None,
) -> Iterator[Step]:
    """Each answer of the network first takes the step that led to it again, with its noise, then predicts the next.

    Math: x' = keep x + gain sum_i m_i int exp(rate (l' - l)) L_i(l) dl + spread z, L_i Lagrange's polynomials of the last
    `orders[i]` answers; the corrector's of the new one and `corrections[i] - 1` before it
    Noise is drawn for every step of a run that has noise anywhere, as upstream does.
    Shapes: x and the results [B,...], sigmas [n+1], orders and corrections [n] in 1..4, taus [n]
    Source: Xue et al. 2023 (arXiv 2309.05019), algorithm 1, divided by sqrt(alpha)
    Traps: state-reuse
    """
    answers: list[Array] = []
    base, noisy, move = x, max(taus) > 0.0, 0.0 * x
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoise(x, sigma)
        answers = [scheme.quantity(x, denoised, sigma), *answers[:3]]
        if i > 0:
            levels = [sigmas[i - k] for k in range(corrections[i])]
            x = scheme.moved(base, answers, levels, (sigmas[i - 1], sigma), taus[i - 1]) + move
        after, base = sigmas[i + 1], x
        move = scheme.spread(sigma, after, taus[i]) * fresh(noise, x) if noisy else move
        x = scheme.moved(x, answers, [sigmas[i - k] for k in range(min(orders[i], i + 1))], (sigma, after), taus[i]) + move
        yield Step(i, after, x, denoised)


def integrals(levels: Sequence[float], begin: float, end: float, rate: float) -> list[float]:
    """The integral, over the way from begin to end, of exp(rate (l' - l)) and the polynomial that is 1 at one of the levels and 0
    at the others, for each.

    Math: int exp(rate (l' - l)) prod_{j != i} (l - l_j) / (l_i - l_j) dl, by Gauss and Legendre's rule
    Shapes: [k] -> [k]
    """
    h, logs = math.log(begin / end), [math.log(begin / level) for level in levels]
    at = 0.5 * h * (1.0 + NODES)
    kernel = 0.5 * h * SHARES * np.exp(rate * (h - at))
    found = []
    for own in logs:
        basis = np.prod([np.ones_like(at), *((at - other) / (own - other) for other in logs if other != own)], axis=0)
        found.append(float(np.sum(kernel * basis)))
    return found


def bent(h: float, k: float) -> float:
    """k (h^2 / 2 - (k h - 1 + e^(-k h)) / k^2): of third order, for few steps."""
    return k * h**2 / 2.0 - (k * h + math.expm1(-k * h)) / k


DATA = Adams(
    lambda x, denoised, sigma: denoised, lambda k: -k, lambda after, k: k, lambda s, after, k: (after / s) ** k,
    lambda s, after, tau: after * math.sqrt(1.0 - (after / s) ** (2.0 * tau**2)), bent,
)  # fmt: skip
NOISE = Adams(
    lambda x, denoised, sigma: (x - denoised) / sigma, lambda k: 1.0, lambda after, k: -k * after, lambda s, after, k: 1.0,
    lambda s, after, tau: tau * math.sqrt(s**2 - after**2), lambda h, k: 0.0,
)  # fmt: skip
