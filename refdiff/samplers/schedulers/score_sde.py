"""ScoreSdeVeScheduler."""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.errors import BadRequest
from refdiff.samplers.family import Family, Network, Options, always, unchanged
from refdiff.samplers.grids_score import even_levels, exploding_grid
from refdiff.samplers.score import predictor_corrector
from refdiff.xp import Array


def table(options: Options, precision: str) -> np.ndarray:
    """The sigmas of as many steps as there are training times, smallest first.

    Shapes: -> [num_train_timesteps]
    Raises: BadRequest for an unknown precision
    """
    if precision not in schedule.TABLES:
        raise BadRequest(f'unknown table "{precision}": choose one of {", ".join(schedule.TABLES)}')
    return even_levels(options, options["num_train_timesteps"], precision)


def network(options: Options) -> Network:
    """A network that sees the latent as it is and predicts the score: the picture, by Tweedie's formula, and the score itself."""

    def both(seen: Array, output: Array, sigma: float) -> tuple[Array, Array]:
        return seen + sigma**2 * output, output

    return Network(unchanged, both)


def constants(options: Options) -> dict[str, Any]:
    """How far Langevin's steps go, and how many there are."""
    return {"snr": options["snr"], "correct_steps": options["correct_steps"]}


def altered(options: Options) -> dict[str, Any]:
    """Nothing.

    Raises: BadRequest for ends that are not in order
    """
    if options["sigma_min"] >= options["sigma_max"]:
        raise BadRequest(f"sigma_min {options['sigma_min']} must be below sigma_max {options['sigma_max']}")
    return {}


SCORE_SDE_VE = Family(
    class_name="ScoreSdeVeScheduler",
    defaults={
        "num_train_timesteps": 2000, "snr": 0.15, "sigma_min": 0.01, "sigma_max": 1348.0, "sampling_eps": 1e-5,
        "correct_steps": 1,
    },
    only={}, grid=exploding_grid, solve=predictor_corrector, table=table, network=network, constants=constants,
    settings={}, stochastic=True, draws=always, outside=unchanged, altered=altered,
)  # fmt: skip
