"""DPM-Solver that chooses its own steps: "DPM adaptive"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refdiff.diffusion.noise import Stream
from refdiff.errors import RefdiffError
from refdiff.samplers.ancestral import down_within
from refdiff.samplers.dpm_fast import STEPS, last_above_zero
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.xp import Array, array_module, to_host


@dataclass(frozen=True)
class Control:
    """How the length of the steps follows from their errors: by proportion, integral and derivative of the error's logarithm.

    `first` is the first length, in the logarithm of sigma; a step counts as wrong by its distance from that of the order below,
    in units of max(absolute, relative |x|), and is taken where the next would be `safety` of its length or more.
    Source: Söderlind 2003, "Digital filters in adaptive time-stepping"; k-diffusion's sampling.py, PIDStepSizeController
    """

    relative: float
    absolute: float
    first: float
    proportion: float
    integral: float
    derivative: float
    safety: float

    def factor(self, exactness: float, before: tuple[float, float], order: float) -> float:
        """What the next step's length is of this one's, from 0.21 to 2.57.

        Math: 1 + atan(g - 1), g = q^(P + I + D)/k q_^-(P + 2 D)/k q__^D/k, q = 1 / error of this and of the steps before
        """
        p, i, d = (share / order for share in (self.proportion, self.integral, self.derivative))
        grown = exactness ** (p + i + d) * before[0] ** (-p - 2.0 * d) * before[1] ** d
        return 1.0 + math.atan(grown - 1.0)

    def error(self, better: Array, worse: Array, before: Array) -> float:
        """The root of the mean square distance over the whole batch: the one number that the solver must know."""
        xp = array_module(better)
        largest = xp.maximum(xp.abs(worse), xp.abs(before)) * self.relative
        distance = (worse - better) / xp.maximum(largest, self.absolute)
        return float(to_host(xp.sqrt(xp.mean(distance * distance))))


K_DIFFUSION = Control(
    relative=0.05, absolute=0.0078, first=0.05, proportion=0.0, integral=1.0, derivative=0.0, safety=0.81
)  # fmt: skip
NEAR = 1e-5  # in the logarithm of sigma: the run has arrived
LEAST = 1e-8  # an error of 0 counts as this


def dpm_adaptive(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    order: int,
    control: Control,
    eta: float,
    s_noise: float,
    noise: Stream | None,
) -> Iterator[Step]:
    """Steps of order 2 or 3, each as long as its distance from the order below allows; one that is too long is tried again.

    How many there are depends on the data, and on all pictures of the batch; a run that begins where it ends is one that stays.
    Nothing is drawn with eta 0, nor on the last step.
    Shapes: x and the results [B,...], sigmas: the first and the last above 0 count
    Raises: RefdiffError where the network's answer is not a number
    Source: Lu et al. 2022 (arXiv 2206.00927), appendix C; k-diffusion's sampling.py, sample_dpm_adaptive
    """
    sigma, low, length, index = sigmas[0], last_above_zero(sigmas), control.first, 0
    last, earlier = x, (0.0, 0.0)
    if math.log(sigma / low) <= NEAR:
        yield Step(index, sigma, x, denoise(x, sigma))
    while math.log(sigma / low) > NEAR:
        denoised, factor = denoise(x, sigma), 0.0
        while factor < control.safety:
            after = max(low, sigma * math.exp(-length))
            down, up = down_within(sigma, after, low, eta=eta)
            better, worse = STEPS[order](denoise, x, (x - denoised) / sigma, sigma, down)
            error = control.error(better, worse, last)
            if math.isnan(error):
                raise RefdiffError(f"the network's answer at sigma {sigma:g} is not a number: no step is short enough")
            exactness = 1.0 / (error + LEAST)
            earlier = earlier if earlier[0] else (exactness, exactness)
            factor = control.factor(exactness, earlier, 1.5 if eta > 0.0 else order)
            length *= factor
        earlier, last, x, sigma = (exactness, earlier[0]), worse, better, after
        if up > 0.0:
            x = x + s_noise * up * fresh(noise, x)
        yield Step(index, sigma, x, denoised)
        index += 1
