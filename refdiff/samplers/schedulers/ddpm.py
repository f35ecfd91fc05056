"""DDPMScheduler."""

from __future__ import annotations

from typing import Any

from refdiff.errors import BadRequest
from refdiff.samplers.ddpm import ddpm, largest, learned, learned_range, smallest
from refdiff.samplers.family import (
    FLAG,
    LIMITS,
    LIMITS_ONLY,
    MODEL,
    MODEL_ONLY,
    WHOLE,
    Family,
    Network,
    Options,
    always,
    diffusion_table,
    limited_network,
    preserving,
)
from refdiff.samplers.grids_p import neighbour_grid
from refdiff.xp import Array

DEVIATIONS = {
    "fixed_small": smallest, "fixed_small_log": smallest, "fixed_large": largest, "fixed_large_log": largest,
    "learned": learned, "learned_range": learned_range, None: smallest,
}  # fmt: skip


def constants(options: Options) -> dict[str, Any]:
    """How much noise comes back."""
    return {"deviation": DEVIATIONS[options["variance_type"]]}


def network(options: Options) -> Network:
    """A network with twice the channels where it has learnt the variance: what it predicts, and then that."""
    plain = limited_network(options)

    def alone(seen: Array, output: Array, sigma: float) -> tuple[Array, None]:
        return plain.denoised(seen, output, sigma), None

    def with_variance(seen: Array, output: Array, sigma: float) -> tuple[Array, Array]:
        channels = seen.shape[1]
        if output.shape[1] != 2 * channels:
            raise BadRequest(
                f"variance_type {options['variance_type']} needs {2 * channels} channels out of the network, not "
                f"{output.shape[1]}: write fixed_small where no variance was learnt"
            )
        return plain.denoised(seen, output[:, :channels], sigma), output[:, channels:]

    return Network(plain.scale, with_variance if str(options["variance_type"]).startswith("learned") else alone)


DDPM = Family(
    class_name="DDPMScheduler",
    defaults={
        **MODEL, **LIMITS, "variance_type": "fixed_small", "steps_offset": 0, "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
    },
    only={
        **MODEL_ONLY, **LIMITS_ONLY, "beta_schedule": (*MODEL_ONLY["beta_schedule"], "sigmoid", "laplace"),
        "variance_type": tuple(DEVIATIONS), "rescale_betas_zero_snr": FLAG,
    },
    grid=neighbour_grid, solve=ddpm, table=diffusion_table, network=network, constants=constants, settings={},
    stochastic=True, draws=always, outside=preserving, listed={"timesteps": WHOLE},
)  # fmt: skip
