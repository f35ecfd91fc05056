"""PNDMScheduler."""

from __future__ import annotations

from typing import Any

from refdiff.diffusion.prediction import epsilon_from_v, signal_and_noise
from refdiff.samplers.family import (
    FLAG,
    MODEL,
    MODEL_ONLY,
    Family,
    Network,
    Options,
    diffusion_network,
    diffusion_table,
    never,
    preserving,
)
from refdiff.samplers.grids_p import pndm_grid
from refdiff.samplers.pndm import plms, prk_plms, said_noise
from refdiff.xp import Array


def said_velocity(x: Array, v: Array, sigma: float) -> Array:
    """The noise in x for a velocity, which may be a mean of those of other sigmas: upstream averages what the network says."""
    a, s = signal_and_noise(sigma)
    return epsilon_from_v(a * x, v, a, s)


def altered(options: Options) -> dict[str, Any]:
    """With the start that the options choose."""
    return {} if options["skip_prk_steps"] else {"solve": prk_plms}


def constants(options: Options) -> dict[str, Any]:
    """How what the network says becomes noise."""
    return {"noise_of": {"epsilon": said_noise, "v_prediction": said_velocity}[options["prediction_type"]]}


def network(options: Options) -> Network:
    """The denoised latent, and what the network says as it is."""
    plain = diffusion_network(options)
    return Network(plain.scale, lambda seen, output, sigma: (plain.denoised(seen, output, sigma), output))


PNDM = Family(
    class_name="PNDMScheduler",
    defaults={
        **MODEL, "skip_prk_steps": False, "set_alpha_to_one": False, "timestep_spacing": "leading", "steps_offset": 0,
    },
    only={
        **MODEL_ONLY, "skip_prk_steps": FLAG, "prediction_type": ("epsilon", "v_prediction"), "set_alpha_to_one": FLAG,
    },
    grid=pndm_grid, solve=plms, table=diffusion_table, network=network, constants=constants, settings={},
    stochastic=False, draws=never, outside=preserving, altered=altered,
)  # fmt: skip
