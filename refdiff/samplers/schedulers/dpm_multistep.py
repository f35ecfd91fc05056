"""DPMSolverMultistepScheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from refdiff.diffusion.limit import limiter
from refdiff.diffusion.prediction import DENOISED
from refdiff.errors import BadRequest
from refdiff.samplers.dpm_multistep import (
    Scheme,
    data_diffusion,
    data_flow,
    dpm_multistep,
    half_curvature,
    misplaced_curvature,
    noise_diffusion,
    noise_flow,
    slope_by_half,
    slope_by_interpolation,
)
from refdiff.samplers.family import FLAG, MODEL, MODEL_ONLY, RAMPS, RAMPS_ONLY, WHOLE, Family, Network, Options, preserving
from refdiff.samplers.grids_dpm import dpm_multistep_grid, flowing
from refdiff.samplers.schedulers.euler import almost_zero_table
from refdiff.xp import Array

SCHEMES: dict[str, Callable[[Callable[[float], float], Callable[[float], float]], Scheme]] = {
    "dpmsolver++": data_flow, "dpmsolver": noise_flow, "sde-dpmsolver++": data_diffusion, "sde-dpmsolver": noise_diffusion,
    "deis": data_flow,
}  # fmt: skip
SLOPES = {
    "midpoint": slope_by_half, "heun": slope_by_interpolation,
    "logrho": slope_by_half, "bh1": slope_by_half, "bh2": slope_by_half,
}  # fmt: skip
NOISE_SCHEMES = ("dpmsolver", "sde-dpmsolver")
RANDOM_SCHEMES = ("sde-dpmsolver++", "sde-dpmsolver")

LEARNED = ("learned", "learned_range")
THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
FLOW = {"use_flow_sigmas": False, "flow_shift": 1.0, "use_dynamic_shifting": False, "time_shift_type": "exponential"}
FLOW_ONLY: dict[str, tuple] = {
    "use_flow_sigmas": FLAG,
    "use_dynamic_shifting": FLAG,
    "time_shift_type": ("exponential", "linear"),
}
MU = {"mu": None}  # for a dynamic shift
SPACED = {"timestep_spacing": "linspace", "steps_offset": 0}
DPM = {
    **MODEL, **THRESHOLD, **RAMPS, **FLOW, "solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint",
    "lambda_min_clipped": -math.inf, "variance_type": None,
}  # fmt: skip
DPM_ONLY = {
    "beta_schedule": MODEL_ONLY["beta_schedule"], **RAMPS_ONLY, **FLOW_ONLY, "thresholding": FLAG, "solver_order": (1, 2, 3),
    "prediction_type": (*DENOISED, "flow_prediction"), "solver_type": tuple(SLOPES), "lower_order_final": FLAG,
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", *LEARNED),
}  # fmt: skip
FINAL = ("zero", "sigma_min")


def scheme_of(options: Options) -> Scheme:
    """What is integrated, and with which weights."""
    curvature = misplaced_curvature if options["algorithm_type"] == "sde-dpmsolver++" else half_curvature
    return SCHEMES[options["algorithm_type"]](SLOPES[options["solver_type"]], curvature)


def draws(options: Options, settings: Mapping[str, Any]) -> bool:
    """Only where the diffusion is followed, not its flow."""
    return options["algorithm_type"] in RANDOM_SCHEMES


def network(options: Options) -> Network:
    """A network for diffusion or, with flow sigmas, for x = (1 - f) x0 + f noise, its answer limited.

    Of a network that tells its variance too only the first channels are taken, as many as the latent has.
    """
    scale, limit = (flowing if options["use_flow_sigmas"] else preserving), limiter(options)
    convert = {**DENOISED, "flow_prediction": lambda x, v, a, s: x - s * v}[options["prediction_type"]]
    learned = options.get("variance_type") in LEARNED

    def denoised(seen: Array, output: Array, sigma: float) -> Array:
        a = scale(sigma)
        return limit(convert(seen, output[:, : seen.shape[1]] if learned else output, a, sigma * a))

    return Network(scale, denoised)


def altered(options: Options) -> dict[str, Any]:
    """The form of the latents, with flow sigmas.

    Raises: BadRequest for options that exclude each other
    """
    ramps = [key for key, value in options.items() if key.startswith("use_") and value and key != "use_dynamic_shifting"]
    refuse(len(ramps) > 1, f"{' and '.join(ramps)} exclude each other: leave one")
    refuse(
        options["prediction_type"] == "flow_prediction" and not options["use_flow_sigmas"],
        "prediction_type flow_prediction is of latents that need use_flow_sigmas = True",
    )
    clip = options.get("lambda_min_clipped", 0.0)
    refuse(type(clip) not in (int, float) or math.isnan(clip), f"lambda_min_clipped = {clip!r} must be a number")
    return {"outside": flowing} if options["use_flow_sigmas"] else {}


def of_algorithm(options: Options) -> dict[str, Any]:
    """As `altered`, for families that have an algorithm_type.

    Raises: BadRequest as `altered`
    """
    algorithm, final = options["algorithm_type"], options.get("final_sigmas_type")
    refuse(
        algorithm in NOISE_SCHEMES and final == "zero",
        f"algorithm_type {algorithm} cannot end at 0: write final_sigmas_type sigma_min",
    )
    refuse(
        algorithm == "sde-dpmsolver" and options["solver_order"] == 3,
        "algorithm_type sde-dpmsolver has no order 3: write solver_order 2, or algorithm_type sde-dpmsolver++",
    )
    return altered(options)


def refuse(condition: bool, message: str) -> None:
    """Raises: BadRequest with the message where the condition holds"""
    if condition:
        raise BadRequest(message)


DPM_MULTISTEP = Family(
    class_name="DPMSolverMultistepScheduler",
    defaults={
        **DPM, **SPACED, "lower_order_final": True, "euler_at_final": False, "use_lu_lambdas": False,
        "final_sigmas_type": "zero", "rescale_betas_zero_snr": False,
    },
    only={
        **DPM_ONLY, "timestep_spacing": MODEL_ONLY["timestep_spacing"], "algorithm_type": tuple(SCHEMES), "euler_at_final": FLAG,
        "use_lu_lambdas": FLAG, "final_sigmas_type": FINAL, "rescale_betas_zero_snr": FLAG,
    },
    grid=dpm_multistep_grid, solve=dpm_multistep, table=almost_zero_table, network=network,
    constants=lambda options: {"scheme": scheme_of(options)}, settings=MU, stochastic=True, draws=draws, outside=preserving,
    altered=of_algorithm, planning=tuple(MU), listed={"timesteps": WHOLE},
)  # fmt: skip
