"""The schedulers of upstream as data: the options that each has, and the grid and the solver that they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.samplers.ddim import ddim
from refdiff.samplers.euler import euler
from refdiff.samplers.grids import Grid, euler_grid, once, plms_grid, second_twice, strided_grid
from refdiff.samplers.pndm import plms
from refdiff.samplers.step import Step


@dataclass(frozen=True)
class Family:
    """One scheduler.

    `defaults` are upstream's, for every option that it has; `only` are the values of those that are not free here.
    `solve(denoise, x, sigmas, **grid.policy)` is the solver, with eta and noise where it is `stochastic`; `calls` makes
    the times of the network's calls from those of the steps. `variance_preserving`: the form of upstream's latents.
    """

    class_name: str
    defaults: Mapping[str, Any]
    only: Mapping[str, tuple]
    grid: Callable[[Mapping[str, Any], np.ndarray, int], Grid]
    calls: Callable[[np.ndarray], np.ndarray]
    solve: Callable[..., Iterator[Step]]
    stochastic: bool
    variance_preserving: bool

    def outside(self, sigma: float) -> float:
        """The factor from x0 + sigma noise to the latent that upstream's scheduler hands out."""
        return 1.0 / math.sqrt(1.0 + sigma * sigma) if self.variance_preserving else 1.0


MODEL = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon",
}  # fmt: skip
MODEL_ONLY = {
    "trained_betas": (None,), "beta_schedule": tuple(schedule.BETAS), "prediction_type": ("epsilon", "v_prediction"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
}  # fmt: skip
FLAG = (True, False)

DDIM = Family(
    class_name="DDIMScheduler",
    defaults={
        **MODEL, "clip_sample": True, "set_alpha_to_one": True, "steps_offset": 0, "thresholding": False,
        "dynamic_thresholding_ratio": 0.995, "clip_sample_range": 1.0, "sample_max_value": 1.0,
        "timestep_spacing": "leading", "rescale_betas_zero_snr": False,
    },
    only={
        **MODEL_ONLY, "clip_sample": (False,), "thresholding": (False,), "rescale_betas_zero_snr": (False,),
        "set_alpha_to_one": FLAG,
    },
    grid=strided_grid, calls=once, solve=ddim, stochastic=True, variance_preserving=True,
)  # fmt: skip

EULER = Family(
    class_name="EulerDiscreteScheduler",
    defaults={
        **MODEL, "interpolation_type": "linear", "use_karras_sigmas": False, "use_exponential_sigmas": False,
        "use_beta_sigmas": False, "sigma_min": None, "sigma_max": None, "timestep_spacing": "linspace",
        "timestep_type": "discrete", "steps_offset": 0, "rescale_betas_zero_snr": False, "final_sigmas_type": "zero",
    },
    only={
        **MODEL_ONLY, "interpolation_type": ("linear",), "use_karras_sigmas": (False,),
        "use_exponential_sigmas": (False,), "use_beta_sigmas": (False,), "sigma_min": (None,), "sigma_max": (None,),
        "timestep_type": ("discrete",), "rescale_betas_zero_snr": (False,), "final_sigmas_type": ("zero", "sigma_min"),
    },
    grid=euler_grid, calls=once, solve=euler, stochastic=False, variance_preserving=False,
)  # fmt: skip

PNDM = Family(
    class_name="PNDMScheduler",
    defaults={
        **MODEL, "skip_prk_steps": False, "set_alpha_to_one": False, "timestep_spacing": "leading", "steps_offset": 0,
    },
    only={**MODEL_ONLY, "skip_prk_steps": (True,), "prediction_type": ("epsilon",), "set_alpha_to_one": FLAG},
    grid=plms_grid, calls=second_twice, solve=plms, stochastic=False, variance_preserving=True,
)  # fmt: skip

FAMILIES = {"ddim": DDIM, "euler": EULER, "pndm": PNDM}

# Options that scheduler_config.json files carry over from other classes, with the values that mean nothing to this one:
# upstream passes them over, whatever they are.
FOREIGN = {
    "skip_prk_steps": FLAG, "set_alpha_to_one": FLAG, "clip_sample": (False,), "clip_sample_range": (1.0,),
    "thresholding": (False,), "dynamic_thresholding_ratio": (0.995,), "sample_max_value": (1.0,),
    "rescale_betas_zero_snr": (False,), "interpolation_type": ("linear",), "timestep_type": ("discrete",),
    "use_karras_sigmas": (False,), "use_exponential_sigmas": (False,), "use_beta_sigmas": (False,),
    "sigma_min": (None,), "sigma_max": (None,), "final_sigmas_type": ("zero",),
}  # fmt: skip
