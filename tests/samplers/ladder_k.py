"""The solvers of k-diffusion's names, as they are registered, on Gaussian data: their orders, and the moments of the noisy ones.

And of further families whose noise is not drawn once a step: DPM-Solver SDE, SA-Solver, the variance-exploding SDE, RePaint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from refdiff.diffusion import ramps
from refdiff.samplers.dpm_adaptive import K_DIFFUSION, dpm_adaptive
from refdiff.samplers.grids_score import jumping
from refdiff.samplers.restart import webui_plan
from refdiff.samplers.sa_solver import DATA
from refdiff.samplers.schedulers import FAMILIES
from refdiff.samplers.schedulers.k_diffusion import ancestral, ancestral_midpoint, lowest
from refdiff.samplers.step import Step
from refdiff.xp import Array
from tests.samplers.ladder import EVEN, LOG, Rung, denoiser, even, even_in_log, rising
from tests.samplers.moments import Chance, Noisy

POLICIES = {
    "k_euler_ancestral": ancestral, "k_dpmpp_2s_ancestral": ancestral, "k_dpm_2_ancestral": ancestral_midpoint,
    "k_dpm_fast": lowest,
}  # fmt: skip


def registered(name: str, **chosen: Any) -> Noisy:
    """A family's solver with its own settings and options but for those chosen, by the sigmas given."""
    family = FAMILIES[name]

    def run(x: Array, sigmas: Sequence[float], noise: Any = None) -> Iterator[Step]:
        settings = {**family.settings, **{key: value for key, value in chosen.items() if key in family.settings}}
        options = {**family.defaults, **settings, **chosen}
        policy = POLICIES[name](options, np.array(sigmas)) if name in POLICIES else {}
        given: dict[str, Any] = {key: values.tolist() for key, values in policy.items()}
        given.update({key: value for key, value in settings.items() if key not in family.planning})
        given.update({"noise": noise} if family.stochastic else {})
        return family.solve(denoiser, x, sigmas, **given, **family.constants(options))

    return run


def as_many_calls(more: int) -> Noisy:
    """DPM fast with the share of fresh noise 0 and as many calls as steps, `more` of them after the last three."""
    whole = registered("k_dpm_fast")
    return lambda x, sigmas: whole(x, even_in_log(sigmas[0], sigmas[-1], len(sigmas) - 1 + more))


def by_tolerance(x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
    """DPM adaptive with a tolerance by which there are about as many steps as there are sigmas."""
    tolerance = (0.5 / len(sigmas)) ** 3
    control = replace(K_DIFFUSION, relative=tolerance, absolute=tolerance)
    return dpm_adaptive(denoiser, x, [sigmas[0], sigmas[-1]], order=3, control=control, eta=0.0, s_noise=1.0, noise=None)


def restarting(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """Restart as AUTOMATIC1111 plans it, but for its last step, to 0."""
    levels = ramps.karras(len(sigmas) - 1, low=sigmas[-1], high=sigmas[0], rho=7.0).tolist()
    ends, begins = webui_plan([*levels, 0.0])
    return FAMILIES["k_restart"].solve(denoiser, x, ends[:-1], begins=begins[:-1], s_noise=1.0, noise=noise)


def with_noise_everywhere(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """SA-Solver as its family has it by default, with tau 1 everywhere."""
    orders, taus = rising(len(sigmas) - 1, 2), [1.0] * (len(sigmas) - 1)
    solve = FAMILIES["sa_solver"].solve
    return solve(denoiser, x, sigmas, orders=orders, corrections=orders, taus=taus, scheme=DATA, noise=noise)


def scored(x: Array, sigma: float) -> tuple[Array, Array]:
    """The denoised latent and the score."""
    denoised = denoiser(x, sigma)
    return denoised, (denoised - x) / sigma**2


def exploding(x: Array, sigmas: Sequence[float], noise: Any, *, correct_steps: int) -> Iterator[Step]:
    """The variance-exploding SDE with so many corrections at every level."""
    widths = [math.sqrt(a * a - b * b) for a, b in pairwise(sigmas)]
    solve, more = FAMILIES["score_sde_ve"].solve, {"snr": 0.15, "correct_steps": correct_steps}
    return solve(scored, x, sigmas, widths=widths, noise=noise, **more)


def back_and_forth(x: Array, sigmas: Sequence[float], noise: Any) -> Iterator[Step]:
    """RePaint where nothing is known of the picture, with two ways back up from each quarter."""
    family, n = FAMILIES["repaint"], len(sigmas) - 1
    levels = [sigmas[0], *(sigmas[n - place] for place in jumping(n, n // 4, 3))]
    betas = [[max(0.0, 1.0 - (1.0 + a * a) / (1.0 + b * b))] for a, b in pairwise(levels)]
    constants = family.constants({**family.defaults, "clip_sample": False})
    return family.solve(denoiser, x, levels, betas=betas, original_image=0.0, mask=0.0, noise=noise, **constants)


RUNGS = [
    Rung("k_euler", 1, 1, registered("k_euler"), even),
    Rung("k_heun", 2, 2, registered("k_heun"), even),
    Rung("k_dpm_2", 2, 2, registered("k_dpm_2"), even_in_log),
    Rung("k_lms", 4, 4, registered("k_lms"), EVEN),
    Rung("k_dpmpp_2m", 2, 2, registered("k_dpmpp_2m"), LOG),
    Rung("k_dpm_fast, 3k steps", 3, 2, as_many_calls(0), even_in_log, why="its last step is Euler's"),
    Rung("k_dpm_fast, 3k + 1 steps", 3, 2, as_many_calls(1), even_in_log, why="its last step is Euler's"),
    Rung("k_dpm_fast, 3k + 2 steps", 3, 3, as_many_calls(2), even_in_log),
    Rung("k_dpm_adaptive", 3, 3, by_tolerance, even_in_log),
]

CHANCES = [
    Chance("k_euler_ancestral", 1, registered("k_euler_ancestral")),
    Chance("k_dpm_2_ancestral", 2, registered("k_dpm_2_ancestral")),
    Chance("k_dpmpp_2s_ancestral", 2, registered("k_dpmpp_2s_ancestral")),
    Chance("k_dpmpp_sde", 2, registered("k_dpmpp_sde"), 2),
    Chance("k_dpmpp_2m_sde", 2, registered("k_dpmpp_2m_sde", slope="midpoint")),
    Chance("k_dpmpp_2m_sde heun", 2, registered("k_dpmpp_2m_sde", slope="heun")),
    Chance("k_dpmpp_3m_sde", 2, registered("k_dpmpp_3m_sde")),
    Chance("k_restart", 2, restarting, low=0.05),
    Chance("DPM-Solver SDE", 2, registered("dpm_sde"), 2),
    Chance("SA-Solver 2, 2", 2, with_noise_everywhere),
    Chance("variance-exploding SDE, without corrections", 1, lambda x, s, noise: exploding(x, s, noise, correct_steps=0)),
    Chance("RePaint", 1, back_and_forth, 4),
]
