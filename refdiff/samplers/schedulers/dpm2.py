"""KDPM2DiscreteScheduler and KDPM2AncestralDiscreteScheduler."""

from __future__ import annotations

from typing import Any

from refdiff.samplers.dpm2 import dpm2, dpm2_ancestral
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
    never,
    nothing,
    unchanged,
)
from refdiff.samplers.grids_k import ancestral_midpoint_grid, midpoint_grid

DEFAULTS = {
    **MODEL, "beta_start": 0.00085, "beta_end": 0.012, **RAMPS, "timestep_spacing": "linspace", "steps_offset": 0,
}  # fmt: skip


def noise_as_it_is(options: Options) -> dict[str, Any]:
    """Upstream's noise has no factor."""
    return {"s_noise": 1.0}


KDPM2 = Family(
    class_name="KDPM2DiscreteScheduler", defaults=DEFAULTS, only={**MODEL_ONLY, **RAMPS_ONLY},
    grid=midpoint_grid, solve=dpm2, table=diffusion_table, network=diffusion_network, constants=nothing,
    settings={}, stochastic=False, draws=never, outside=unchanged,
)  # fmt: skip
KDPM2_ANCESTRAL = Family(
    class_name="KDPM2AncestralDiscreteScheduler", defaults=DEFAULTS, only={**MODEL_ONLY, **RAMPS_ONLY},
    grid=ancestral_midpoint_grid, solve=dpm2_ancestral, table=diffusion_table, network=diffusion_network,
    constants=noise_as_it_is, settings={}, stochastic=True, draws=always, outside=unchanged,
)  # fmt: skip
