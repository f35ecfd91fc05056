"""Every solver on Gaussian data, whose exact flow is known: errors over a ladder of steps, and moments without dice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from refdiff.diffusion.limit import unlimited
from refdiff.samplers import dpm_multistep as multistep
from refdiff.samplers import from_config
from refdiff.samplers.ddim import ddim
from refdiff.samplers.dpm2 import dpm2
from refdiff.samplers.dpm_singlestep import chord, dpm_singlestep, parabola
from refdiff.samplers.euler import euler, same_noise
from refdiff.samplers.flow import flow_euler, flow_heun
from refdiff.samplers.heun import heun
from refdiff.samplers.inversion import inversion
from refdiff.samplers.ipndm import ipndm
from refdiff.samplers.lms import lms
from refdiff.samplers.pndm import plms, prk_plms, said_noise
from refdiff.samplers.sampler import Sampler
from refdiff.samplers.step import Step
from refdiff.samplers.unipc import grown, itself, unipc
from refdiff.xp import Array

MEANS, DEVIATIONS = np.array([0.6, -0.4, 0.2]), np.array([0.4, 0.7, 1.5])  # of the data, whose parts are independent
BEGIN, END = 3.0, 0.3  # of a run, in sigma
LADDER = (24, 48, 96, 192, 384)
LEAST = 1e-12  # errors below this are rounding
FIRST = 14  # graded steps before the even ones: the shortest is 2^-14 of one of these

Solver = Callable[[Array, Sequence[float]], Iterator[Step]]


def denoiser(x: Array, sigma: float) -> Array:
    """The mean of the data that x may be of.  Math: (s^2 x + sigma^2 m) / (s^2 + sigma^2)  Shapes: [..., 3] -> [..., 3]"""
    return (DEVIATIONS**2 * x + sigma**2 * MEANS) / (DEVIATIONS**2 + sigma**2)


def pair(x: Array, sigma: float) -> tuple[Array, Array]:
    """That, and the noise that it leaves in x."""
    return denoiser(x, sigma), (x - denoiser(x, sigma)) / sigma


def exact(x: Array, sigma: float, to: float) -> Array:
    """The end of the probability flow: x - m grows as the whole deviation.  Math: dx/dsigma = (x - D) / sigma"""
    return MEANS + (x - MEANS) * np.sqrt((DEVIATIONS**2 + to**2) / (DEVIATIONS**2 + sigma**2))


def straight(x: Array, sigma: float) -> tuple[Array, Array]:
    """The denoiser and the velocity of flow matching, x = (1 - sigma) x0 + sigma noise."""
    variance = ((1 - sigma) * DEVIATIONS) ** 2 + sigma**2
    centred = x - (1 - sigma) * MEANS
    denoised = MEANS + (1 - sigma) * DEVIATIONS**2 / variance * centred
    return denoised, sigma / variance * centred - denoised


def exact_straight(x: Array, sigma: float, to: float) -> Array:
    """The end of its flow."""
    first, last = (np.sqrt(((1 - s) * DEVIATIONS) ** 2 + s**2) for s in (sigma, to))
    return (1 - to) * MEANS + (x - (1 - sigma) * MEANS) * last / first


def even(begin: float, end: float, n: int) -> list[float]:
    """Even steps in sigma.  Shapes: -> [n+1]"""
    return np.linspace(begin, end, n + 1).tolist()


def even_in_log(begin: float, end: float, n: int) -> list[float]:
    """Even steps in the logarithm of sigma, which is that of the signal-to-noise ratio.  Shapes: -> [n+1]"""
    return np.geomspace(begin, end, n + 1).tolist()


def graded(spaced: Callable[[float, float, int], list[float]], begin: float, end: float, n: int) -> list[float]:
    """The same with steps in the first of them, each as long as all before it: what a solver begins with, which is of lower
    order, is then so short that it does not matter.  Shapes: -> [n + 1 + FIRST]
    """
    levels = spaced(begin, end, n)
    return [begin, *(spaced(begin, levels[1], 2**k)[1] for k in range(FIRST, 0, -1)), *levels[1:]]


@dataclass(frozen=True)
class Rung:
    """A solver, the order that its name says and the one that its formula has, its sigmas, and the exact flow."""

    name: str
    said: int
    order: int
    solver: Solver
    levels: Callable[[float, float, int], list[float]]
    why: str = ""
    flow: Callable[[Array, float, float], Array] = exact
    ends: tuple[float, float] = (BEGIN, END)

    def errors(self, ladder: Sequence[int]) -> list[float]:
        """The root mean square error at the end, for each count of steps."""
        begin, end = self.ends
        x = MEANS + np.linspace(-2.0, 2.0, 5)[:, None] * np.sqrt(DEVIATIONS**2 + begin**2)
        wanted = self.flow(x, begin, end)
        found = [list(self.solver(x, self.levels(begin, end, n)))[-1].x for n in ladder]
        return [float(np.sqrt(np.mean((end - wanted) ** 2))) for end in found]


def slope(ladder: Sequence[int], errors: Sequence[float]) -> float:
    """Of -log error over log n, by least squares through the last three above rounding."""
    kept = [(math.log(n), -math.log(e)) for n, e in zip(ladder, errors, strict=True) if e > LEAST][-3:]
    return float(np.polyfit(*zip(*kept, strict=True), 1)[0])


def rising(n: int, order: int) -> list[int]:
    """1, 2, ... up to the order."""
    return np.minimum(np.arange(1, n + 1), order).tolist()


def multi(form: Any, of_slope: Any, curvature: Any, order: int) -> Solver:
    """DPM-Solver in several steps."""
    scheme = form(of_slope, curvature)
    return lambda x, s: multistep.dpm_multistep(
        denoiser, x, s, orders=rising(len(s) - 1, order), scheme=scheme, noise=None
    )  # fmt: skip


def single(form: Any, of_slope: Any, expand: Any, order: int) -> Solver:
    """DPM-Solver in single steps, of `order` calls each."""
    scheme = form(of_slope, WHOLE)

    def run(x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
        orders = (np.arange(len(sigmas) - 1) % order + 1).tolist()
        return dpm_singlestep(denoiser, x, sigmas, orders=orders, scheme=scheme, expand=expand, noise=None)

    return run


def predictor(form: Any, size: Any, order: int, corrected: bool) -> Solver:
    """UniP, or with its corrector UniPC."""
    scheme = form(HALF, PART)

    def run(x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
        n = len(sigmas) - 1
        return unipc(denoiser, x, sigmas, orders=rising(n, order), corrected=[corrected] * n, scheme=scheme, size=size)

    return run


def middles_of(sigmas: Sequence[float], mean: Callable[[float, float], float]) -> list[float]:
    """One between each two."""
    return [mean(a, b) for a, b in zip(sigmas[:-1], sigmas[1:], strict=True)]


def midpoint(a: float, b: float) -> float:
    """Of even sigmas."""
    return (a + b) / 2


def geometric(a: float, b: float) -> float:
    """Of even logarithms."""
    return math.sqrt(a * b)


def by_runge_kutta(x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
    """PNDM with its own start."""
    middles = middles_of(sigmas, midpoint)
    return prk_plms(pair, x, sigmas, targets=sigmas[1:], halves=middles, middles=middles, noise_of=said_noise)


def by_a_trial(x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
    """PNDM as Stable Diffusion has it."""
    return plms(pair, x, sigmas, targets=sigmas[1:], restarts=sigmas[:-1], noise_of=said_noise)


NO_ETA = {"eta": 0.0, "use_clipped_model_output": False, "noise": None}
NO_CHURN = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0, "noise": None}
DATA, NOISE = multistep.data_flow, multistep.noise_flow
HALF, LINE = multistep.slope_by_half, multistep.slope_by_interpolation
PART, WHOLE = multistep.half_curvature, multistep.whole_curvature
EVEN, LOG = partial(graded, even), partial(graded, even_in_log)
UNEVEN = "its weights are for even steps in sigma, which no schedule has"
HALVED = "the weight of its curvature is half of a parabola's"
ONE_MORE = "the corrector adds one"


def first_orders() -> list[Rung]:
    """Solvers without a history."""
    return [
        Rung("Euler", 1, 1, lambda x, s: euler(denoiser, x, s, raised=s[:-1], s_noise=1.0, again=same_noise, noise=None), even),
        Rung("DDIM", 1, 1, lambda x, s: ddim(denoiser, x, s, targets=s[1:], limit=unlimited, **NO_ETA), even_in_log),
        Rung(
            "DDIM inversion", 1, 1, lambda x, s: inversion(pair, x, s, targets=s[1:]), even_in_log, ends=(END, BEGIN),
            why="asks the network at the end of a step",
        ),
        Rung("Heun", 2, 2, lambda x, s: heun(denoiser, x, s), even),
        Rung("DPM2", 2, 2, lambda x, s: dpm2(denoiser, x, s, middles=middles_of(s, geometric)), even_in_log),
        Rung("flow Euler", 1, 1, lambda x, s: flow_euler(straight, x, s), even, flow=exact_straight, ends=(0.9, 0.1)),
        Rung(
            "flow Heun", 2, 2, lambda x, s: flow_heun(straight, x, s, **NO_CHURN), even, flow=exact_straight, ends=(0.9, 0.1)
        ),
    ]  # fmt: skip


def histories() -> list[Rung]:
    """Linear multistep methods."""
    return [
        *(Rung(f"LMS {k}", k, k, lambda x, s, k=k: lms(denoiser, x, s, order=k), EVEN) for k in (1, 2, 3, 4)),
        Rung(
            "LMS 4, all steps even", 4, 2, lambda x, s: lms(denoiser, x, s, order=4), even,
            why="its first step is Euler's: one error of second order",
        ),
        Rung("iPNDM", 4, 2, lambda x, s: ipndm(denoiser, x, s), even, why="its first step is Euler's: one error of second order"),
        Rung("PNDM, steps even in sigma", 4, 3, by_a_trial, even, ends=(0.6, 0.3), why="its second step is of order 2"),
        Rung("PNDM, Runge-Kutta start, steps even in sigma", 4, 4, by_runge_kutta, even),
        Rung("PNDM, steps even in log sigma", 4, 2, by_a_trial, even_in_log, why=UNEVEN),
        Rung("PNDM, Runge-Kutta start, steps even in log sigma", 4, 2, lambda x, s: prk_plms(
            pair, x, s, targets=s[1:], halves=middles_of(s, geometric), middles=middles_of(s, geometric), noise_of=said_noise,
        ), even_in_log, why=UNEVEN),
    ]  # fmt: skip


def edm() -> list[Rung]:
    """EDM's schedulers, along their own ramp; the last step of it stays where it is."""
    found = []
    for name, order, true, options in (
        ("EDM Euler", 1, 1, {"_class_name": "EDMEulerScheduler"}),
        ("EDM DPM-Solver++ 2", 2, 2, {"_class_name": "EDMDPMSolverMultistepScheduler"}),
        ("EDM DPM-Solver++ 3", 3, 2, {"_class_name": "EDMDPMSolverMultistepScheduler", "solver_order": 3}),
    ):
        sampler = from_config({**options, "final_sigmas_type": "sigma_min"}, table="float64")
        config = {**sampler.config, **sampler.settings}

        def levels(begin: float, end: float, n: int, sampler: Sampler = sampler) -> list[float]:
            return sampler.sigmas(n + 1).tolist()

        def run(x: Array, s: Sequence[float], sampler: Sampler = sampler, config: Any = config) -> Iterator[Step]:
            grid = sampler.family.grid(config, sampler.alphas, len(s) - 1)
            policy = {key: values.tolist() for key, values in grid.policy.items()}
            settings = {key: value for key, value in sampler.settings.items() if key not in sampler.family.planning}
            given = {**policy, **sampler.family.constants(config), **settings}
            return sampler.family.solve(denoiser, x, s, **given, **({"noise": None} if sampler.family.stochastic else {}))

        found.append(Rung(name, order, true, run, levels, ends=(80.0, 0.002), why=HALVED if true < order else ""))
    return found


def exponentials() -> list[Rung]:
    """DPM-Solver, DEIS and UniPC."""
    found = []
    for form, sign in ((DATA, "++"), (NOISE, "")):
        name = f"DPM-Solver{sign}"
        found += [
            Rung(f"{name} 1", 1, 1, multi(form, HALF, PART, 1), LOG),
            Rung(f"{name} 2 midpoint, several steps", 2, 2, multi(form, HALF, PART, 2), LOG),
            Rung(f"{name} 2 heun, several steps", 2, 2, multi(form, LINE, PART, 2), LOG),
            Rung(f"{name} 3, several steps", 3, 2, multi(form, LINE, PART, 3), LOG, why=HALVED),
            Rung(f"{name} 3, several steps, whole curvature", 3, 3, multi(form, LINE, WHOLE, 3), LOG),
            Rung(f"{name} 2 midpoint, single steps", 2, 2, single(form, HALF, chord, 2), even_in_log),
            Rung(f"{name} 2 heun, single steps", 2, 2, single(form, LINE, parabola, 2), even_in_log),
            Rung(f"{name} 3 midpoint, single steps", 3, 3, single(form, HALF, chord, 3), even_in_log),
            Rung(f"{name} 3 heun, single steps", 3, 3, single(form, LINE, parabola, 3), even_in_log),
        ]
    upwards = Rung("DPM-Solver++ 2, inversion", 2, 2, multi(DATA, HALF, PART, 2), LOG, ends=(END, BEGIN))
    deis = [Rung(f"DEIS {k}", k, k, multi(NOISE, LINE, WHOLE, k), LOG) for k in (1, 2, 3)]
    return [*found, upwards, *deis]


def correctors() -> list[Rung]:
    """UniPC."""
    found = []
    for order in (1, 2, 3):
        for size, kind in ((itself, "bh1"), (grown, "bh2")):
            found += [
                Rung(f"UniPC {order} {kind}", order, order + 1, predictor(DATA, size, order, True), LOG, why=ONE_MORE),
                Rung(f"UniPC {order} {kind}, no corrector", order, order, predictor(DATA, size, order, False), LOG),
                Rung(f"UniPC {order} {kind}, of noise", order, order + 1, predictor(NOISE, size, order, True), LOG, why=ONE_MORE),
            ]
    return found


RUNGS = [*first_orders(), *histories(), *exponentials(), *correctors(), *edm()]
