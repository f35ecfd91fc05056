"""DDIM and Euler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.samplers.cases import COSINE, LINEAR, SCALED, Case

SPACING = [
    {"timestep_spacing": "leading", "steps_offset": 0},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace"},
]
PREDICTIONS = ["epsilon", "v_prediction", "sample"]
RAMPS: list[Any] = [{}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}]
LIMITS: list[Any] = [
    {"clip_sample": False},
    {"clip_sample": True, "clip_sample_range": 0.7},
    {"clip_sample": False, "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
]


def within_the_table(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """With an offset, 1000 leading steps would begin beyond the last training time."""
    return not (config.get("steps_offset") == 1 and steps == 1000)


def has_a_signal(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Without any signal at the first time, noise does not say what the picture is; upstream's epsilon and eta 1 give NaN."""
    blind = config["prediction_type"] == "epsilon" or settings.get("eta") == 1.0
    return within_the_table(config, steps, settings) and not (config["rescale_betas_zero_snr"] and blind)


CASES = [
    Case(
        "DDIMScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "spacing": SPACING, "limits": LIMITS,
            "set_alpha_to_one": [True, False], "rescale_betas_zero_snr": [False, True],
        },
        settings=({}, {"eta": 0.5}, {"eta": 1.0}, {"eta": 0.3, "use_clipped_model_output": True}),
        allowed=has_a_signal,
    ),
    Case(
        "EulerDiscreteScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "spacing": SPACING, "ramps": RAMPS,
            "final_sigmas_type": ["zero", "sigma_min"], "ends": [{}, {"sigma_min": 0.05, "sigma_max": 9.0}],
            "interpolation_type": ["linear", "log_linear"], "timestep_type": ["discrete", "continuous"],
            "rescale_betas_zero_snr": [False, True],
        },
        settings=({}, {"s_churn": 5.0}, {"s_churn": 40.0, "s_tmin": 0.1, "s_tmax": 9.0, "s_noise": 1.1}),
        allowed=within_the_table,
    ),
]  # fmt: skip
