"""k-diffusion's samplers, as ComfyUI and AUTOMATIC1111 have them too: one line each.

What is a class's name elsewhere is here "k_diffusion." and the function's name. The options are the model's, and
`schedule`, one of SCHEDULES; `sigma_min`, `sigma_max`, `rho`, for schedules that go between two ends; `discard_next_to_last`;
`initial`, the first latent's scale; `times`, the network's times of sigmas between the training's; `sigma_table`, how the
training's sigmas are rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.diffusion.prediction import DENOISED
from refdiff.errors import BadRequest
from refdiff.samplers.dpm2 import dpm2, dpm2_ancestral
from refdiff.samplers.dpm_multistep import data_flow, dpm_multistep, half_curvature, slope_by_half
from refdiff.samplers.euler import euler
from refdiff.samplers.euler_ancestral import euler_ancestral
from refdiff.samplers.family import FLAG, MODEL, Family, Options, betas_of, diffusion_network, never, nothing, unchanged
from refdiff.samplers.grids import Grid
from refdiff.samplers.grids_webui import BETWEEN_ENDS, INITIAL, SCHEDULES, TIMES, WITH_RHO, webui_grid
from refdiff.samplers.heun import heun
from refdiff.samplers.lms import lms

Policy = Callable[[Options, np.ndarray], dict[str, np.ndarray]]  # (options, sigmas) -> what the solver does step by step


def sigma_table(options: Options, precision: str) -> np.ndarray:
    """The training sigmas, from betas in float64: "compvis" rounds what is left of the signal to float32, "comfyui" the sigmas.

    Shapes: -> [num_train_timesteps], float32 for "float32-torch"
    """
    alphas = schedule.cumulated(betas_of(options, "float64"))
    if precision == "float64":
        return schedule.sigmas_of(alphas)
    return SIGMA_TABLES[options["sigma_table"]](alphas)


SIGMA_TABLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "compvis": lambda alphas: schedule.sigmas_of(alphas.astype(np.float32)),
    "comfyui": lambda alphas: schedule.sigmas_of(alphas).astype(np.float32),
}

DEFAULTS = {
    **MODEL, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "schedule": "uniform",
    "sigma_min": None, "sigma_max": None, "rho": None, "discard_next_to_last": False, "initial": "sigma",
    "times": "interpolated", "sigma_table": "compvis",
}  # fmt: skip
ONLY = {
    "beta_schedule": tuple(schedule.BETAS), "prediction_type": tuple(DENOISED), "schedule": tuple(SCHEDULES),
    "discard_next_to_last": FLAG, "initial": tuple(INITIAL), "times": tuple(TIMES), "sigma_table": tuple(SIGMA_TABLES),
}  # fmt: skip


def altered(options: Options) -> dict[str, Any]:
    """Raises: BadRequest for ends or an exponent that the schedule has no use for"""
    name = options["schedule"]
    for keys, able in ((("sigma_min", "sigma_max"), BETWEEN_ENDS), (("rho",), WITH_RHO)):
        for key in keys:
            if options[key] is not None and name not in able:
                raise BadRequest(f"schedule {name} has no {key}: leave it out, or choose one of {', '.join(able)}")
    return {}


def planned(policy: Policy) -> Callable[[Options, np.ndarray, int], Grid]:
    """The grid of a solver that is told more than the sigmas."""

    def grid(options: Options, table: np.ndarray, steps: int) -> Grid:
        found = webui_grid(options, table, steps)
        return replace(found, policy=policy(options, found.sigmas))

    return grid


def plain(options: Options, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """Nothing more."""
    return {}


def ancestral(options: Options, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """The sigmas to go down to, and the noise to add then, `eta` of what would forget everything.

    Math: u = min(s', eta sqrt(s'^2 (s^2 - s'^2) / s^2)), d^2 = s'^2 - u^2, in the table's precision
    Shapes: [n+1] -> [n] each
    Source: k-diffusion's sampling.py, get_ancestral_step
    """
    begin, end = sigmas[:-1] ** 2, sigmas[1:] ** 2
    eta = sigmas.dtype.type(options["eta"])
    ups = np.minimum(sigmas[1:], eta * np.sqrt(end * (begin - end) / begin))
    downs = np.sqrt(np.maximum(end - ups**2, 0)) if eta else sigmas[1:]
    return {"downs": downs, "ups": ups}


def midpoint(options: Options, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """The middles of the way to the next sigma, 0 where that is 0."""
    return {"middles": middles(sigmas[:-1], sigmas[1:])}


def ancestral_midpoint(options: Options, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """`ancestral`, and the middles of the way down."""
    found = ancestral(options, sigmas)
    return {**found, "middles": middles(sigmas[:-1], found["downs"])}


def middles(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The middles of the logarithms, 0 where one end is 0.  Shapes: [n], [n] -> [n]"""
    return np.sqrt(begin.astype(np.float64) * end)


def second_order(options: Options, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """Order 2 but for the first step, and one that ends at 0."""
    orders = np.full(len(sigmas) - 1, 2)
    orders[0] = 1
    orders[sigmas[1:] == 0.0] = 1
    return {"orders": orders}


def without_churn(options: Options) -> dict[str, Any]:
    """Euler's method alone."""
    return {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0, "noise": None}


def data_midpoint(options: Options) -> dict[str, Any]:
    """DPM-Solver++ by the middle of the step, without noise."""
    return {"scheme": data_flow(slope_by_half, half_curvature), "noise": None}


def forgets(options: Options, settings: Mapping[str, Any]) -> bool:
    """Only with an eta above 0."""
    return settings["eta"] > 0.0


def family(
    name: str,
    solve: Callable[..., Any],
    *,
    policy: Policy = plain,  # house: most solvers are told the sigmas alone
    constants: Callable[[Options], dict[str, Any]] = nothing,  # house: most have none
    settings: Mapping[str, Any] | None = None,  # house: most have none
    planning: tuple[str, ...] = (),  # house: all settings are for the solver
    draws: Callable[[Options, Mapping[str, Any]], bool] = never,  # house: most draw nothing
) -> Family:
    """The family of k-diffusion's function `name`."""
    return Family(
        class_name=f"k_diffusion.{name}", defaults=DEFAULTS, only=ONLY, grid=planned(policy), solve=solve, table=sigma_table,
        network=diffusion_network, constants=constants, settings=settings or {}, stochastic=draws is not never, draws=draws,
        outside=unchanged, altered=altered, planning=planning,
    )  # fmt: skip


ANCESTRAL = {"eta": 1.0, "s_noise": 1.0}
K_FAMILIES = {
    "k_euler": family("sample_euler", euler, constants=without_churn),
    "k_euler_ancestral": family(
        "sample_euler_ancestral", euler_ancestral, policy=ancestral, settings=ANCESTRAL, planning=("eta",), draws=forgets
    ),
    "k_heun": family("sample_heun", heun),
    "k_dpm_2": family("sample_dpm_2", dpm2, policy=midpoint),
    "k_dpm_2_ancestral": family(
        "sample_dpm_2_ancestral", dpm2_ancestral, policy=ancestral_midpoint, settings=ANCESTRAL, planning=("eta",), draws=forgets
    ),
    "k_lms": family("sample_lms", lms, settings={"order": 4}),
    "k_dpmpp_2m": family("sample_dpmpp_2m", dpm_multistep, policy=second_order, constants=data_midpoint),
}
