"""PNDMScheduler."""

from __future__ import annotations

from refdiff.samplers.family import (
    FLAG,
    MODEL,
    MODEL_ONLY,
    Family,
    diffusion_network,
    diffusion_table,
    never,
    nothing,
    preserving,
)
from refdiff.samplers.grids import plms_grid
from refdiff.samplers.pndm import plms

PNDM = Family(
    class_name="PNDMScheduler",
    defaults={
        **MODEL, "skip_prk_steps": False, "set_alpha_to_one": False, "timestep_spacing": "leading", "steps_offset": 0,
    },
    only={**MODEL_ONLY, "skip_prk_steps": (True,), "prediction_type": ("epsilon",), "set_alpha_to_one": FLAG},
    grid=plms_grid, solve=plms, table=diffusion_table, network=diffusion_network, constants=nothing, settings={},
    stochastic=False, draws=never, outside=preserving,
)  # fmt: skip
