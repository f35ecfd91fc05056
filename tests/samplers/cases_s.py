"""iPNDM, DPM-Solver SDE, SA-Solver, the variance-exploding SDE and RePaint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.samplers.cases import COSINE, LINEAR, SCALED, Case
from tests.samplers.cases_first import PREDICTIONS, RAMPS, SPACING, within_the_table
from tests.samplers.cases_k import every_second

BETAS = [1.0, 0.97, 0.85, 0.6, 0.41, 0.2, 0.05, 0.0]  # seven steps


def as_many_as_given(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Upstream makes seven steps of eight given betas, however many are asked for; refdiff refuses another number. One step ends
    at 0, whatever the network says: an error relative to it has no meaning.
    """
    return steps == 7 if config["trained_betas"] is not None else steps > 1


def ipndm_times_bound(config: Mapping[str, Any]) -> float:
    """A time comes from the root of 1 - beta^2, which has few digits in float32 near the first time: measured 3.8e-6 in 1000
    steps, 1.8e-7 in up to 50.
    """
    return 1e-5


def sa_allowed(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Upstream cannot threshold with noise_prediction, nor take flow_prediction there; leading times of 1000 steps are all one,
    and those of 999 with an offset begin beyond training.
    """
    by_noise = config["algorithm_type"] == "noise_prediction"
    flow = config["prediction_type"] == "flow_prediction"
    ramp = any(value is True for key, value in config.items() if key.startswith("use_"))
    leading = config["timestep_spacing"] == "leading" and not ramp
    return not (by_noise and (config["thresholding"] or flow)) and not (leading and steps >= 999)


FLOWING = {"use_flow_sigmas": True, "flow_shift": 3.0}
FLOWS: list[Any] = [FLOWING, {**FLOWING, "prediction_type": "flow_prediction"}]
TAUS = np.linspace(0.0, 1.5, 1000)
PICTURE = np.random.default_rng(1).standard_normal((2, 3, 4, 5)).astype(np.float32)
MASK = (np.random.default_rng(2).random((2, 1, 4, 5)) < 0.5).astype(np.float32)


def filling(**jumps: int) -> dict[str, Any]:
    """RePaint's settings."""
    return {"original_image": PICTURE, "mask": MASK, **jumps}


CASES = [
    Case(
        "IPNDMScheduler", {}, {"trained_betas": [None, BETAS], "num_train_timesteps": [1000]}, allowed=as_many_as_given,
        times_bound=ipndm_times_bound,
    ),
    Case(
        "DPMSolverSDEScheduler", {},
        {"betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS[:2], "spacing": SPACING, "ramps": RAMPS},
        settings=({}, {"s_noise": 0.9}), allowed=within_the_table, keep=every_second, whole_times=False,
    ),
    Case(
        "SASolverScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS,
            "spacing": SPACING, "ramps": [*RAMPS, *FLOWS], "predictor_order": [2, 1, 3, 4], "corrector_order": [2, 1, 3, 4],
            "algorithm_type": ["data_prediction", "noise_prediction"], "lower_order_final": [True, False],
            "thresholding": [False, True],
        },
        settings=({}, {"tau": 0.0}, {"tau": TAUS}), allowed=sa_allowed, steps=(1, 2, 3, 7, 10),
    ),
    Case(
        "ScoreSdeVeScheduler", {},
        {
            "snr": [0.15, 0.3], "sigma_max": [1348.0, 50.0], "sigma_min": [0.01, 0.2], "sampling_eps": [1e-5, 0.05],
            "correct_steps": [1, 0, 2], "num_train_timesteps": [2000, 1000],
        },
    ),
    Case(
        "RePaintScheduler", {},
        {"betas": [LINEAR, SCALED, COSINE, {"beta_schedule": "sigmoid"}], "eta": [0.0, 0.5, 1.0], "clip_sample": [True, False]},
        settings=(filling(), filling(jump_length=2, jump_n_sample=3), filling(jump_length=1, jump_n_sample=2)),
        steps=(1, 2, 3, 7, 10, 20),
    ),
]  # fmt: skip
