"""Which times and noise levels a run of n steps visits: the grids of upstream's schedulers, quirks included."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from refdiff.diffusion import ramps, schedule, spacing
from refdiff.errors import BadRequest
from refdiff.samplers.churn import raised

NO_SIGNAL = 1e-16  # instead of 0, where the variance-exploding form has no sigma: 1e8 is as good as infinite in float32


@dataclass(frozen=True)
class Grid:
    """All that is decided before the loop.

    Shapes: `times` [n], `sigmas` [n+1]: before each step and after the last; `initial` takes unit noise to the first x;
    `policy` holds one array [n] for each further thing that the solver does step by step, by the name of its parameter;
    `between` is the time of each sigma besides `sigmas[:-1]` at which the solver calls the network; `calls` lists the times of
    all calls as upstream lists them, where that is not `times`; `time_at` gives the time of any other sigma, for solvers that
    choose their own.
    """

    times: np.ndarray
    sigmas: np.ndarray
    initial: float
    policy: Mapping[str, np.ndarray]
    between: Mapping[float, float] = field(default_factory=dict)
    calls: np.ndarray | None = None
    time_at: Callable[[float], float] | None = None


def strided_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DDIM's: a step from time t ends at t - count // steps, whatever the next time is (a quirk of upstream).

    `targets` are the sigmas of these ends. Before time 0 the signal is whole, or that of time 0 where set_alpha_to_one
    is false.
    Raises: BadRequest as `spaced`
    Traps: prev-t-stride, final-alpha
    """
    count = len(alphas)
    alphas = np.maximum(alphas.astype(np.float64), NO_SIGNAL)
    times = np.round(spaced(config, steps)).astype(np.int64)
    ends = times - count // steps
    final = 1.0 if config["set_alpha_to_one"] else float(alphas[0])
    targets = schedule.sigmas_of(np.where(ends >= 0, alphas[np.maximum(ends, 0)], final))
    sigmas = schedule.sigmas_of(alphas[times])
    initial = math.sqrt(1.0 + float(sigmas[0]) ** 2)
    return Grid(times, np.append(sigmas, targets[-1]), initial, {"targets": targets})


def plms_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """PNDM's: as DDIM's, and `restarts`: where the first step, taken again from the second time, is said to have begun.

    That is one stride before the second time, which is the first time unless rounding moved one of them.
    Traps: prev-t-stride, final-alpha
    """
    grid = strided_grid(config, alphas, steps)
    begins = np.append(grid.times[1:], 0) + len(alphas) // steps
    restarts = schedule.sigmas_of(alphas[np.minimum(begins, len(alphas) - 1)].astype(np.float64))
    return replace(grid, policy={**grid.policy, "restarts": restarts}, calls=second_twice(grid.times))


def euler_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """Euler's: sigmas between the training times by interpolation or along a ramp, and at the end 0 or the smallest of training.

    The first scale is the first sigma, or for leading the deviation of noise and signal together. "log_linear" makes one sigma
    more than there are steps, so that the run does not reach the end (a quirk of upstream).
    Traps: init-sigma, sigma-tail
    """
    table = schedule.sigmas_of(alphas)
    times, sigmas = euler_levels(config, table, steps)
    if config["timestep_type"] == "continuous" and config["prediction_type"] == "v_prediction":
        times = np.float32(0.25) * np.log(sigmas[:-1].astype(np.float32))
    first = float(sigmas.max())
    initial = math.sqrt(first**2 + 1.0) if config["timestep_spacing"] == "leading" else first
    return Grid(times[:steps].astype(np.float32), sigmas[: steps + 1], initial, {})


def churned_euler_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """Euler's, and how far churn goes back before each step; it counts the one sigma too many of "log_linear" too."""
    _, sigmas = euler_levels(config, schedule.sigmas_of(alphas), steps)
    return replace(euler_grid(config, alphas, steps), policy={"raised": churned(config, sigmas)[:steps]})


def euler_levels(config: Mapping[str, Any], table: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Euler's spaced times and sigmas, along a ramp where one is asked for, with the sigma at the end; or those given.

    Shapes: -> [n], [n+1], or with "log_linear" and no ramp [n], [n+2]
    """
    if "given_sigmas" in config:
        return given_levels(config, table)
    times = spaced(config, steps).astype(np.float32)
    if config["interpolation_type"] == "log_linear":
        sigmas = np.exp(schedule.linspace_torch(np.log(table[-1]), np.log(table[0]), steps + 1))
    else:
        sigmas = np.interp(times, np.arange(len(table)), table)
    times, sigmas = ramped(config, times, sigmas, table)
    return times, np.append(sigmas, {"zero": 0.0, "sigma_min": table[0]}[config["final_sigmas_type"]]).astype(table.dtype)


def given_levels(config: Mapping[str, Any], table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sigmas that the caller lists, with the one at the end, and their times.  Shapes: -> [n], [n+1]"""
    sigmas = np.array(config["given_sigmas"], dtype=table.dtype)
    return ramps.time_of(sigmas[:-1], table), sigmas


def churned(config: Mapping[str, Any], sigmas: np.ndarray) -> np.ndarray:
    """`churn.raised` with a caller's settings, for as many steps as there are sigmas before the last.  Shapes: [n+1] -> [n]"""
    told = {name: config[name] for name in ("s_churn", "s_tmin", "s_tmax")}
    return np.array(raised(sigmas.astype(np.float64).tolist(), steps=len(sigmas) - 1, **told))


def ramped(config: Mapping[str, Any], times: np.ndarray, sigmas: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Times and sigmas along the ramp that the options ask for, between the ends of `sigmas`; without one, the same.

    `sigma_min` and `sigma_max`, where the scheduler has them, are the ends instead. Two ramps at once are refused.
    Shapes: [n], [n], [T] -> [n], [n]
    Raises: BadRequest for two ramps
    """
    chosen = [name for name in RAMPS if config.get(name)]
    if not chosen:
        return times, sigmas
    if len(chosen) > 1:
        raise BadRequest(f"{' and '.join(chosen)} exclude each other: leave one")
    low, high = config.get("sigma_min"), config.get("sigma_max")
    ends = {"low": float(sigmas[-1]) if low is None else low, "high": float(sigmas[0]) if high is None else high}
    sigmas = RAMPS[chosen[0]](len(times), ends)
    return ramps.time_of(sigmas, table), sigmas


RAMPS = {
    "use_karras_sigmas": lambda count, ends: ramps.karras(count, **ends, rho=7.0),
    "use_exponential_sigmas": lambda count, ends: ramps.exponential(count, **ends),
    "use_beta_sigmas": lambda count, ends: ramps.beta(count, **ends, a=0.6, b=0.6),
}


def spaced(config: Mapping[str, Any], steps: int) -> np.ndarray:
    """The times of n steps as DDIM, PNDM and Euler space them, or as the caller lists them; linspace is not rounded.

    Shapes: -> [n]
    Raises: BadRequest where the offset takes the first time beyond the last training time: no network has learnt it
    Traps: steps-offset
    """
    if "given_timesteps" in config:
        return np.array(config["given_timesteps"])
    count = config["num_train_timesteps"]
    times = {
        "leading": lambda: spacing.leading(steps, count=count, offset=config["steps_offset"]),
        "trailing": lambda: spacing.trailing(steps, count=count),
        "linspace": lambda: spacing.linspaced(steps, count=count),
    }[config["timestep_spacing"]]()
    if times[0] >= count:
        offset = config["steps_offset"]
        raise BadRequest(f"{steps} steps with steps_offset {offset} begin at time {times[0]} of {count}: take fewer steps")
    return times


def second_twice(times: np.ndarray) -> np.ndarray:
    """PNDM calls the network at its second time twice.  Shapes: [n] -> [n+1], or [1] -> [1]  Traps: pndm-dup"""
    return times if len(times) == 1 else np.concatenate([times[:2], times[1:]])
