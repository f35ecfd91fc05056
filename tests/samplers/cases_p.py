"""DDPM, inversion, PNDM's Runge-Kutta start, consistency, flow matching and EDM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from refdiff.diffusion import schedule
from tests.samplers.cases import COSINE, LINEAR, SCALED, Case
from tests.samplers.cases_first import LIMITS, PREDICTIONS, RAMPS, SPACING, within_the_table

SIGMOID = {**LINEAR, "beta_schedule": "sigmoid"}
LAPLACE = {"beta_schedule": "laplace"}


def not_blind(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Without any signal at the first time, noise does not say what the picture is: upstream's epsilon gives NaN."""
    blind = config.get("rescale_betas_zero_snr") and config["prediction_type"] == "epsilon"
    return within_the_table(config, steps, settings) and not blind


def all_but_the_trials(results: Sequence[Any], steps: int) -> Sequence[Any]:
    """PNDM's first call is taken again; with the Runge-Kutta start every fourth of the first twelve ends a step."""
    if len(results) == steps + 1:
        return results[1:]
    return results if len(results) == steps else [*results[3:12:4], *results[12:]]


def pndm_allowed(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Upstream cannot begin with Runge and Kutta in fewer than four steps."""
    return within_the_table(config, steps, settings) and (config["skip_prk_steps"] or steps >= 4)


def inverse_allowed(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """A picture without noise does not say which noise it has: upstream's sample gives NaN."""
    blind = config["prediction_type"] == "sample" and config["set_alpha_to_one"]
    return within_the_table(config, steps, settings) and not blind


def consistent(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """No more steps than the model was distilled in."""
    return not_blind(config, steps, settings) and steps <= int(config["original_inference_steps"] * settings.get("strength", 1.0))


def has_two_ends(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """One step from sigma 1 cannot be stretched to end elsewhere: upstream's shift_terminal gives NaN."""
    return steps > 1 or not config["shift_terminal"]


def heun_calls(results: Sequence[Any], steps: int) -> Sequence[Any]:
    """Every second call ends a step, and the last."""
    return [*results[1::2], results[-1]]


def edm_allowed(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Upstream has no third order with noise, and from sigma_min to sigma_min a rounded step whose root or quotient is none."""
    noisy, still = config["algorithm_type"] == "sde-dpmsolver++", config["final_sigmas_type"] == "sigma_min"
    return not (noisy and (config["solver_order"] == 3 or still)) and not (still and config["solver_type"] == "heun")


def least_bound(config: Mapping[str, Any]) -> float:
    """Upstream adds noise after the last step, of the root of what rounding leaves of sigma_min^2 - sigma_min^2: 3e-5 for 0.1.
    Measured 1.1e-4, else 2e-6.
    """
    return 3e-4 if config.get("sigma_min") == 0.1 else 1e-5


def unclip_share(config: Mapping[str, Any]) -> float:
    """Upstream's last step takes beta_0 / (1 - a_0) of the picture, both from float32 tables: 1.0008 of it for 1200 training
    times, 0.9995 for 1000 (docs/quirks.md).
    """
    count = config.get("num_train_timesteps", 1000)
    first = schedule.betas(schedule="squaredcos_cap_v2", beta_start=0.0, beta_end=0.0, count=count, table="float32-torch")[:1]
    return float(first[0]) / (1.0 - float(schedule.cumulated(first)[0]))


def within_training(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """No more steps than training times."""
    return steps <= config["num_train_timesteps"]


def more_than_one(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Upstream divides by the number of steps less 1."""
    return steps > 1


CHURN: tuple[Mapping[str, Any], ...] = (
    {}, {"s_churn": 5.0}, {"s_churn": 40.0, "s_tmin": 0.1, "s_tmax": 9.0, "s_noise": 1.1},
)  # fmt: skip
EDM = {
    "prediction_type": ["epsilon", "v_prediction"], "sigma_schedule": ["karras", "exponential"],
    "final_sigmas_type": ["zero", "sigma_min"], "sigma_data": [0.5, 1.0], "ends": [{}, {"sigma_min": 0.3, "sigma_max": 50.0}],
    "rho": [7.0, 5.0],
}  # fmt: skip
FLOW = {
    "shift": [1.0, 3.0], "invert_sigmas": [False, True], "shift_terminal": [None, 0.02], "ramps": RAMPS,
    "dynamic": [
        {"use_dynamic_shifting": False}, {"use_dynamic_shifting": True},
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    ],
}  # fmt: skip


CASES = [
    Case(
        "DDPMScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE, SIGMOID, LAPLACE], "prediction_type": PREDICTIONS, "spacing": SPACING,
            "limits": LIMITS, "rescale_betas_zero_snr": [False, True],
            "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"],
        },
        allowed=not_blind,
    ),
    Case(
        "PNDMScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "spacing": SPACING, "set_alpha_to_one": [False, True],
            "prediction_type": PREDICTIONS[:2], "skip_prk_steps": [True, False],
        },
        allowed=pndm_allowed, keep=all_but_the_trials,
    ),
    Case(
        "DDIMInverseScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "spacing": SPACING[:3],
            "limits": LIMITS[:2], "set_alpha_to_one": [True, False], "rescale_betas_zero_snr": [False, True],
        },
        allowed=inverse_allowed,
    ),
    Case(
        "LCMScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "limits": LIMITS, "spacing": SPACING[1:3],
            "original_inference_steps": [50, 10, 1000], "timestep_scaling": [10.0, 0.01],
            "rescale_betas_zero_snr": [False, True],
        },
        settings=({}, {"strength": 0.62}), allowed=consistent,
    ),
    Case(
        "TCDScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "limits": LIMITS, "spacing": SPACING[1:3],
            "original_inference_steps": [50, 10, 1000], "rescale_betas_zero_snr": [False, True],
        },
        settings=({}, {"eta": 0.0}, {"eta": 0.7}, {"eta": 1.0, "strength": 0.62}), allowed=consistent,
    ),
    Case(
        "FlowMatchEulerDiscreteScheduler", {}, {**FLOW, "stochastic_sampling": [False, True]},
        settings=({"mu": 0.8}, {"mu": 1.3}), allowed=has_two_ends,
    ),
    Case("EDMEulerScheduler", {}, EDM, settings=CHURN),
    Case(
        "EDMDPMSolverMultistepScheduler", {},
        {
            **EDM, "solver_order": [2, 1, 3], "solver_type": ["midpoint", "heun"], "limits": [LIMITS[0], LIMITS[2]],
            "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"], "lower_order_final": [True, False],
            "euler_at_final": [False, True],
        },
        allowed=edm_allowed,
    ),
    Case(
        "CMStochasticIterativeScheduler", {},
        {
            "num_train_timesteps": [1000, 151], "sigma_min": [0.002, 0.1], "sigma_data": [0.5, 1.0], "rho": [7.0, 3.0],
            "s_noise": [1.0, 0.9], "clip_denoised": [False, True],
        },
        allowed=within_training, exact_bound=least_bound,
    ),
    Case(
        "UnCLIPScheduler", {},
        {
            "variance_type": ["fixed_small_log", "learned_range"], "prediction_type": ["epsilon", "sample"],
            "limits": LIMITS[:2], "num_train_timesteps": [1000, 1200],
        },
        allowed=more_than_one, last_share=unclip_share,
    ),
    Case("FlowMatchLCMScheduler", {}, FLOW, settings=({"mu": 0.8},), allowed=has_two_ends),
    Case(
        "FlowMatchHeunDiscreteScheduler", {}, {"shift": [1.0, 3.0], "num_train_timesteps": [1000, 1300]},
        settings=({}, {"s_churn": 3.0}, {"s_churn": 30.0, "s_tmin": 0.1, "s_tmax": 0.9, "s_noise": 1.1}), keep=heun_calls,
    ),
]  # fmt: skip
