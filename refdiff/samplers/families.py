"""The schedulers of upstream as data: their options, their grids of times and sigmas, their conventions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.diffusion.noise import Stream
from refdiff.errors import BadRequest
from refdiff.samplers.ddim import ddim
from refdiff.samplers.euler import euler
from refdiff.samplers.pndm import plms
from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


@dataclass(frozen=True)
class Grid:
    """The times of n steps [n], the sigmas before each and after the last [n+1], where each step goes [n], the first scale."""

    times: np.ndarray
    sigmas: np.ndarray
    targets: np.ndarray
    initial: float


@dataclass(frozen=True)
class Family:
    """One scheduler: `defaults` are upstream's for every option it has, `only` the values of those not written out here."""

    class_name: str
    defaults: Mapping[str, Any]
    only: Mapping[str, tuple]
    grid: Callable[[Mapping[str, Any], np.ndarray, int], Grid]
    calls: Callable[[Grid], np.ndarray]
    solve: Callable[[Denoise, Array, list[float], list[float], float, Stream | None], Iterator[Step]]
    variance_preserving: bool

    def outside(self, sigma: float) -> float:
        """The factor from x0 + sigma noise to the latent that upstream's scheduler hands out."""
        return 1.0 / math.sqrt(1.0 + sigma * sigma) if self.variance_preserving else 1.0

    def initial(self, grid: Grid) -> float:
        """The factor from unit noise to the solver's first x.  Traps: init-sigma"""
        return grid.initial

    def read_options(self, data: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
        """Every option of this family, from `data` or upstream's default.

        With `strict`, an option that this family does not have is an error. Otherwise `data` is another family's: what this
        one does not have is left out, and upstream's default gives way where it is not supported.
        Raises: BadRequest naming the option
        """
        options = {**self.defaults, **{k: v for k, v in data.items() if k in self.defaults}}
        for name, value in data.items():
            if strict and name not in self.defaults and not name.startswith("_") and (name, value) not in HARMLESS:
                raise BadRequest(f"{self.class_name}: unknown option {name} = {value!r}; known are {', '.join(self.defaults)}")
        for name, allowed in self.only.items():
            if not strict and name not in data:
                options[name] = options[name] if options[name] in allowed else allowed[0]
            if options[name] not in allowed:
                listed = " or ".join(repr(v) for v in allowed)
                raise BadRequest(f"{self.class_name}: option {name} = {options[name]!r} is not supported; it must be {listed}")
        return options


# What the scheduler_config.json of Stable Diffusion 1.x carries over from other classes, with the value that does nothing.
HARMLESS = [("clip_sample", False), ("skip_prk_steps", True), ("set_alpha_to_one", False), ("set_alpha_to_one", True)]
BETAS = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "trained_betas": None}
COMMON_ONLY = {
    "trained_betas": (None,), "prediction_type": ("epsilon", "v_prediction"), "timestep_spacing": ("leading", "trailing", "linspace"),
    "beta_schedule": tuple(schedule.BETAS),
}  # fmt: skip


def spaced(config: Mapping[str, Any], steps: int) -> np.ndarray:
    """The times of n steps as DDIM, PNDM and Euler space them; linspace is not rounded."""
    count = config["num_train_timesteps"]
    if config["timestep_spacing"] == "leading":
        return schedule.leading(steps, count=count, offset=config["steps_offset"])
    if config["timestep_spacing"] == "trailing":
        return schedule.trailing(steps, count=count)
    return schedule.linspaced(steps, count=count)


def strided_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DDIM's and PNDM's: a step from time t ends at t - count // steps, whatever the next time is (a quirk of upstream).

    Beyond time 0 the signal is whole, or for set_alpha_to_one false that of time 0.  Traps: prev-t-stride, final-alpha
    """
    times = np.round(spaced(config, steps)).astype(np.int64)
    ends = times - len(alphas) // steps
    final = 1.0 if config["set_alpha_to_one"] else float(alphas[0])
    end_alphas = np.where(ends >= 0, alphas[np.maximum(ends, 0)].astype(np.float64), final)
    sigmas = schedule.sigmas_of(alphas[np.minimum(times, len(alphas) - 1)].astype(np.float64))
    targets = schedule.sigmas_of(end_alphas)
    return Grid(times, np.append(sigmas, targets[-1]), targets, math.sqrt(1.0 + float(sigmas[0]) ** 2))


def euler_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """Euler's: sigmas between the training times by interpolation, and 0 at the end.

    The first scale is the first sigma, or for leading the deviation of noise and signal together.  Traps: init-sigma, sigma-tail
    """
    times = spaced(config, steps).astype(np.float32)
    table = schedule.sigmas_of(alphas)
    sigmas = np.append(np.interp(times, np.arange(len(table)), table), 0.0).astype(np.float32)
    first = float(sigmas[0])
    initial = math.sqrt(first**2 + 1.0) if config["timestep_spacing"] == "leading" else first
    return Grid(times, sigmas, sigmas[1:], initial)


def plms_calls(grid: Grid) -> np.ndarray:
    """PNDM calls the network a second time at its second time.  Traps: pndm-dup"""
    times = grid.times
    return times if len(times) == 1 else np.concatenate([times[:2], times[1:]])


FAMILIES = {
    "ddim": Family(
        "DDIMScheduler",
        {
            **BETAS, "clip_sample": True, "set_alpha_to_one": True, "steps_offset": 0, "prediction_type": "epsilon",
            "thresholding": False, "dynamic_thresholding_ratio": 0.995, "clip_sample_range": 1.0, "sample_max_value": 1.0,
            "timestep_spacing": "leading", "rescale_betas_zero_snr": False,
        },
        {**COMMON_ONLY, "clip_sample": (False,), "thresholding": (False,), "rescale_betas_zero_snr": (False,)},
        strided_grid,
        lambda grid: grid.times,
        lambda denoise, x, sigmas, targets, eta, noise: ddim(denoise, x, sigmas, targets=targets, eta=eta, noise=noise),
        True,
    ),
    "euler": Family(
        "EulerDiscreteScheduler",
        {
            **BETAS, "prediction_type": "epsilon", "interpolation_type": "linear", "use_karras_sigmas": False,
            "use_exponential_sigmas": False, "use_beta_sigmas": False, "sigma_min": None, "sigma_max": None,
            "timestep_spacing": "linspace", "timestep_type": "discrete", "steps_offset": 0, "rescale_betas_zero_snr": False,
            "final_sigmas_type": "zero",
        },
        {
            **COMMON_ONLY, "interpolation_type": ("linear",), "use_karras_sigmas": (False,), "use_exponential_sigmas": (False,),
            "use_beta_sigmas": (False,), "sigma_min": (None,), "sigma_max": (None,), "timestep_type": ("discrete",),
            "rescale_betas_zero_snr": (False,), "final_sigmas_type": ("zero",),
        },
        euler_grid,
        lambda grid: grid.times,
        lambda denoise, x, sigmas, targets, eta, noise: euler(denoise, x, sigmas),
        False,
    ),
    "pndm": Family(
        "PNDMScheduler",
        {
            **BETAS, "skip_prk_steps": False, "set_alpha_to_one": False, "prediction_type": "epsilon",
            "timestep_spacing": "leading", "steps_offset": 0,
        },
        {**COMMON_ONLY, "skip_prk_steps": (True,), "prediction_type": ("epsilon",), "timestep_spacing": ("leading",)},
        strided_grid,
        plms_calls,
        lambda denoise, x, sigmas, targets, eta, noise: plms(denoise, x, sigmas, targets=targets),
        True,
    ),
}  # fmt: skip
