"""DDPM, inversion, PNDM's Runge-Kutta start, consistency, flow matching and EDM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.samplers.cases import COSINE, LINEAR, SCALED, Case
from tests.samplers.cases_first import LIMITS, PREDICTIONS, SPACING, within_the_table

SIGMOID = {**LINEAR, "beta_schedule": "sigmoid"}
LAPLACE = {"beta_schedule": "laplace"}


def not_blind(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Without any signal at the first time, noise does not say what the picture is: upstream's epsilon gives NaN."""
    blind = config.get("rescale_betas_zero_snr") and config["prediction_type"] == "epsilon"
    return within_the_table(config, steps, settings) and not blind


def root_bound(config: Mapping[str, Any], steps: int) -> float:
    """With zero terminal SNR the betas are differences of roots, and torch's root is not IEEE's: 1 - a differs by up to 3e-3 at
    the first times of the cosine. Measured 3.3e-5; with one table for both sides 2.8e-6, and 1.6e-14 in float64.
    """
    return 1e-4 if config.get("rescale_betas_zero_snr") else 1e-5


CASES = [
    Case(
        "DDPMScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE, SIGMOID, LAPLACE], "prediction_type": PREDICTIONS, "spacing": SPACING,
            "limits": LIMITS, "rescale_betas_zero_snr": [False, True],
            "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"],
        },
        allowed=not_blind, bound=root_bound,
    ),
]  # fmt: skip
