"""UnCLIPScheduler."""

from __future__ import annotations

import numpy as np

from refdiff.diffusion import schedule
from refdiff.samplers.ddpm import ddpm
from refdiff.samplers.family import FLAG, Family, Options, always, preserving
from refdiff.samplers.grids_p import unclip_grid
from refdiff.samplers.schedulers.ddpm import constants, network


def cosine_table(options: Options, precision: str) -> np.ndarray:
    """What is left of the signal with the cosine's betas.  Shapes: -> [num_train_timesteps]"""
    count = options["num_train_timesteps"]
    return schedule.alphas_cumprod(schedule=options["beta_schedule"], beta_start=0.0, beta_end=0.0, count=count, table=precision)


UNCLIP = Family(
    class_name="UnCLIPScheduler",
    defaults={
        "num_train_timesteps": 1000, "variance_type": "fixed_small_log", "clip_sample": True, "clip_sample_range": 1.0,
        "prediction_type": "epsilon", "beta_schedule": "squaredcos_cap_v2",
    },
    only={
        "variance_type": ("fixed_small_log", "learned_range"), "clip_sample": FLAG, "prediction_type": ("epsilon", "sample"),
        "beta_schedule": ("squaredcos_cap_v2",),
    },
    grid=unclip_grid, solve=ddpm, table=cosine_table, network=network, constants=constants, settings={}, stochastic=True,
    draws=always, outside=preserving,
)  # fmt: skip
