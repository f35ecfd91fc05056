"""DDIMScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refdiff.diffusion.limit import limiter
from refdiff.samplers.ddim import ddim
from refdiff.samplers.family import (
    FLAG,
    LIMITS,
    LIMITS_ONLY,
    MODEL,
    MODEL_ONLY,
    Family,
    Options,
    diffusion_network,
    diffusion_table,
    preserving,
)
from refdiff.samplers.grids import strided_grid


def constants(options: Options) -> dict[str, Any]:
    """What DDIM does to the denoised latent; the direction stays that of the network, as upstream."""
    return {"limit": limiter(options)}


def draws(options: Options, settings: Mapping[str, Any]) -> bool:
    """Only with eta."""
    return settings["eta"] > 0.0


DDIM = Family(
    class_name="DDIMScheduler",
    defaults={
        **MODEL, **LIMITS, "set_alpha_to_one": True, "steps_offset": 0, "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
    },
    only={**MODEL_ONLY, **LIMITS_ONLY, "set_alpha_to_one": FLAG, "rescale_betas_zero_snr": FLAG},
    grid=strided_grid, solve=ddim, table=diffusion_table, network=diffusion_network, constants=constants,
    settings={"eta": 0.0, "use_clipped_model_output": False}, stochastic=True, draws=draws, outside=preserving,
)  # fmt: skip
