"""The sampler of a request: the model's own or a named one, with the grid that was listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refdiff.samplers import Sampler, from_config
from refdiff.samplers.names import named

GRIDS = ("timesteps", "sigmas")


def chosen_sampler(
    scheduler: Mapping[str, Any], *, name: str | None, eta: float | None, grid: Mapping[str, tuple[float, ...]]
) -> Sampler:
    """The sampler of that name for the model of this scheduler, or that scheduler's own.

    Raises: BadRequest as `named`, `from_config`, `with_timesteps` and `with_sigmas`
    """
    config = {**scheduler, "clip_sample": False}  # for latents have no range; upstream's pipelines do so too
    family, options = (None, {}) if name is None else named(name)
    sampler = from_config({**config, **options}, name=family, eta=eta)
    sampler = sampler.with_timesteps(grid["timesteps"]) if "timesteps" in grid else sampler
    return sampler.with_sigmas(grid["sigmas"]) if "sigmas" in grid else sampler
