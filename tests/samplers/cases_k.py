"""The schedulers that diffusers has from k-diffusion, and iPNDM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.samplers.cases import COSINE, LINEAR, SCALED, Case
from tests.samplers.cases_first import PREDICTIONS, RAMPS, SPACING, within_the_table

EXPONENTIAL = {"beta_schedule": "exp"}
BETAS = [SCALED, LINEAR, COSINE]
CLIPS: list[Any] = [{"clip_sample": False}, {"clip_sample": True, "clip_sample_range": 0.7}]


def every_second(results: Sequence[Any], steps: int) -> Sequence[Any]:
    """A step takes two calls, the last one."""
    return [*results[1::2], results[-1]]


def no_root_of_less_than_nothing(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Rounding takes the square of upstream's sigma_down below 0, and its root is NaN: for the cosine's trailing 3 steps and
    linspaced 4, and for 999 and 1000 steps where two sigmas of zero terminal SNR are out of order.
    """
    cosine = config["beta_schedule"] == "squaredcos_cap_v2" and not config["rescale_betas_zero_snr"]
    return within_the_table(config, steps, settings) and not (cosine and steps == 3)


def euler_ancestral_bound(config: Mapping[str, Any]) -> float:
    """From the first sigma of zero terminal SNR, 4096, float32 leaves one or two digits of the sigma to go down to:
    measured 1.5e-4; else 1.2e-6.
    """
    return 5e-4 if config.get("rescale_betas_zero_snr") else 1e-5


def some_digits_left(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """In 2 steps upstream's float32 leaves hardly a digit of the sigma to go down to: its time is 1 % off."""
    return within_the_table(config, steps, settings) and steps != 2


def middle_times_bound(config: Mapping[str, Any]) -> float:
    """A middle's time comes from the logarithm of its sigma, which upstream rounds to float32: measured 7.5e-6 in 999 steps."""
    return 2e-5


def down_times_bound(config: Mapping[str, Any]) -> float:
    """The times in the middle come from the sigma to go down to, of which float32 leaves few digits in few steps: measured 5.8e-5
    in 3 steps, 1.5e-5 in 20.
    """
    return 2e-4


CASES = [
    Case(
        "EulerAncestralDiscreteScheduler", {},
        {
            "betas": BETAS, "prediction_type": PREDICTIONS[:2], "spacing": SPACING,
            "rescale_betas_zero_snr": [False, True],
        },
        allowed=no_root_of_less_than_nothing, exact_bound=euler_ancestral_bound,
    ),
    Case(
        "HeunDiscreteScheduler", {},
        {
            "betas": [*BETAS, EXPONENTIAL], "prediction_type": PREDICTIONS, "spacing": SPACING, "ramps": RAMPS,
            "clips": CLIPS,
        },
        allowed=within_the_table, keep=every_second,
    ),
    Case(
        "LMSDiscreteScheduler", {},
        {"betas": BETAS, "prediction_type": PREDICTIONS, "spacing": SPACING, "ramps": RAMPS},
        settings=({}, {"order": 2}), allowed=within_the_table,
    ),
    Case(
        "KDPM2DiscreteScheduler", {},
        {"betas": BETAS, "prediction_type": PREDICTIONS[:2], "spacing": SPACING, "ramps": RAMPS},
        allowed=within_the_table, keep=every_second, times_bound=middle_times_bound, whole_times=False,
    ),
    Case(
        "KDPM2AncestralDiscreteScheduler", {},  # upstream's times are NaN for the cosine
        {"betas": BETAS[:2], "prediction_type": PREDICTIONS[:2], "spacing": SPACING, "ramps": RAMPS},
        allowed=some_digits_left, keep=every_second, times_bound=down_times_bound, whole_times=False,
    ),
]  # fmt: skip
