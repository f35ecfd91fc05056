"""DPM-Solver in several steps: exponential integrators on what the network has said at the last sigmas."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array


@dataclass(frozen=True)
class Scheme:
    """What is integrated over h = log(s / s'), and how.

    `quantity(x, denoised, sigma)` is taken for a polynomial of log sigma; the weights of its value, slope and curvature are
    `gain(s')` times `value`, `slope` (alone) or `slope_of_three`, and `curvature` of z = exponent h. `keep(s, s')` of x stays
    and `spread(s, s')` of fresh noise comes.
    """

    quantity: Callable[[Array, Array, float], Array]
    exponent: float
    gain: Callable[[float], float]
    slope: Callable[[float], float]
    curvature: Callable[[float], float]
    keep: Callable[[float, float], float]
    spread: Callable[[float, float], float]

    def weights(self, sigma: float, after: float, order: int) -> list[float]:
        """Of value, slope and curvature, as many as the order says."""
        z = self.exponent * (math.log(sigma / after) if after > 0.0 else math.inf)
        of_slope = self.slope if order == 2 else slope_by_interpolation
        return [self.gain(after) * weight(z) for weight in (value, of_slope, self.curvature)[:order]]


def dpm_multistep(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, orders: Sequence[int], scheme: Scheme, noise: Stream | None
) -> Iterator[Step]:
    """Each step integrates a polynomial through the last `orders[i]` answers of the network.

    Math: x' = keep x + sum_k w_k d_k + spread noise, with d_k = h^k times the divided differences of the answers over log sigma,
    that of order 1 moved to s
    Shapes: x and the results [B,...], sigmas [n+1], orders [n] in 1..3; the last may end at sigma 0, with order 1
    Source: Lu et al. 2022 (arXiv 2206.00927, section 3.2; arXiv 2211.01095, algorithm 2), divided by sqrt(alpha)
    Traps: state-reuse
    """
    answers: list[Array] = []
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoise(x, sigma)
        after = sigmas[i + 1]
        answers = [scheme.quantity(x, denoised, sigma), *answers[:2]]
        order = min(orders[i], len(answers))
        weights = scheme.weights(sigma, after, order)
        levels = [after, sigma, *reversed(sigmas[max(i - 2, 0) : i])]
        terms = differences(answers[:order], levels)
        x = scheme.keep(sigma, after) * x + sum(w * d for w, d in zip(weights, terms, strict=True))
        spread = scheme.spread(sigma, after)
        if spread > 0.0:
            x = x + spread * fresh(noise, x)
        yield Step(i, after, x, denoised)


def differences(answers: Sequence[Array], levels: Sequence[float]) -> list[Array]:
    """Value, slope and curvature at the newest of the answers, for a step of length h in the logarithm.

    Math: m_0; h m'; h^2 m'' / 2, by divided differences
    Shapes: up to 3 answers [B,...], newest first; levels: the sigma to go to, then those of the answers
    """
    if len(answers) == 1:
        return [answers[0]]
    h, back = (math.log(levels[k + 1] / levels[k]) for k in range(2))
    newer = (h / back) * (answers[0] - answers[1])
    if len(answers) == 2:
        return [answers[0], newer]
    further = math.log(levels[3] / levels[2])
    older = (h / further) * (answers[1] - answers[2])
    bend = (newer - older) / (back + further)
    return [answers[0], newer + back * bend, h * bend]


def value(z: float) -> float:
    """1 - e^z: the whole step, if nothing changed."""
    return -math.expm1(z)


def slope_by_half(z: float) -> float:
    """Half of it, at the middle of the step ("midpoint")."""
    return -0.5 * math.expm1(z)


def slope_by_interpolation(z: float) -> float:
    """1 - (e^z - 1) / z: for a straight line ("heun")."""
    return 1.0 - math.expm1(z) / z if z else 0.0


def half_curvature(z: float) -> float:
    """1/2 - (e^z - 1 - z) / z^2: half of what a parabola needs, as the authors' and upstream's programs have it."""
    return 0.5 - (math.expm1(z) - z) / z**2 if z else 0.0


def whole_curvature(z: float) -> float:
    """What a parabola needs."""
    return 2.0 * half_curvature(z)


def misplaced_curvature(z: float) -> float:
    """`half_curvature` with the sign of 1/2 changed, as upstream has it where there is noise."""
    return half_curvature(z) - 1.0


def data(x: Array, denoised: Array, sigma: float) -> Array:
    """The denoised latent ("++")."""
    return denoised


def slope_of_flow(x: Array, denoised: Array, sigma: float) -> Array:
    """The noise that the network sees."""
    return (x - denoised) / sigma


def data_flow(slope: Callable[[float], float], curvature: Callable[[float], float]) -> Scheme:
    """DPM-Solver++: x' = (s'/s) x + (1 - s'/s) D + ..."""
    return Scheme(data, -1.0, lambda after: 1.0, slope, curvature, lambda s, after: after / s, lambda s, after: 0.0)


def noise_flow(slope: Callable[[float], float], curvature: Callable[[float], float]) -> Scheme:
    """DPM-Solver: x' = x + (s' - s) e + ..."""
    return Scheme(slope_of_flow, 1.0, lambda after: after, slope, curvature, lambda s, after: 1.0, lambda s, after: 0.0)


def data_diffusion(slope: Callable[[float], float], curvature: Callable[[float], float]) -> Scheme:
    """SDE-DPM-Solver++: x' = (s'/s)^2 x + (1 - (s'/s)^2) D + ... + s' sqrt(1 - (s'/s)^2) noise"""
    return Scheme(
        data, -2.0, lambda after: 1.0, slope, curvature, lambda s, after: (after / s) ** 2,
        lambda s, after: after * math.sqrt(1.0 - (after / s) ** 2),
    )  # fmt: skip


def noise_diffusion(slope: Callable[[float], float], curvature: Callable[[float], float]) -> Scheme:
    """SDE-DPM-Solver: x' = x + 2 (s' - s) e + ... + sqrt(s^2 - s'^2) noise"""
    return Scheme(
        slope_of_flow, 1.0, lambda after: 2.0 * after, slope, curvature, lambda s, after: 1.0,
        lambda s, after: math.sqrt(s**2 - after**2),
    )  # fmt: skip
