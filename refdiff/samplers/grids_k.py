"""The grids of the schedulers that diffusers has from k-diffusion: sigmas between training times, or along a ramp, then 0."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff.diffusion import ramps, schedule
from refdiff.samplers.dpmpp_sde import partway
from refdiff.samplers.grids import Grid, ramped, spaced

HALF = 0.5  # where DPMSolverSDE's middles are


def interpolated_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """LMS's: n sigmas by interpolation or along a ramp, and 0.

    Raises: BadRequest as `spaced` and `ramped`
    Traps: sigma-tail
    """
    times, sigmas = _levels(config, schedule.sigmas_of(alphas), steps)
    return Grid(times.astype(np.float32), sigmas, _initial(config, sigmas), {})


def ancestral_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """Euler ancestral's: the same sigmas, and `downs` and `ups` of `split`, in the table's precision, as upstream: where a step
    is long, float32 leaves few digits of `downs`.
    """
    grid = interpolated_grid(config, alphas, steps)
    downs, ups = split(grid.sigmas)
    return replace(grid, policy={"downs": downs, "ups": ups})


def heun_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """Heun's: the same sigmas; a step calls the network at its begin and at its end, the last at its begin alone."""
    grid = interpolated_grid(config, alphas, steps)
    return replace(grid, calls=np.append(grid.times[:1], np.repeat(grid.times[1:], 2)))


def midpoint_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """KDPM2's: a step but the last calls the network at its begin and at the middle of the logarithms of its sigmas.

    The times of Karras's ramp are rounded, those of the middles are not (a quirk of upstream).
    """
    table = schedule.sigmas_of(alphas)
    times, sigmas = _levels(config, table, steps)
    return _with_middles(config, np.round(times) if config["use_karras_sigmas"] else times, sigmas, sigmas[1:], table)


def ancestral_midpoint_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """KDPM2 ancestral's: as KDPM2's, but the middles are of the way to `downs`, from where the noise `ups` leads to the next
    sigma.
    """
    table = schedule.sigmas_of(alphas)
    times, sigmas = _levels(config, table, steps)
    downs, ups = split(sigmas)
    times = np.round(times) if config["use_karras_sigmas"] else times
    grid = _with_middles(config, times, sigmas, downs, table)
    return replace(grid, policy={**grid.policy, "downs": downs, "ups": ups})


def sde_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DPMSolverSDE's: as KDPM2's, but no time is rounded, and all are float64."""
    table = schedule.sigmas_of(alphas)
    times = spaced(config, steps).astype(np.float64)
    times, exact = ramped(config, times, np.interp(times, np.arange(len(table)), table), table)
    sigmas = np.append(exact, 0.0).astype(table.dtype)
    there = ramps.time_of(np.sqrt(exact[:-1] * exact[1:]), table)
    calls = np.append(times[:1], np.stack([there, times[1:]], axis=1).ravel())
    levels = sigmas.tolist()
    middles = [partway(a, b, HALF) for a, b in zip(levels[:-2], levels[1:-1], strict=True)]
    between = dict(zip(middles, there.tolist(), strict=True))
    return Grid(times, sigmas, _initial(config, sigmas), {}, between=between, calls=calls)


def split(sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sigmas to go down to, and the noise to add then, so that each step ends at the next sigma.

    Math: u^2 = s'^2 (s^2 - s'^2) / s^2, d^2 = s'^2 - u^2, which is s'^4 / s^2; no root of less than 0 by rounding
    Shapes: [n+1] -> [n], [n]
    Source: k-diffusion's sampling.py, get_ancestral_step with eta 1
    """
    begin, end = sigmas[:-1] ** 2, sigmas[1:] ** 2
    ups = np.sqrt(end * np.maximum(begin - end, 0) / begin)
    return np.sqrt(np.maximum(end - ups**2, 0)), ups


def _levels(config: Mapping[str, Any], table: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Times, float32 or, along a ramp, float64, and sigmas with the 0 at their end.  Shapes: [T] -> [n], [n+1]"""
    times = spaced(config, steps).astype(np.float32)
    times, sigmas = ramped(config, times, np.interp(times, np.arange(len(table)), table), table)
    return times, np.append(sigmas, 0.0).astype(table.dtype)


def _initial(config: Mapping[str, Any], sigmas: np.ndarray) -> float:
    """The first sigma, or for leading the deviation of noise and signal together.  Traps: init-sigma"""
    first = float(sigmas.max())
    return math.sqrt(first**2 + 1.0) if config["timestep_spacing"] == "leading" else first


def _with_middles(config: Mapping[str, Any], times: np.ndarray, sigmas: np.ndarray, ends: np.ndarray, table: np.ndarray) -> Grid:
    """With `middles`, the geometric means of the sigmas and these ends, and calls there; the last step has none.

    The middle of an ancestral step is the next sigma, but its time is another, unrounded one. As a call's time is found by its
    sigma, no middle may be one of the sigmas: each is a trifle less.
    """
    with np.errstate(divide="ignore"):
        middles = np.exp(0.5 * (np.log(sigmas[:-1]) + np.log(ends)))
    there = ramps.time_of(middles[:-1], table).astype(times.dtype)
    middles = np.append(middles[:-1].astype(np.float64) * (1.0 - 1e-12), 0.0)
    calls = np.append(times[:1], np.stack([there, times[1:]], axis=1).ravel())
    between = dict(zip(middles[:-1].tolist(), there.tolist(), strict=True))
    return Grid(times, sigmas, _initial(config, sigmas), {"middles": middles}, between=between, calls=calls)
