"""IPNDMScheduler: for networks that predict v, over a schedule of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.diffusion.prediction import denoised_from_v, signal_and_noise
from refdiff.errors import BadRequest
from refdiff.samplers.family import Family, Network, Options, never, nothing, preserving
from refdiff.samplers.grids import NO_SIGNAL
from refdiff.samplers.grids_p import ipndm_grid, sines
from refdiff.samplers.ipndm import ipndm
from refdiff.xp import Array

BLIND = 0.5 / NO_SIGNAL**0.5  # a sigma from which on there is no signal


def table(options: Options, precision: str) -> np.ndarray:
    """What is left of the signal at each of the times of as many steps as there are training times, latest first.

    Raises: BadRequest for an unknown precision
    """
    if precision not in schedule.TABLES:
        raise BadRequest(f'unknown table "{precision}": choose one of {", ".join(schedule.TABLES)}')
    return 1 - sines(options["num_train_timesteps"], precision)[:-1] ** 2


def network(options: Options) -> Network:
    """A network that predicts v; where there is no signal it is not heard, and the picture is 0 (a quirk of upstream)."""

    def denoised(seen: Array, output: Array, sigma: float) -> Array:
        return denoised_from_v(seen, output, *signal_and_noise(sigma)) if sigma < BLIND else 0.0 * output

    return Network(preserving, denoised)


def altered(options: Options) -> dict[str, Any]:
    """Nothing.

    Raises: BadRequest for trained_betas that are no list of numbers from 0 to 1
    """
    betas = options["trained_betas"]
    if betas is not None:
        found = np.asarray(betas, dtype=np.float64) if isinstance(betas, (list, tuple)) else np.array([])
        if found.ndim != 1 or len(found) < 2 or not ((found >= 0.0) & (found <= 1.0)).all():
            raise BadRequest("trained_betas must be a list of two numbers from 0 to 1 or more: one more than there are steps")
    return {}


IPNDM = Family(
    class_name="IPNDMScheduler", defaults={"num_train_timesteps": 1000, "trained_betas": None}, only={}, grid=ipndm_grid,
    solve=ipndm, table=table, network=network, constants=nothing, settings={}, stochastic=False, draws=never,
    outside=preserving, altered=altered,
)  # fmt: skip
