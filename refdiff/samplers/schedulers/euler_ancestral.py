"""EulerAncestralDiscreteScheduler."""

from __future__ import annotations

from typing import Any

from refdiff.samplers.euler_ancestral import euler_ancestral
from refdiff.samplers.family import FLAG, MODEL, MODEL_ONLY, Family, Options, always, diffusion_network, unchanged
from refdiff.samplers.grids_k import ancestral_grid
from refdiff.samplers.schedulers.euler import almost_zero_table


def constants(options: Options) -> dict[str, Any]:
    """Upstream's noise has no factor."""
    return {"s_noise": 1.0}


EULER_ANCESTRAL = Family(
    class_name="EulerAncestralDiscreteScheduler",
    defaults={**MODEL, "timestep_spacing": "linspace", "steps_offset": 0, "rescale_betas_zero_snr": False},
    only={**MODEL_ONLY, "rescale_betas_zero_snr": FLAG},
    grid=ancestral_grid, solve=euler_ancestral, table=almost_zero_table, network=diffusion_network, constants=constants,
    settings={}, stochastic=True, draws=always, outside=unchanged,
)  # fmt: skip
