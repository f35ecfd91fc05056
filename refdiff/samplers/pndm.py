"""PNDM: a linear multistep method (PLMS), begun with a trial step or with Runge and Kutta's method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from refdiff.samplers.step import Predict, Step, restated
from refdiff.xp import Array

# Adams and Bashforth's weights for the newest prediction, the one before, ...
WEIGHTS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))

NoiseOf = Callable[[Array, Array, float], Array]  # (x, a prediction or a mean of some, sigma) -> the noise in x


def plms(
    predict: Predict,
    x: Array,
    sigmas: Sequence[float],
    *,
    targets: Sequence[float],
    restarts: Sequence[float],
    noise_of: NoiseOf,
) -> Iterator[Step]:
    """Each step follows a weighted mean of the last four predictions; the first is taken twice, with the mean of both ends.

    Math: x' = x + (s' - s) noise_of(x, sum_k w_k p_k, s)
    Shapes: x and the results [B,...], sigmas [n+1], targets [n] as in ddim, restarts [n]: a first step begins again there
    Source: Liu et al. 2022 (arXiv 2202.09778), equations 9 and 12; the start as in diffusers' scheduling_pndm.py
    Traps: pndm-dup, state-reuse
    """
    history: list[Array] = []
    for i, (sigma, target) in enumerate(zip(sigmas, targets, strict=False)):
        denoised, said = predict(x, sigma)
        history = [said, *history[:3]]
        said = weighted(history)
        if i == 0 and len(sigmas) > 2:
            trial = restated(x + (target - sigma) * noise_of(x, said, sigma), target, sigmas[1])
            denoised, again = predict(trial, sigmas[1])
            said = 0.5 * (said + again)
            x = restated(x, sigma, restarts[0])
            sigma, target = restarts[0], sigmas[1]
        x = restated(x + (target - sigma) * noise_of(x, said, sigma), target, sigmas[i + 1])
        yield Step(i, sigmas[i + 1], x, denoised)


def prk_plms(
    predict: Predict,
    x: Array,
    sigmas: Sequence[float],
    *,
    targets: Sequence[float],
    halves: Sequence[float],
    middles: Sequence[float],
    noise_of: NoiseOf,
) -> Iterator[Step]:
    """The first three steps are Runge and Kutta's of order 4, with four calls each; the others follow the mean as in `plms`.

    Half a step ends at `halves[i]`, and the network is asked at `middles[i]`, which is the same level but for rounded times.
    Shapes: x and the results [B,...], sigmas [n+1], targets [n] as in ddim, halves and middles [n]
    Source: Liu et al. 2022 (arXiv 2202.09778), equations 9, 12, 13 and algorithm 2
    Traps: state-reuse
    """
    history: list[Array] = []
    for i, (sigma, target) in enumerate(zip(sigmas, targets, strict=False)):
        denoised, said = predict(x, sigma)
        history = [said, *history[:3]]
        if len(history) < 4 and i + 2 < len(sigmas):
            half, middle, target = halves[i], middles[i], sigmas[i + 1]
            trial = restated(x + (half - sigma) * noise_of(x, said, sigma), half, middle)
            second = predict(trial, middle)[1]
            third = predict(x + (middle - sigma) * noise_of(x, second, sigma), middle)[1]
            fourth = predict(x + (target - sigma) * noise_of(x, third, sigma), target)[1]
            said = (said + 2.0 * second + 2.0 * third + fourth) / 6.0
        else:
            said = weighted(history)
        x = restated(x + (target - sigma) * noise_of(x, said, sigma), target, sigmas[i + 1])
        yield Step(i, sigmas[i + 1], x, denoised)


def weighted(history: Sequence[Array]) -> Array:
    """The mean of up to four predictions, newest first, that Adams and Bashforth extrapolate.  Shapes: k of [B,...] -> [B,...]"""
    return sum(w * e for w, e in zip(WEIGHTS[len(history) - 1], history, strict=True))


def said_noise(x: Array, epsilon: Array, sigma: float) -> Array:
    """The prediction itself, for a network that predicts noise."""
    return epsilon
