"""What a scheduler of upstream is, as data: its options, its tables, and the solver that they are for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.diffusion.limit import limiter
from refdiff.diffusion.prediction import DENOISED, EPSILON, signal_and_noise
from refdiff.samplers.grids import Grid
from refdiff.samplers.step import Step
from refdiff.xp import Array

Options = Mapping[str, Any]


def exploding(x0: Array, noise: Array, sigma: float) -> Array:
    """x0 + sigma noise."""
    return x0 + sigma * noise


# Kinds of lists: whole training times, any between them, a flow's; sigmas with the one after the last step, or shares of noise.
WHOLE, ANY, FLOW, ENDED, SHARES = "whole", "any", "flow", "ended", "shares"


@dataclass(frozen=True)
class Network:
    """How a network is asked about x = x0 + sigma noise.

    It sees x times `scale(sigma)`; `denoised(seen, output, sigma)` is what it takes x0 to be, or for solvers that want more,
    that and the noise or the variance that it tells.
    """

    scale: Callable[[float], float]
    denoised: Callable[[Array, Array, float], Any]


@dataclass(frozen=True)
class Family:
    """One scheduler.

    - `defaults` are upstream's, for every option that it has; `only` are the values of those that are not free here.
    - `settings` are what a caller, not a file, decides, with their defaults: eta, churn, order.
    - `table(options, precision)` is what is left of the signal at each training time, for flows and EDM its sigma;
      `grid(options, table, steps)`, with the settings among the options, all that
      is decided before the loop.
    - `solve(denoise, x, sigmas, **grid.policy, **constants(options), **settings)` is the solver, which also takes `noise`
      where it is `stochastic`; `draws(options, settings)` says whether it will ask for any.
    - `outside(sigma)` is the factor from x0 + sigma noise to the latent that upstream's scheduler hands out.
    - `noised(x0, noise, sigma)` is the solver's latent of a picture, x0 + sigma noise but for flows.
    - `planning` names the settings that are for the grid alone.
    - `listed` says which lists of "timesteps" and "sigmas" it takes instead of a number of steps, and of which kind.
    - `arrays` names the settings that are arrays, or None: a picture, a mask.
    - `altered(options)` are fields that are others with these options; it refuses options that exclude each other.
    """

    class_name: str
    defaults: Options
    only: Mapping[str, tuple]
    grid: Callable[[Options, np.ndarray, int], Grid]
    solve: Callable[..., Iterator[Step]]
    table: Callable[[Options, str], np.ndarray]
    network: Callable[[Options], Network]
    constants: Callable[[Options], dict[str, Any]]
    settings: Mapping[str, Any]
    stochastic: bool
    draws: Callable[[Options, Mapping[str, Any]], bool]
    outside: Callable[[float], float]
    altered: Callable[[Options], Mapping[str, Any]] = lambda options: {}  # house: nothing is altered
    noised: Callable[[Array, Array, float], Array] = exploding
    planning: tuple[str, ...] = ()  # house: all settings are for the solver
    listed: Mapping[str, str] = field(default_factory=dict)
    arrays: tuple[str, ...] = ()  # house: all settings are numbers

    @property
    def variance_preserving(self) -> bool:
        """Whether upstream's latents are in this form."""
        return self.outside is preserving


def diffusion_table(options: Options, precision: str) -> np.ndarray:
    """What is left of the signal at each training time, from the betas that the options describe.

    Shapes: -> [num_train_timesteps]
    """
    return schedule.cumulated(betas_of(options, precision))


def betas_of(options: Options, precision: str) -> np.ndarray:
    """The betas that the options describe.  Shapes: -> [num_train_timesteps]"""
    if options["trained_betas"] is not None:
        betas = schedule.given_betas(options["trained_betas"], table=precision)
    else:
        betas = schedule.betas(
            schedule=options["beta_schedule"], beta_start=options["beta_start"], beta_end=options["beta_end"],
            count=options["num_train_timesteps"], table=precision,
        )  # fmt: skip
    return schedule.zero_terminal_snr(betas) if options.get("rescale_betas_zero_snr") else betas


def diffusion_network(options: Options) -> Network:
    """A network that sees a variance-preserving latent and predicts what `prediction_type` says."""
    convert = DENOISED[options["prediction_type"]]

    def denoised(seen: Array, output: Array, sigma: float) -> Array:
        a, s = signal_and_noise(sigma)
        return convert(seen, output, a, s)

    return Network(preserving, denoised)


def limited_network(options: Options) -> Network:
    """A diffusion network whose denoised latent is clipped or thresholded as the options say, before anything else."""
    raw, limit = diffusion_network(options), limiter(options)
    return Network(raw.scale, lambda seen, output, sigma: limit(raw.denoised(seen, output, sigma)))


def pair_network(options: Options) -> Network:
    """A diffusion network for solvers that ask for the denoised latent and for the noise in it, which sigma 0 has too."""
    raw, convert = diffusion_network(options), EPSILON[options["prediction_type"]]

    def both(seen: Array, output: Array, sigma: float) -> tuple[Array, Array]:
        return raw.denoised(seen, output, sigma), convert(seen, output, *signal_and_noise(sigma))

    return Network(raw.scale, both)


def limited_pair(options: Options) -> Network:
    """The same with the denoised latent limited, and the noise as it was."""
    raw, limit = pair_network(options), limiter(options)

    def both(seen: Array, output: Array, sigma: float) -> tuple[Array, Array]:
        denoised, noise = raw.denoised(seen, output, sigma)
        return limit(denoised), noise

    return Network(raw.scale, both)


def preserving(sigma: float) -> float:
    """The factor from x0 + sigma noise to the variance-preserving form."""
    return 1.0 / math.sqrt(1.0 + sigma * sigma)


def unchanged(sigma: float) -> float:
    """The factor where the latent outside is x0 + sigma noise itself."""
    return 1.0


def nothing(options: Options) -> dict[str, Any]:
    """For solvers without constants."""
    return {}


def never(options: Options, settings: Mapping[str, Any]) -> bool:
    """For solvers that draw no noise."""
    return False


def always(options: Options, settings: Mapping[str, Any]) -> bool:
    """For solvers that draw noise whatever is set."""
    return True


MODEL = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon",
}  # fmt: skip
FLAG = (True, False)
SPACINGS = ("leading", "trailing", "linspace")
MODEL_ONLY = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"), "timestep_spacing": SPACINGS,
}  # fmt: skip
LIMITS = {
    "clip_sample": True, "clip_sample_range": 1.0, "thresholding": False, "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}  # fmt: skip
LIMITS_ONLY = {"clip_sample": FLAG, "thresholding": FLAG}
RAMPS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
RAMPS_ONLY: dict[str, tuple] = dict.fromkeys(RAMPS, FLAG)
