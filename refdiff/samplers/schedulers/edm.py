"""EDMEulerScheduler, EDMDPMSolverMultistepScheduler and CMStochasticIterativeScheduler."""

from __future__ import annotations

import math
from typing import Any

from refdiff.diffusion.limit import clipped, limiter
from refdiff.diffusion.prediction import denoised_from_edm, edm_scale
from refdiff.samplers.dpm_multistep import dpm_multistep
from refdiff.samplers.euler import euler
from refdiff.samplers.family import FLAG, WHOLE, Family, Network, Options, always, nothing, unchanged
from refdiff.samplers.grids_flow import consistency_grid, edm_dpm_grid, edm_grid, edm_table
from refdiff.samplers.lcm import consistency
from refdiff.samplers.schedulers.dpm_multistep import DPM_ONLY, FINAL, THRESHOLD, draws, scheme_of
from refdiff.samplers.schedulers.euler import CHURN
from refdiff.samplers.schedulers.euler import draws as churned
from refdiff.xp import Array

SIGNS = {"epsilon": 1.0, "v_prediction": -1.0}


def network(options: Options) -> Network:
    """A network that sees unit variance and predicts it, its denoised latent limited."""
    data, sign, limit = options["sigma_data"], SIGNS[options["prediction_type"]], limiter(options)

    def denoised(seen: Array, output: Array, sigma: float) -> Array:
        return limit(denoised_from_edm(seen / edm_scale(sigma, data), sign * output, sigma, data))

    return Network(lambda sigma: edm_scale(sigma, data), denoised)


def consistency_network(options: Options) -> Network:
    """The same with a boundary: at sigma_min the network is not heard."""
    data, least, clip = options["sigma_data"], options["sigma_min"], options["clip_denoised"]

    def denoised(seen: Array, output: Array, sigma: float) -> Array:
        scale, above = edm_scale(sigma, data), sigma - least
        x0 = above * data * scale * output + (data**2 / (above**2 + data**2) / scale) * seen
        return clipped(x0, limit=1.0) if clip else x0

    return Network(lambda sigma: edm_scale(sigma, data), denoised)


def same_answer(options: Options) -> dict[str, Any]:
    """What the network's answer, which is without its scales, says of a latent that is noisier than the one it saw."""
    square = options["sigma_data"] ** 2

    def again(x: Array, denoised: Array, noisier: Array, sigma: float, raised: float) -> Array:
        share, after = square / (sigma**2 + square), square / (raised**2 + square)
        louder = raised / sigma * math.sqrt((sigma**2 + square) / (raised**2 + square))
        return after * noisier + louder * (denoised - share * x)

    return {"again": again}


def scheme(options: Options) -> dict[str, Any]:
    """What DPM-Solver integrates."""
    return {"scheme": scheme_of(options)}


RAMP = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0}
EDM = {**RAMP, "sigma_schedule": "karras", "num_train_timesteps": 1000, "prediction_type": "epsilon", "final_sigmas_type": "zero"}
EDM_ONLY = {"sigma_schedule": ("karras", "exponential"), "prediction_type": tuple(SIGNS), "final_sigmas_type": FINAL}

EDM_EULER = Family(
    class_name="EDMEulerScheduler", defaults=EDM, only=EDM_ONLY, grid=edm_grid, solve=euler, table=edm_table, network=network,
    constants=same_answer, settings=CHURN, stochastic=True,
    draws=churned, outside=unchanged, planning=("s_churn", "s_tmin", "s_tmax"),
)  # fmt: skip

EDM_DPM = Family(
    class_name="EDMDPMSolverMultistepScheduler",
    defaults={
        **EDM, **THRESHOLD, "solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint",
        "lower_order_final": True, "euler_at_final": False,
    },
    only={
        **EDM_ONLY, "algorithm_type": ("dpmsolver++", "sde-dpmsolver++", "deis"), "solver_type": DPM_ONLY["solver_type"],
        "solver_order": (1, 2, 3), "thresholding": FLAG, "lower_order_final": FLAG, "euler_at_final": FLAG,
    },
    grid=edm_dpm_grid, solve=dpm_multistep, table=edm_table, network=network, constants=scheme, settings={}, stochastic=True,
    draws=draws, outside=unchanged,
)  # fmt: skip


CONSISTENCY = Family(
    class_name="CMStochasticIterativeScheduler",
    defaults={**RAMP, "num_train_timesteps": 40, "s_noise": 1.0, "clip_denoised": True}, only={"clip_denoised": FLAG},
    grid=consistency_grid, solve=consistency, table=edm_table, network=consistency_network, constants=nothing, settings={},
    stochastic=True, draws=always, outside=unchanged, listed={"timesteps": WHOLE},
)  # fmt: skip
