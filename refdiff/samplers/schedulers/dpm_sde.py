"""DPMSolverSDEScheduler."""

from __future__ import annotations

from typing import Any

from refdiff.samplers.dpmpp_sde import dpmpp_sde_along_a_path
from refdiff.samplers.family import (
    MODEL,
    MODEL_ONLY,
    RAMPS,
    RAMPS_ONLY,
    Family,
    Options,
    always,
    diffusion_network,
    diffusion_table,
    unchanged,
)
from refdiff.samplers.grids_k import HALF, sde_grid


def fully_noisy(options: Options) -> dict[str, Any]:
    """The whole of the diffusion's noise, and middles half the way."""
    return {"eta": 1.0, "r": HALF}


DPM_SDE = Family(
    class_name="DPMSolverSDEScheduler",
    defaults={
        **MODEL, "beta_start": 0.00085, "beta_end": 0.012, **RAMPS, "noise_sampler_seed": None, "timestep_spacing": "linspace",
        "steps_offset": 0,
    },
    only={**MODEL_ONLY, **RAMPS_ONLY, "noise_sampler_seed": (None,)},
    grid=sde_grid, solve=dpmpp_sde_along_a_path, table=diffusion_table, network=diffusion_network, constants=fully_noisy,
    settings={"s_noise": 1.0}, stochastic=True, draws=always, outside=unchanged,
)  # fmt: skip
