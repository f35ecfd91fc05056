"""k-diffusion's samplers, as ComfyUI and AUTOMATIC1111 have them too: one line each.

What is a class's name elsewhere is here "k_diffusion." and the function's name. The options are the model's, and
`schedule`, one of SCHEDULES; `sigma_min`, `sigma_max`, `rho`, for schedules that go between two ends; `discard_next_to_last`;
`initial`, the first latent's scale; `times`, the network's times of sigmas between the training's; `sigma_table`, how the
training's sigmas are rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.diffusion.noise import Stream
from refdiff.diffusion.prediction import DENOISED
from refdiff.errors import BadRequest
from refdiff.samplers.dpm2 import dpm2_ancestral, dpm2_with_churn
from refdiff.samplers.dpm_adaptive import K_DIFFUSION, dpm_adaptive
from refdiff.samplers.dpm_fast import dpm_fast, last_above_zero
from refdiff.samplers.dpm_multistep import slope_by_half, slope_by_interpolation
from refdiff.samplers.dpmpp_2s_ancestral import dpmpp_2s_ancestral
from refdiff.samplers.dpmpp_multistep import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde
from refdiff.samplers.dpmpp_sde import dpmpp_sde_along_a_path
from refdiff.samplers.euler_ancestral import euler_ancestral
from refdiff.samplers.euler_with_churn import euler_with_churn
from refdiff.samplers.family import FLAG, MODEL, Family, Options, always, betas_of, diffusion_network, never, nothing, unchanged
from refdiff.samplers.grids import Grid
from refdiff.samplers.grids_webui import BETWEEN_ENDS, INITIAL, SCHEDULES, TIMES, WITH_RHO, webui_grid
from refdiff.samplers.heun import heun_with_churn
from refdiff.samplers.lms import lms
from refdiff.samplers.restart import restart, webui_plan
from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array

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


def ancestral_midpoint(options: Options, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """`ancestral`, and the middles of the way down."""
    found = ancestral(options, sigmas)
    return {**found, "middles": middles(sigmas[:-1], found["downs"])}


def middles(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The middles of the logarithms, 0 where one end is 0.  Shapes: [n], [n] -> [n]"""
    return np.sqrt(begin.astype(np.float64) * end)


def lowest(options: Options, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """Where solvers end that cannot end at 0: the last sigma above it, or of one step, where ComfyUI stays, the model's least.

    Shapes: [n+1] -> [n], all the same
    """
    low = last_above_zero(sigmas.tolist())
    if low == sigmas[0]:
        low = float(sigma_table(options, "float32-torch")[0])
    return {"lows": np.full(len(sigmas) - 1, low)}


def restart_grid(options: Options, table: np.ndarray, steps: int) -> Grid:
    """AUTOMATIC1111's plan of restarts for so many steps, from the ends of the schedule."""
    found = webui_grid(options, table, steps)
    ends, begins = (np.array(values, table.dtype) for values in webui_plan(found.sigmas.tolist()))
    times = TIMES[options["times"]](begins, table)
    return replace(found, times=times, sigmas=ends, policy={"begins": begins})


def ends_at_zero(options: Options) -> dict[str, Any]:
    """Raises: BadRequest as `altered`, and for a schedule that ends above 0, after which there is nothing to restart"""
    if options["schedule"] == "kl_optimal_a1111":
        raise BadRequest("restarts need a schedule that ends at 0, which kl_optimal_a1111 does not: choose kl_optimal")
    return altered(options)


def noisy_if_asked(options: Options) -> dict[str, Any]:
    """AUTOMATIC1111's eta of 1 for samplers to which k-diffusion gives 0."""
    return {**altered(options), **({"settings": {"eta": 1.0, "s_noise": 1.0}} if options["noisy"] else {})}


def fast(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    lows: Sequence[float],
    eta: float,
    s_noise: float,
    noise: Stream | None,
) -> Iterator[Step]:
    """As many calls of the network as there are steps."""
    calls = len(sigmas) - 1
    return dpm_fast(denoise, x, [sigmas[0], lows[0]], calls=calls, eta=eta, s_noise=s_noise, noise=noise)


def adaptive(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    lows: Sequence[float],
    eta: float,
    s_noise: float,
    noise: Stream | None,
) -> Iterator[Step]:
    """As many steps as it takes, whatever the schedule's number."""
    between = [sigmas[0], lows[0]]
    return dpm_adaptive(denoise, x, between, order=3, control=K_DIFFUSION, eta=eta, s_noise=s_noise, noise=noise)


def slope_of(options: Options) -> dict[str, Any]:
    """How the last two pictures make a line."""
    return {"slope": SLOPES[options["slope"]]}


def churned(options: Options, settings: Mapping[str, Any]) -> bool:
    """Only with churn."""
    return settings["s_churn"] > 0.0


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


SLOPES = {"midpoint": slope_by_half, "heun": slope_by_interpolation}
CHURN = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0}
NOISY = {"eta": 1.0, "s_noise": 1.0}
QUIET = {"eta": 0.0, "s_noise": 1.0}
TO_NOISE: dict[str, Any] = {"defaults": {**DEFAULTS, "noisy": False}, "only": {**ONLY, "noisy": FLAG}, "altered": noisy_if_asked}
WITH_SLOPE: dict[str, Any] = {"defaults": {**DEFAULTS, "slope": "midpoint"}, "only": {**ONLY, "slope": tuple(SLOPES)}}


def stepping_down(name: str, solve: Callable[..., Any], policy: Policy) -> Family:
    """A family whose steps go down by `ancestral`."""
    return family(name, solve, policy=policy, settings=NOISY, planning=("eta",), draws=forgets)


K_FAMILIES: dict[str, Family] = {
    "k_euler": family("sample_euler", euler_with_churn, settings=CHURN, draws=churned),
    "k_euler_ancestral": stepping_down("sample_euler_ancestral", euler_ancestral, ancestral),
    "k_heun": family("sample_heun", heun_with_churn, settings=CHURN, draws=churned),
    "k_dpm_2": family("sample_dpm_2", dpm2_with_churn, settings=CHURN, draws=churned),
    "k_dpm_2_ancestral": stepping_down("sample_dpm_2_ancestral", dpm2_ancestral, ancestral_midpoint),
    "k_lms": family("sample_lms", lms, settings={"order": 4}),
    "k_dpm_fast": replace(family("sample_dpm_fast", fast, policy=lowest, settings=QUIET, draws=forgets), **TO_NOISE),
    "k_dpm_adaptive": replace(family("sample_dpm_adaptive", adaptive, policy=lowest, settings=QUIET, draws=forgets), **TO_NOISE),
    "k_dpmpp_2s_ancestral": stepping_down("sample_dpmpp_2s_ancestral", dpmpp_2s_ancestral, ancestral),
    "k_dpmpp_sde": family("sample_dpmpp_sde", dpmpp_sde_along_a_path, settings={**NOISY, "r": 0.5}, draws=forgets),
    "k_dpmpp_2m": family("sample_dpmpp_2m", dpmpp_2m),
    "k_dpmpp_2m_sde": replace(
        family("sample_dpmpp_2m_sde", dpmpp_2m_sde, constants=slope_of, settings=NOISY, draws=forgets), **WITH_SLOPE
    ),
    "k_dpmpp_3m_sde": family("sample_dpmpp_3m_sde", dpmpp_3m_sde, settings=NOISY, draws=forgets),
    "k_restart": replace(
        family("restart_sampler", restart, settings={"s_noise": 1.0}, draws=always), grid=restart_grid, altered=ends_at_zero
    ),
}
