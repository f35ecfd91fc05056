"""LCMScheduler and TCDScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refdiff.samplers.family import (
    FLAG,
    LIMITS,
    LIMITS_ONLY,
    MODEL,
    MODEL_ONLY,
    WHOLE,
    Family,
    Options,
    always,
    diffusion_table,
    limited_network,
    nothing,
    pair_network,
    preserving,
)
from refdiff.samplers.grids_p import lcm_grid, tcd_grid
from refdiff.samplers.lcm import lcm, tcd

# set_alpha_to_one, steps_offset and timestep_spacing are in the files, and upstream passes them over.
DEFAULTS = {
    **MODEL, **LIMITS, "clip_sample": False, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "original_inference_steps": 50, "set_alpha_to_one": True, "steps_offset": 0, "timestep_spacing": "leading",
    "timestep_scaling": 10.0, "rescale_betas_zero_snr": False,
}  # fmt: skip
ONLY = {**MODEL_ONLY, **LIMITS_ONLY, "set_alpha_to_one": FLAG, "rescale_betas_zero_snr": FLAG}

STRENGTH = {"strength": 1.0}  # of a picture that is drawn over


def draws(options: Options, settings: Mapping[str, Any]) -> bool:
    """Only with eta, TCD's gamma."""
    return settings["eta"] > 0.0


LCM = Family(
    class_name="LCMScheduler", defaults=DEFAULTS, only=ONLY, grid=lcm_grid, solve=lcm, table=diffusion_table,
    network=limited_network, constants=nothing, settings=STRENGTH, stochastic=True, draws=always, outside=preserving,
    planning=tuple(STRENGTH), listed={"timesteps": WHOLE},
)  # fmt: skip

# Upstream takes clip_sample and thresholding for TCD, and does neither.
TCD = Family(
    class_name="TCDScheduler", defaults=DEFAULTS, only=ONLY, grid=tcd_grid, solve=tcd, table=diffusion_table,
    network=pair_network, constants=nothing, settings={"eta": 0.3, **STRENGTH}, stochastic=True, draws=draws, outside=preserving,
    planning=tuple(STRENGTH), listed={"timesteps": WHOLE},
)  # fmt: skip
