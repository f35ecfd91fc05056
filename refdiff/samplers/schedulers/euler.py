"""EulerDiscreteScheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from refdiff.samplers.euler import euler, same_noise, same_picture, same_velocity
from refdiff.samplers.family import (
    ANY,
    ENDED,
    FLAG,
    MODEL,
    MODEL_ONLY,
    RAMPS,
    RAMPS_ONLY,
    Family,
    Network,
    Options,
    diffusion_network,
    diffusion_table,
    unchanged,
)
from refdiff.samplers.grids import churned_euler_grid

ALMOST_ZERO = 2.0**-24  # upstream's signal at the last time where there should be none


def almost_zero_table(options: Options, precision: str) -> np.ndarray:
    """The table, with a trace of signal at a last time that should have none, so that its sigma is finite."""
    table = diffusion_table(options, precision)
    if not options["rescale_betas_zero_snr"]:
        return table
    return np.append(table[:-1], table.dtype.type(ALMOST_ZERO))


def draws(options: Options, settings: Mapping[str, Any]) -> bool:
    """Only with churn."""
    return settings["s_churn"] > 0.0


CHURN = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0}
AGAIN = {"epsilon": same_noise, "v_prediction": same_velocity, "sample": same_picture, "original_sample": same_picture}


def network(options: Options) -> Network:
    """As others; upstream has a second name for a network that predicts the picture."""
    return diffusion_network({**options, "prediction_type": options["prediction_type"].removeprefix("original_")})


def constants(options: Options) -> dict[str, Any]:
    """What the network's answer says of a latent that is noisier than the one it was asked about."""
    return {"again": AGAIN[options["prediction_type"]]}


EULER = Family(
    class_name="EulerDiscreteScheduler",
    defaults={
        **MODEL, **RAMPS, "interpolation_type": "linear", "sigma_min": None, "sigma_max": None,
        "timestep_spacing": "linspace", "timestep_type": "discrete", "steps_offset": 0, "rescale_betas_zero_snr": False,
        "final_sigmas_type": "zero",
    },
    only={
        **MODEL_ONLY, **RAMPS_ONLY, "interpolation_type": ("linear", "log_linear"),
        "prediction_type": tuple(AGAIN), "timestep_type": ("discrete", "continuous"), "rescale_betas_zero_snr": FLAG,
        "final_sigmas_type": ("zero", "sigma_min"),
    },
    grid=churned_euler_grid, solve=euler, table=almost_zero_table, network=network, constants=constants,
    settings=CHURN, stochastic=True, draws=draws, outside=unchanged, planning=("s_churn", "s_tmin", "s_tmax"),
    listed={"timesteps": ANY, "sigmas": ENDED},
)  # fmt: skip
