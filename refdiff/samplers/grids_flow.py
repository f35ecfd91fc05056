"""The grids of flow matching, EDM and consistency models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.errors import BadRequest
from refdiff.samplers.grids import RAMPS, Grid, churned
from refdiff.samplers.grids_dpm import multistep_orders
from refdiff.samplers.shift import dynamically_shifted, shifted, stretched


def flow_table(options: Mapping[str, Any], precision: str) -> np.ndarray:
    """The sigma of each training time, shifted once unless the shift depends on the picture.

    Shapes: -> [num_train_timesteps], rising
    """
    count = options["num_train_timesteps"]
    times = np.arange(1, count + 1, dtype=np.float64 if precision == "float64" else np.float32)
    sigmas = times / times.dtype.type(count)
    return sigmas if options.get("use_dynamic_shifting") else shifted(sigmas, options["shift"])


def flow_grid(config: Mapping[str, Any], table: np.ndarray, steps: int) -> Grid:
    """FlowMatchEuler's: even from the table's last sigma to its first, and shifted, which is a second time unless dynamic.

    Times or sigmas that the caller lists are shifted too; times are called as they are listed, unless turned around.

    Then stretched so that the last is `shift_terminal`, put on a ramp, and turned around, as the options say.
    Raises: BadRequest for a dynamic shift without `mu`, and for two ramps
    """
    count, times = config["num_train_timesteps"], np.array(config.get("given_timesteps", ()), dtype=np.float32)
    sigmas = times / count if len(times) else np.linspace(float(table[-1]), float(table[0]), steps)
    sigmas = np.array(config["given_sigmas"], dtype=np.float32) if "given_sigmas" in config else sigmas
    sigmas = dynamically_shifted(config, sigmas) if config["use_dynamic_shifting"] else shifted(sigmas, config["shift"])
    if config["shift_terminal"] and sigmas[-1] < 1.0:
        sigmas = stretched(sigmas, config["shift_terminal"])
    chosen = [name for name in RAMPS if config[name]]
    if len(chosen) > 1:
        raise BadRequest(f"{' and '.join(chosen)} exclude each other: leave one")
    if chosen:
        sigmas = RAMPS[chosen[0]](steps, {"low": float(sigmas[-1]), "high": float(sigmas[0])})
    sigmas, last = sigmas.astype(np.float32), np.float32(0.0)
    if config["invert_sigmas"]:
        sigmas, last = np.float32(1.0) - sigmas, np.float32(1.0)
    called_as_listed = len(times) and not config["invert_sigmas"]
    return Grid(times if called_as_listed else sigmas * np.float32(count), np.append(sigmas, last), 1.0, {})


def flow_heun_grid(config: Mapping[str, Any], table: np.ndarray, steps: int) -> Grid:
    """FlowMatchHeun's: as FlowMatchEuler's with a fixed shift, every time but the first called twice."""
    sigmas = shifted(np.linspace(float(table[-1]), float(table[0]), steps), config["shift"]).astype(np.float32)
    times = sigmas * np.float32(config["num_train_timesteps"])
    calls = np.append(times[:1], np.repeat(times[1:], 2))
    return Grid(times, np.append(sigmas, np.float32(0.0)), 1.0, {}, calls=calls)


def edm_table(options: Mapping[str, Any], precision: str) -> np.ndarray:
    """Sigmas of as many steps as there are training times, rising: EDM knows no training times.  Shapes: -> [count]"""
    found = edm_sigmas(options, np.linspace(0, 1, options["num_train_timesteps"]))[::-1]
    return found if precision == "float64" else found.astype(np.float32)


def edm_sigmas(config: Mapping[str, Any], ramp: np.ndarray) -> np.ndarray:
    """From sigma_max down to sigma_min, in the ramp's precision; upstream's exponential ramp is float32 always.

    One step of the exponential ramp is at sigma_min, where upstream has its beginning (a quirk).
    Shapes: [n] -> [n]
    """
    low, high = config["sigma_min"], config["sigma_max"]
    if config.get("sigma_schedule") == "exponential":
        return np.exp(schedule.linspace_torch(math.log(low), math.log(high), len(ramp)))[::-1]
    kind, rho = ramp.dtype.type, config["rho"]
    first, last = high ** (1 / rho), low ** (1 / rho)
    return (kind(first) + ramp * kind(last - first)) ** kind(rho)


def edm_grid(config: Mapping[str, Any], table: np.ndarray, steps: int) -> Grid:
    """EDMEuler's: the first scale is of noise and signal together; a time is a quarter of the logarithm of sigma."""
    grid = edm_grid_of(config, edm_sigmas(config, np.linspace(0, 1, steps)))
    return replace(grid, policy={"raised": churned(config, grid.sigmas)})


def edm_dpm_grid(config: Mapping[str, Any], table: np.ndarray, steps: int) -> Grid:
    """EDMDPMSolverMultistep's: the ramp in float32, sigma_min itself at the end, and the order of each step; to sigma 0 it is 1.

    Raises: BadRequest for the third order with fresh noise
    """
    if config["algorithm_type"] == "sde-dpmsolver++" and config["solver_order"] == 3:
        raise BadRequest("algorithm_type sde-dpmsolver++ has no solver_order 3: write 2")
    grid = edm_grid_of(config, edm_sigmas(config, schedule.linspace_torch(0.0, 1.0, steps)))
    if config["final_sigmas_type"] == "sigma_min":
        grid.sigmas[-1] = min(grid.sigmas[-2], np.float32(config["sigma_min"]))
    orders = multistep_orders(config, steps)
    if config["final_sigmas_type"] == "zero":
        orders[-1] = 1
    return replace(grid, policy={"orders": orders})


def edm_grid_of(config: Mapping[str, Any], sigmas: np.ndarray) -> Grid:
    """Times, the last sigma and the first scale.  Shapes: [n]"""
    sigmas = sigmas.astype(np.float32)
    last = sigmas[-1] if config["final_sigmas_type"] == "sigma_min" else np.float32(0.0)
    times = np.float32(0.25) * np.log(sigmas)
    return Grid(times, np.append(sigmas, last), math.sqrt(config["sigma_max"] ** 2 + 1.0), {})


def consistency_grid(config: Mapping[str, Any], table: np.ndarray, steps: int) -> Grid:
    """CMStochasticIterative's: whole strides through the training times, these on Karras's ramp; it ends at sigma_min.

    `up` is the deviation of the noise after each step, so that with what is left at sigma_min it is the next sigma.
    """
    count, least = config["num_train_timesteps"], config["sigma_min"]
    times = np.array(config["given_timesteps"])[::-1] if "given_timesteps" in config else np.arange(steps) * (count // steps)
    ramp = times / max(count - 1, 1)
    sigmas = edm_sigmas(config, ramp)
    ends = np.append(sigmas, least).astype(np.float32)
    up = config["s_noise"] * np.sqrt(np.maximum(ends[1:].astype(np.float64) ** 2 - least**2, 0.0))
    up[-1] = 0.0
    return Grid(250.0 * np.log(sigmas), ends, config["sigma_max"], {"up": up})
