"""DPMSolverSDEScheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.dpmpp_sde import dpmpp_sde, intervals
from refdiff.samplers.family import (
    MODEL,
    MODEL_ONLY,
    RAMPS,
    RAMPS_ONLY,
    Family,
    always,
    diffusion_network,
    diffusion_table,
    nothing,
    unchanged,
)
from refdiff.samplers.grids_k import HALF, sde_grid
from refdiff.samplers.step import Denoise, Step
from refdiff.samplers.woven import Woven
from refdiff.xp import Array


def along_one_path(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, s_noise: float, noise: Stream | None
) -> Iterator[Step]:
    """`dpmpp_sde` with middles half the way, whose two noises are of one path, as those of upstream's Brownian tree are."""
    woven = None if noise is None else Woven(noise, intervals(sigmas, r=HALF))
    return dpmpp_sde(denoise, x, sigmas, eta=1.0, s_noise=s_noise, r=HALF, noise=woven)


DPM_SDE = Family(
    class_name="DPMSolverSDEScheduler",
    defaults={
        **MODEL, "beta_start": 0.00085, "beta_end": 0.012, **RAMPS, "noise_sampler_seed": None, "timestep_spacing": "linspace",
        "steps_offset": 0,
    },
    only={**MODEL_ONLY, **RAMPS_ONLY, "noise_sampler_seed": (None,)},
    grid=sde_grid, solve=along_one_path, table=diffusion_table, network=diffusion_network, constants=nothing,
    settings={"s_noise": 1.0}, stochastic=True, draws=always, outside=unchanged,
)  # fmt: skip
