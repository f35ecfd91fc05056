"""DDIMInverseScheduler."""

from __future__ import annotations

from refdiff.samplers.family import (
    FLAG,
    MODEL,
    MODEL_ONLY,
    Family,
    diffusion_table,
    limited_pair,
    never,
    nothing,
    preserving,
)
from refdiff.samplers.grids_p import inverse_grid
from refdiff.samplers.inversion import inversion

DDIM_INVERSE = Family(
    class_name="DDIMInverseScheduler",
    defaults={
        **MODEL, "clip_sample": True, "clip_sample_range": 1.0, "set_alpha_to_one": True, "steps_offset": 0,
        "timestep_spacing": "leading", "rescale_betas_zero_snr": False,
    },
    only={
        **MODEL_ONLY, "timestep_spacing": ("leading", "trailing"), "clip_sample": FLAG, "set_alpha_to_one": FLAG,
        "rescale_betas_zero_snr": FLAG,
    },
    grid=inverse_grid, solve=inversion, table=diffusion_table, network=limited_pair, constants=nothing, settings={},
    stochastic=False, draws=never, outside=preserving,
)  # fmt: skip
