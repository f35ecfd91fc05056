"""The grids of the DPM-Solver family: DPM-Solver, DEIS, UniPC and SA-Solver space their times alike, and unlike DDIM."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from refdiff.diffusion import ramps, schedule, spacing
from refdiff.errors import BadRequest
from refdiff.samplers.grids import RAMPS, Grid, ramped

FEW = 15  # below so many steps lower_order_final acts


def dpm_multistep_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DPMSolverMultistep's: `orders` is the order of each step.

    The last step is of order 1 where it ends at 0, with euler_at_final, or with lower_order_final in less than 15 steps, where
    the one before is of order 2 at most.
    Raises: BadRequest as `levels`
    Traps: sigma-tail
    """
    table = schedule.sigmas_of(alphas)
    times, sigmas = levels(config, table, steps)
    sigmas = np.append(sigmas, {"zero": 0.0, "sigma_min": table[0]}[config["final_sigmas_type"]])
    orders = rising(config["solver_order"], steps)
    few = config["lower_order_final"] and steps < FEW
    if few:
        orders[-2:] = np.minimum(orders[-2:], 2)
    if few or config["euler_at_final"] or config["final_sigmas_type"] == "zero":
        orders[-1] = 1
    return grid_of(config, times, sigmas, orders)


def dpm_singlestep_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DPMSolverSinglestep's: orders 1, 2, 3, 1, 2, 3, ...; at the end lower ones, if asked for, or if the steps do not divide.

    Raises: BadRequest as `levels`
    Traps: sigma-tail
    """
    table = schedule.sigmas_of(alphas)
    times, sigmas = levels(config, table, steps)
    sigmas = np.append(sigmas, {"zero": 0.0, "sigma_min": table[0]}[config["final_sigmas_type"]])
    order, to_zero = config["solver_order"], config["final_sigmas_type"] == "zero"
    orders = np.arange(steps) % order + 1
    if config["lower_order_final"] or steps % order or to_zero:
        orders[-1] = 1 if orders[-1] == order else orders[-1]
    if order == 3 and steps % 3 == 0 and orders[-1] == 1:
        orders[-3:] = [1, 2, 1]
    if to_zero:
        orders[-1] = 1
    return grid_of(config, times, sigmas, orders)


def levels(config: Mapping[str, Any], table: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Times, not yet whole, and the sigma before each step.

    Shapes: table [T] -> [n], [n]
    Raises: BadRequest as `spaced` and `ramped`
    """
    if config.get("use_flow_sigmas"):
        return flow_levels(config, steps)
    if config.get("use_lu_lambdas"):
        sigmas = lu(table, steps)
        return rounded(config, ramps.time_of(sigmas, table)), sigmas
    if any(config[name] for name in RAMPS):
        times, sigmas = ramped(config, np.empty(steps), table[::-1], table)
        return rounded(config, times) if config["use_karras_sigmas"] else times, sigmas
    times = spaced(config, table, steps)
    return times, np.interp(times, np.arange(len(table)), table)


def rounded(config: Mapping[str, Any], times: np.ndarray) -> np.ndarray:
    """DPMSolverMultistep rounds the times of Karras's and Lu's ramps, but not with the cosine's betas (a quirk of upstream).

    Times that are not rounded are cut off after the point.
    """
    return times if "use_lu_lambdas" in config and config["beta_schedule"] == "squaredcos_cap_v2" else times.round()


def spaced(config: Mapping[str, Any], table: np.ndarray, steps: int) -> np.ndarray:
    """n + 1 times without the last, for "linspace" and "leading"; "trailing" is as DDIM's.

    Times whose half log-SNR is below lambda_min_clipped are left out.
    Shapes: table [T] -> [n]
    Raises: BadRequest where n such times do not exist
    Traps: spacing, steps-offset
    """
    count = len(table)
    last = count - int(np.sum(-np.log(table) < config.get("lambda_min_clipped", -math.inf)))
    offset = config.get("steps_offset", 0)
    times = {
        "linspace": lambda: np.linspace(0, last - 1, steps + 1).round()[::-1][:-1],
        "leading": lambda: spacing.leading(steps + 1, count=last, offset=offset)[:-1],
        "trailing": lambda: np.arange(last, 0, -count / steps).round()[:steps] - 1,
    }[config.get("timestep_spacing", "linspace")]()
    if len(times) < steps or times[0] >= count or (steps > 1 and times[0] == times[-1]):
        raise BadRequest(
            f"{steps} steps with timestep_spacing {config.get('timestep_spacing', 'linspace')} and steps_offset {offset} "
            f"do not fit into the {last} training times: take fewer steps"
        )
    return times


def lu(table: np.ndarray, steps: int) -> np.ndarray:
    """Equal distances in log-SNR.  Shapes: [T] -> [n]  Source: Lu et al. 2022 (arXiv 2206.00927), section 3.4"""
    logs = np.log(table)
    return np.exp(float(logs[-1]) + np.linspace(0, 1, steps) * (float(logs[0]) - float(logs[-1])))


def flow_levels(config: Mapping[str, Any], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of noise from 1 - 1/T down, shifted; as sigmas.

    Math: f = shift u / (1 + (shift - 1) u), u = (1 - 1/T) (n - i) / n; x = (1 - f) x0 + f noise, so that sigma = f / (1 - f)
    Shapes: -> [n], [n]
    Source: Esser et al. 2024 (arXiv 2403.03206), equation 23
    """
    count, shift = config["num_train_timesteps"], config["flow_shift"]
    share = (1.0 - np.linspace(1, 1 / count, steps + 1))[::-1][:-1]
    share = shift * share / (1 + (shift - 1) * share)
    return share * count, share


def rising(order: int, steps: int) -> np.ndarray:
    """1, 2, ... up to the order, as answers come in.  Shapes: -> [n]"""
    return np.minimum(np.arange(1, steps + 1), order)


def grid_of(config: Mapping[str, Any], times: np.ndarray, sigmas: np.ndarray, orders: np.ndarray) -> Grid:
    """With whole times, sigmas in float32 as upstream's, and no order that needs two answers at one sigma.

    Shapes: [n], [n+1], [n]
    Raises: BadRequest where fresh noise would have to lead to a larger sigma
    """
    sigmas = sigmas.astype(np.float32)
    if str(config.get("algorithm_type")).startswith("sde") and np.any(np.diff(sigmas) > 0):
        raise BadRequest("sigmas rise, which algorithm_type sde-* cannot follow: take fewer steps, or final_sigmas_type zero")
    if config.get("use_flow_sigmas"):
        sigmas = sigmas.astype(np.float64)
        sigmas = sigmas / (1.0 - sigmas)
    orders = np.minimum(orders, since_standstill(sigmas))
    initial = OUTSIDE[bool(config.get("use_flow_sigmas"))]
    return Grid(times.astype(np.int64), sigmas, 1.0 / initial(float(sigmas[0])), {"orders": orders})


def since_standstill(sigmas: np.ndarray) -> np.ndarray:
    """How many answers there are, back from each step, at different sigmas.  Shapes: [n+1] -> [n]"""
    run, found = 0, []
    for i in range(len(sigmas) - 1):
        run = 1 if i == 0 or sigmas[i] == sigmas[i - 1] else run + 1
        found.append(run)
    return np.array(found)


def diffusing(sigma: float) -> float:
    """From x0 + sigma noise to the variance-preserving form."""
    return 1.0 / math.sqrt(1.0 + sigma * sigma)


def flowing(sigma: float) -> float:
    """From x0 + sigma noise to (1 - f) x0 + f noise."""
    return 1.0 / (1.0 + sigma)


OUTSIDE: dict[bool, Callable[[float], float]] = {False: diffusing, True: flowing}
