"""Mean and variance of what the stochastic solvers make of Gaussian data: exactly, by the answer to every single draw.

With the exact denoiser of Gaussian data a run is affine in its first latent and in its noise. So one run, whose rows are the
answers to one draw each, tells mean and variance without any dice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.diffusion.limit import unlimited
from refdiff.samplers import dpm_multistep as multistep
from refdiff.samplers.ddim import ddim
from refdiff.samplers.ddpm import ddpm, largest, smallest
from refdiff.samplers.dpm2 import dpm2_ancestral
from refdiff.samplers.dpm_singlestep import chord, dpm_singlestep
from refdiff.samplers.euler import euler, same_noise
from refdiff.samplers.euler_ancestral import euler_ancestral
from refdiff.samplers.flow import flow_again, flow_heun
from refdiff.samplers.grids import churned
from refdiff.samplers.grids_k import split
from refdiff.samplers.lcm import consistency, lcm, tcd
from refdiff.samplers.step import Step
from refdiff.xp import Array
from tests.samplers.ladder import (
    BEGIN,
    DEVIATIONS,
    END,
    HALF,
    LINE,
    MEANS,
    PART,
    denoiser,
    even_in_log,
    exact,
    exact_straight,
    rising,
    straight,
)

Noisy = Callable[[Array, Sequence[float], Any], Iterator[Step]]
LADDER = (48, 96, 192, 384)


class Answers:
    """A stream whose k-th draw is 1 in row k + 1 and 0 in all others."""

    def __init__(self) -> None:
        self.drawn = 0

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next draw."""
        self.drawn += 1
        found = np.zeros(shape)
        found[self.drawn] = 1.0
        return found


@dataclass(frozen=True)
class Chance:
    """A stochastic solver, the order in which its variance goes to the data's (None: it is exact, 0: it does not), and the
    draws of a step.
    """

    name: str
    order: int | None
    solver: Noisy
    draws: int = 1
    straight: bool = False  # whether the data are on flow matching's path
    low: float = END  # the last sigma

    def moments(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the end of n steps, each with what it should be taken off.  Shapes: -> [3], [3]"""
        sigmas = even_in_log(0.95, 0.1, n) if self.straight else even_in_log(BEGIN, self.low, n)
        (first, wide), (last, wanted) = (self.marginal(s) for s in (sigmas[0], sigmas[-1]))
        x = np.tile(first, (self.draws * n + 2, 1))
        x[0] += wide
        noise = Answers()
        end = list(self.solver(x, sigmas, noise))[-1].x
        assert noise.drawn + 1 < len(x)  # the last row heard no noise
        return end[-1] - last, np.sqrt(np.sum((end[:-1] - end[-1]) ** 2, axis=0)) / wanted - 1.0

    def marginal(self, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the noisy data."""
        if self.straight:
            return (1 - sigma) * MEANS, np.sqrt(((1 - sigma) * DEVIATIONS) ** 2 + sigma**2)
        return MEANS, np.sqrt(DEVIATIONS**2 + sigma**2)

    def errors(self, ladder: Sequence[int]) -> list[float]:
        """The largest relative error of the deviation, for each count of steps."""
        return [float(np.max(np.abs(self.moments(n)[1]))) for n in ladder]


def by_ddpm(deviation: Any) -> Noisy:
    """DDPM, its variances in variance-preserving form."""

    def run(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
        signal = 1.0 / (1.0 + np.square(sigmas))
        large = 1.0 - signal[:-1] / signal[1:]
        small = (1.0 - signal[1:]) / (1.0 - signal[:-1]) * large
        given = {"small": small.tolist(), "large": large.tolist(), "random": [True] * len(large)}
        return ddpm(lambda x, s: (denoiser(x, s), None), x, sigmas, **given, deviation=deviation, noise=noise)

    return run


def by_diffusion(form: Any, slope: Any, order: int) -> Noisy:
    """SDE-DPM-Solver in several steps."""
    scheme = form(slope, PART)
    return lambda x, s, noise: multistep.dpm_multistep(
        denoiser, x, s, orders=rising(len(s) - 1, order), scheme=scheme, noise=noise
    )  # fmt: skip


def in_single_steps(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """SDE-DPM-Solver++ 2 in single steps."""
    orders = (np.arange(len(sigmas) - 1) % 2 + 1).tolist()
    scheme = multistep.data_diffusion(HALF, PART)
    return dpm_singlestep(denoiser, x, sigmas, orders=orders, scheme=scheme, expand=chord, noise=noise)


def ancestral(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """Euler ancestral."""
    downs, ups = (values.tolist() for values in split(np.array(sigmas)))
    return euler_ancestral(denoiser, x, sigmas, downs=downs, ups=ups, s_noise=1.0, noise=noise)


def through_the_middle(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """DPM2 ancestral."""
    downs, ups = (values.tolist() for values in split(np.array(sigmas)))
    middles = [math.sqrt(s * d) for s, d in zip(sigmas, downs, strict=False)]
    return dpm2_ancestral(denoiser, x, sigmas, middles=middles, downs=downs, ups=ups, s_noise=1.0, noise=noise)


def shortened(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """TCD with the exact end of the flow from each sigma to its target."""
    targets = [0.7 * s for s in sigmas[1:]]
    goes = dict(zip(sigmas, targets, strict=False))
    return tcd(lambda x, s: (exact(x, s, goes[s]), 0.0), x, sigmas, targets=targets, eta=0.3, noise=noise)


def to_the_data(x: Array, sigma: float) -> Array:
    """The exact consistency function."""
    return exact(x, sigma, 0.0)


def by_lcm(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """LCM with the exact consistency function."""
    n = len(sigmas) - 1
    return lcm(to_the_data, x, sigmas, taken=[1.0] * n, kept=[0.0] * n, noise=noise)


def by_flow(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """Flow matching's LCM with the exact consistency function."""
    return flow_again(lambda x, s: exact_straight(x, s, 0.0), x, sigmas, noise=noise)


CHURN = {"s_churn": 4.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0}


def churning(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """Euler as diffusers churns for a network that predicts noise."""
    return euler(
        denoiser,
        x,
        sigmas,
        raised=churned(CHURN, np.array(sigmas)).tolist(),
        s_noise=1.0,
        again=same_noise,
        noise=noise,
    )


DATA, NOISE = multistep.data_diffusion, multistep.noise_diffusion
CHANCES = [
    Chance("DDPM, fixed_small", 1, by_ddpm(smallest)),
    Chance("DDPM, fixed_large", 1, by_ddpm(largest)),
    *(
        Chance(f"DDIM, eta {eta}", 1, lambda x, s, noise, eta=eta: ddim(
            denoiser, x, s, targets=s[1:], limit=unlimited, eta=eta, use_clipped_model_output=False, noise=noise
        )) for eta in (0.5, 1.0)
    ),
    Chance("Euler with churn", 1, churning),
    Chance("Euler ancestral", 1, ancestral),
    Chance("DPM2 ancestral", 2, through_the_middle),
    Chance("SDE-DPM-Solver++ 1", 1, by_diffusion(DATA, HALF, 1)),
    Chance("SDE-DPM-Solver++ 2 midpoint, several steps", 2, by_diffusion(DATA, HALF, 2)),
    Chance("SDE-DPM-Solver++ 2 heun, several steps", 2, by_diffusion(DATA, LINE, 2)),
    Chance("SDE-DPM-Solver++ 2, single steps", 1, in_single_steps),
    Chance("SDE-DPM-Solver 1", 1, by_diffusion(NOISE, HALF, 1)),
    Chance("SDE-DPM-Solver 2 midpoint, several steps", 2, by_diffusion(NOISE, HALF, 2)),
    Chance("SDE-DPM-Solver 2 heun, several steps", 2, by_diffusion(NOISE, LINE, 2)),
    Chance("flow Heun with churn", 0, lambda x, s, noise: flow_heun(straight, x, s, **CHURN, noise=noise), 2, True),
    Chance("LCM", None, by_lcm),
    Chance("TCD, eta 0.3", None, shortened),
    Chance("consistency model", None, lambda x, s, noise: consistency(to_the_data, x, s, up=s[1:], noise=noise)),
    Chance("flow LCM", None, by_flow, 1, True),
    Chance("flow LCM with a denoiser", 0, lambda x, s, noise: flow_again(
        lambda x, s: straight(x, s)[0], x, s, noise=noise
    ), 1, True),
]  # fmt: skip
