"""Which times and noise levels a run of n steps visits: the grids of upstream's schedulers, quirks included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.diffusion import schedule, spacing
from refdiff.errors import BadRequest


@dataclass(frozen=True)
class Grid:
    """All that is decided before the loop.

    Shapes: `times` [n], `sigmas` [n+1]: before each step and after the last; `initial` takes unit noise to the first x;
    `policy` holds one array [n] for each further thing that the solver does step by step, by the name of its parameter.
    """

    times: np.ndarray
    sigmas: np.ndarray
    initial: float
    policy: Mapping[str, np.ndarray]


def strided_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DDIM's: a step from time t ends at t - count // steps, whatever the next time is (a quirk of upstream).

    `targets` are the sigmas of these ends. Before time 0 the signal is whole, or that of time 0 where set_alpha_to_one
    is false.
    Raises: BadRequest as `spaced`
    Traps: prev-t-stride, final-alpha
    """
    count = len(alphas)
    times = np.round(spaced(config, steps)).astype(np.int64)
    ends = times - count // steps
    final = 1.0 if config["set_alpha_to_one"] else float(alphas[0])
    targets = schedule.sigmas_of(np.where(ends >= 0, alphas[np.maximum(ends, 0)].astype(np.float64), final))
    sigmas = schedule.sigmas_of(alphas[times].astype(np.float64))
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
    return Grid(grid.times, grid.sigmas, grid.initial, {**grid.policy, "restarts": restarts})


def euler_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """Euler's: sigmas between the training times by interpolation, and at the end 0 or the smallest of training.

    The first scale is the first sigma, or for leading the deviation of noise and signal together.
    Traps: init-sigma, sigma-tail
    """
    times = spaced(config, steps).astype(np.float32)
    table = schedule.sigmas_of(alphas)
    last = {"zero": 0.0, "sigma_min": table[0]}[config["final_sigmas_type"]]
    sigmas = np.append(np.interp(times, np.arange(len(table)), table), last).astype(table.dtype)
    first = float(sigmas[0])
    initial = math.sqrt(first**2 + 1.0) if config["timestep_spacing"] == "leading" else first
    return Grid(times, sigmas, initial, {})


def spaced(config: Mapping[str, Any], steps: int) -> np.ndarray:
    """The times of n steps as DDIM, PNDM and Euler space them; linspace is not rounded.

    Shapes: -> [n]
    Raises: BadRequest where the offset takes the first time beyond the last training time: no network has learnt it
    Traps: steps-offset
    """
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


def once(times: np.ndarray) -> np.ndarray:
    """One call of the network a step.  Shapes: [n] -> [n]"""
    return times


def second_twice(times: np.ndarray) -> np.ndarray:
    """PNDM calls the network at its second time twice.  Shapes: [n] -> [n+1], or [1] -> [1]  Traps: pndm-dup"""
    return times if len(times) == 1 else np.concatenate([times[:2], times[1:]])
