"""LMSDiscreteScheduler."""

from __future__ import annotations

from refdiff.samplers.family import (
    MODEL,
    MODEL_ONLY,
    RAMPS,
    RAMPS_ONLY,
    Family,
    diffusion_network,
    diffusion_table,
    never,
    nothing,
    unchanged,
)
from refdiff.samplers.grids_k import interpolated_grid
from refdiff.samplers.lms import lms

LMS = Family(
    class_name="LMSDiscreteScheduler",
    defaults={**MODEL, **RAMPS, "timestep_spacing": "linspace", "steps_offset": 0},
    only={**MODEL_ONLY, **RAMPS_ONLY},
    grid=interpolated_grid, solve=lms, table=diffusion_table, network=diffusion_network, constants=nothing,
    settings={"order": 4}, stochastic=False, draws=never, outside=unchanged,
)  # fmt: skip
