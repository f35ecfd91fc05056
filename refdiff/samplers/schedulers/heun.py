"""HeunDiscreteScheduler."""

from __future__ import annotations

from refdiff.samplers.family import (
    ANY,
    FLAG,
    MODEL,
    MODEL_ONLY,
    RAMPS,
    RAMPS_ONLY,
    Family,
    diffusion_table,
    limited_network,
    never,
    nothing,
    unchanged,
)
from refdiff.samplers.grids_k import heun_grid
from refdiff.samplers.heun import heun

HEUN = Family(
    class_name="HeunDiscreteScheduler",
    defaults={
        **MODEL, "beta_start": 0.00085, "beta_end": 0.012, **RAMPS, "clip_sample": False, "clip_sample_range": 1.0,
        "timestep_spacing": "linspace", "steps_offset": 0,
    },
    only={
        **MODEL_ONLY, **RAMPS_ONLY, "clip_sample": FLAG,
        "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "exp"),
    },
    grid=heun_grid, solve=heun, table=diffusion_table, network=limited_network, constants=nothing, settings={},
    stochastic=False, draws=never, outside=unchanged, listed={"timesteps": ANY},
)  # fmt: skip
