"""DPM-Solver in single steps: steps of orders 1 to 3, and "fast", a plan of them for a number of calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.ancestral import down_within
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array


def dpm_fast(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, calls: int, eta: float, s_noise: float, noise: Stream | None
) -> Iterator[Step]:
    """Steps of order 3, and at the end what is left of the calls, evenly in the logarithm between the sigmas' ends.

    Nothing is drawn with eta 0, nor on the last step.
    Shapes: x and the results [B,...], sigmas: the first and the last above 0 count
    Source: Lu et al. 2022 (arXiv 2206.00927), on step size schedules; k-diffusion's sampling.py, sample_dpm_fast, for eta
    """
    low = last_above_zero(sigmas)
    levels, orders = fast_plan(sigmas[0], low, calls)
    for i, (sigma, after, order) in enumerate(zip(levels[:-1], levels[1:], orders, strict=True)):
        down, up = down_within(sigma, after, low, eta=eta)
        denoised = denoise(x, sigma)
        x = STEPS[order](denoise, x, (x - denoised) / sigma, sigma, down)[0]
        if up > 0.0:
            x = x + s_noise * up * fresh(noise, x)
        yield Step(i, after, x, denoised)


def fast_plan(high: float, low: float, calls: int) -> tuple[list[float], list[int]]:
    """The sigmas, and the orders of the steps between them.

    Shapes: -> [m+1], [m], m = calls // 3 + 1
    Source: Lu et al. 2022 (arXiv 2206.00927), on step size schedules
    """
    count = calls // 3 + 1
    orders = [3] * (count - 2) + [2, 1] if calls % 3 == 0 else [3] * (count - 1) + [calls % 3]
    return [*(high * (low / high) ** (i / count) for i in range(count)), low], orders


def last_above_zero(sigmas: Sequence[float]) -> float:
    """Where a solver ends that cannot end at 0."""
    return sigmas[-1] if sigmas[-1] > 0.0 else sigmas[-2]


def euler_twice(denoise: Denoise, x: Array, slope: Array, sigma: float, after: float) -> tuple[Array, Array]:
    """Order 1, which has no worse one: x + (s' - s) e.  Shapes: as `second_and_first`"""
    x = x + (after - sigma) * slope
    return x, x


def second_and_first(denoise: Denoise, x: Array, slope: Array, sigma: float, after: float) -> tuple[Array, Array]:
    """x at s' by order 2 and by order 1, from its slope e at s and one call in the middle of the logarithms.

    Math: x + (s' - s) e_m, x + (s' - s) e
    Shapes: x and its slope [B,...] -> the same, the same
    Source: Lu et al. 2022 (arXiv 2206.00927), algorithm 1, divided by alpha
    """
    middle = math.sqrt(sigma * after)
    within = _slope(denoise, x + (middle - sigma) * slope, middle)
    return x + (after - sigma) * within, x + (after - sigma) * slope


def third_and_second(denoise: Denoise, x: Array, slope: Array, sigma: float, after: float) -> tuple[Array, Array]:
    """x at s' by order 3 and by order 2, from its slope e at s and calls at a third and at two thirds of the logarithms.

    Math: h = log(s / s'), p(z) = (e^z - 1) / z - 1; y = x + (s_1 - s) e; w = x + (s_2 - s) e - 2 s_2 p(2h/3) (e_1 - e);
    x + (s' - s) e - 3/2 s' p(h) (e_2 - e), and x + (s' - s) (e + 3/2 (e_1 - e))
    Shapes: as `second_and_first`
    Source: Lu et al. 2022 (arXiv 2206.00927), algorithm 2 with r_1 = 1/3 and r_2 = 2/3, divided by alpha
    """
    h = math.log(sigma / after)
    near, far = (sigma * math.exp(-share * h) for share in (1.0 / 3.0, 2.0 / 3.0))
    bend = _slope(denoise, x + (near - sigma) * slope, near) - slope
    trial = x + (far - sigma) * slope - 2.0 * far * _beyond(2.0 * h / 3.0) * bend
    best = x + (after - sigma) * slope - 1.5 * after * _beyond(h) * (_slope(denoise, trial, far) - slope)
    return best, x + (after - sigma) * (slope + 1.5 * bend)


STEPS = {1: euler_twice, 2: second_and_first, 3: third_and_second}


def _slope(denoise: Denoise, x: Array, sigma: float) -> Array:
    return (x - denoise(x, sigma)) / sigma


def _beyond(z: float) -> float:
    """(e^z - 1) / z - 1."""
    return math.expm1(z) / z - 1.0 if z else 0.0
