"""The grids of the DPM-Solver family: DPM-Solver, DEIS, UniPC and SA-Solver space their times alike, and unlike DDIM."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff.diffusion import ramps, schedule, spacing
from refdiff.errors import BadRequest
from refdiff.samplers.grids import RAMPS, Grid, ramped
from refdiff.samplers.shift import dynamically_shifted, flow_shift_of, shifted

FEW = 15  # below so many steps lower_order_final acts
ALMOST = 1e-6  # what UniPC takes off a share of noise of 1, so that some signal is left


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
    orders = multistep_orders(config, steps)
    if config["final_sigmas_type"] == "zero":
        orders[-1] = 1
    return grid_of(config, times, sigmas, orders)


def multistep_orders(config: Mapping[str, Any], steps: int) -> np.ndarray:
    """1, 2, ... up to the order, as answers come in, and lower ones at the end.  Shapes: -> [n]"""
    orders = np.minimum(np.arange(1, steps + 1), config["solver_order"])
    few = config["lower_order_final"] and steps < FEW
    if few:
        orders[-2:] = np.minimum(orders[-2:], 2)
    if few or config.get("euler_at_final"):
        orders[-1] = 1
    return orders


def deis_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DEIS's: it never ends at 0, but at the smallest sigma of training, to which a ramp goes before its last step already.

    Raises: BadRequest as `levels`
    Traps: sigma-tail
    """
    table = schedule.sigmas_of(alphas)
    times, sigmas = levels(config, table, steps)
    sigmas = np.append(sigmas, sigmas[-1] if on_a_ramp(config) else table[0])
    return grid_of(config, times, sigmas, multistep_orders(config, steps))


def sa_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """SA-Solver's: DEIS's levels; `corrections` are the orders of the corrector, which has one answer more than the predictor.

    `taus`, the noise of each step, are the setting `tau`: one number, or one for each training time; None is 1 at the times
    from 200 to 800, else 0.
    Raises: BadRequest as `levels`, and for a tau that is neither
    """
    grid, count = (
        deis_grid({**config, "solver_order": config["predictor_order"], "lower_order_final": False}, alphas, steps),
        len(alphas),
    )
    run, left = since_standstill(grid.sigmas), steps - np.arange(steps) if config["lower_order_final"] else np.full(steps, 9)
    orders = np.minimum(grid.policy["orders"], left)
    corrections = np.minimum(np.minimum(config["corrector_order"], np.arange(steps) + 1), np.minimum(left + 2, run))
    times = np.arange(count)
    tau = np.asarray((times >= 200) & (times <= 800) if config["tau"] is None else config["tau"])
    if tau.shape not in ((), (count,)) or tau.dtype.kind not in "biuf" or not np.all(tau >= 0):
        raise BadRequest(f"tau must be a number from 0 on, or {count} of them, one for each training time")
    taus = np.broadcast_to(tau.astype(np.float64), (count,))[np.minimum(grid.times, count - 1)]
    return replace(grid, policy={"orders": orders, "corrections": corrections, "taus": taus})


def dpm_inverse_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DPMSolverMultistepInverse's: upwards from the first times, to the largest sigma, which ends a ramp twice."""
    table = schedule.sigmas_of(alphas)
    if on_a_ramp(config):
        times, sigmas = ramped(config, np.empty(steps), table, table)
        times = times.round() if config["use_karras_sigmas"] else times
        sigmas = np.append(sigmas, sigmas[-1])
    else:
        last, offset = unclipped(config, table), config["steps_offset"]
        times = {
            "linspace": lambda: np.linspace(0, last - 1, steps + 1).round()[:-1],
            "leading": lambda: spacing.leading(steps + 1, count=last, offset=offset)[:0:-1],
            "trailing": lambda: (np.arange(last, 0, -len(table) / steps).round()[:steps] - 1)[::-1],
        }[config["timestep_spacing"]]()
        sigmas = np.append(np.interp(times, np.arange(len(table)), table), table[last - 1])
    return grid_of(config, times, sigmas, multistep_orders(config, steps))


def unipc_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """UniPC's: `corrected` is whether a step begins with the correction of the one before, of whose order it is.

    Flow sigmas go from 1 and not from 1 - 1/T; Karras's may become flow sigmas. Ramps that do not end at 0 have their last sigma
    twice. A step to 0, or to where it is, is of order 1.
    Raises: BadRequest as `levels`
    Traps: sigma-tail
    """
    table = schedule.sigmas_of(alphas)
    if config["use_flow_sigmas"]:
        times, sigmas = unipc_flow_levels(config, table, steps)
    else:
        times, sigmas = levels(config, table, steps)
    last = sigmas[-1] if on_a_ramp(config) else table[0]
    sigmas = np.append(sigmas, 0.0 if config["final_sigmas_type"] == "zero" else last)
    left = steps - np.arange(steps) if config["lower_order_final"] else steps
    orders = np.minimum(np.minimum(np.arange(1, steps + 1), config["solver_order"]), left)
    grid = grid_of(config, times, sigmas, orders)
    still = np.diff(grid.sigmas) == 0.0
    orders = np.where(still | (grid.sigmas[1:] == 0.0), 1, grid.policy["orders"])
    corrected = [i > 0 and i - 1 not in config["disable_corrector"] and not still[i - 1] for i in range(steps)]
    return replace(grid, policy={"orders": orders, "corrected": np.array(corrected)})


def unipc_flow_levels(config: Mapping[str, Any], table: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of noise: Karras's sigmas s as s / (1 + s), or from 1 down, shifted, and stretched to end at shift_terminal.

    Shapes: [T] -> [n], [n]
    Raises: BadRequest for one step with shift_terminal, and as `dynamically_shifted`
    """
    count = config["num_train_timesteps"]
    if config["use_karras_sigmas"]:
        _, sigmas = ramped(config, np.empty(steps), table[::-1], table)
        share = sigmas / (1 + sigmas)
    else:
        share = np.array(config["given_sigmas"]) if "given_sigmas" in config else np.linspace(1, 1 / count, steps + 1)[:-1]
        share = dynamically_shifted(config, share) if config["use_dynamic_shifting"] else shifted(share, config["flow_shift"])
        if config["shift_terminal"]:
            if steps == 1:
                raise BadRequest("shift_terminal says where the last step begins, and one step begins at 1: take 2 steps")
            share = 1 - (1 - share) / ((1 - share[-1]) / (1 - config["shift_terminal"]))
        share[0] -= ALMOST if abs(share[0] - 1) < ALMOST else 0.0
    return share * count, share


def on_a_ramp(config: Mapping[str, Any]) -> bool:
    """Whether the sigmas are not those of spaced times."""
    return any(config.get(name) for name in (*RAMPS, "use_flow_sigmas", "use_lu_lambdas"))


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
    if "given_timesteps" in config:
        return np.array(config["given_timesteps"])
    count = len(table)
    last, offset = unclipped(config, table), config.get("steps_offset", 0)
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


def unclipped(config: Mapping[str, Any], table: np.ndarray) -> int:
    """How many training times have a half log-SNR from lambda_min_clipped on."""
    return len(table) - int(np.sum(-np.log(table) < config.get("lambda_min_clipped", -math.inf)))


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
    count = config["num_train_timesteps"]
    share = shifted((1.0 - np.linspace(1, 1 / count, steps + 1))[::-1][:-1], flow_shift_of(config))
    return share * count, share


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
