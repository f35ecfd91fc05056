"""The grids of flow matching, EDM and consistency models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from refdiff.errors import BadRequest
from refdiff.samplers.grids import RAMPS, Grid


def flow_table(options: Mapping[str, Any], precision: str) -> np.ndarray:
    """The sigma of each training time, shifted once unless the shift depends on the picture.

    Shapes: -> [num_train_timesteps], rising
    """
    count = options["num_train_timesteps"]
    times = np.arange(1, count + 1, dtype=np.float64 if precision == "float64" else np.float32)
    sigmas = times / times.dtype.type(count)
    return sigmas if options.get("use_dynamic_shifting") else shifted(sigmas, options["shift"])


def shifted(sigmas: np.ndarray, shift: float) -> np.ndarray:
    """Math: k s / (1 + (k - 1) s).  Shapes: [n] -> [n]  Source: Esser et al. 2024 (arXiv 2403.03206), equation 23"""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def flow_grid(config: Mapping[str, Any], table: np.ndarray, steps: int) -> Grid:
    """FlowMatchEuler's: even from the table's last sigma to its first, and shifted, which is a second time unless dynamic.

    Then stretched so that the last is `shift_terminal`, put on a ramp, and turned around, as the options say.
    Raises: BadRequest for a dynamic shift without `mu`, and for two ramps
    """
    sigmas = np.linspace(float(table[-1]), float(table[0]), steps)
    sigmas = dynamically_shifted(config, sigmas) if config["use_dynamic_shifting"] else shifted(sigmas, config["shift"])
    if config["shift_terminal"] and sigmas[-1] < 1.0:
        sigmas = 1 - (1 - sigmas) * ((1 - config["shift_terminal"]) / (1 - sigmas[-1]))
    chosen = [name for name in RAMPS if config[name]]
    if len(chosen) > 1:
        raise BadRequest(f"{' and '.join(chosen)} exclude each other: leave one")
    if chosen:
        sigmas = RAMPS[chosen[0]](steps, {"low": float(sigmas[-1]), "high": float(sigmas[0])})
    sigmas, last = sigmas.astype(np.float32), np.float32(0.0)
    if config["invert_sigmas"]:
        sigmas, last = np.float32(1.0) - sigmas, np.float32(1.0)
    return Grid(sigmas * np.float32(config["num_train_timesteps"]), np.append(sigmas, last), 1.0, {})


def dynamically_shifted(config: Mapping[str, Any], sigmas: np.ndarray) -> np.ndarray:
    """The shift that is right for the picture's size, which the caller says: mu, or its exponential.

    Shapes: [n] -> [n]
    Raises: BadRequest where the caller does not
    """
    if config["mu"] is None:
        raise BadRequest(f'{config["_class_name"]} shifts dynamically: give settings {{"mu": ...}}, from the size of the picture')
    shift = math.exp(config["mu"]) if config["time_shift_type"] == "exponential" else config["mu"]
    return shift / (shift + (1 / sigmas - 1))


def flow_heun_grid(config: Mapping[str, Any], table: np.ndarray, steps: int) -> Grid:
    """FlowMatchHeun's: as FlowMatchEuler's with a fixed shift, every time but the first called twice."""
    sigmas = shifted(np.linspace(float(table[-1]), float(table[0]), steps), config["shift"]).astype(np.float32)
    times = sigmas * np.float32(config["num_train_timesteps"])
    calls = np.append(times[:1], np.repeat(times[1:], 2))
    return Grid(times, np.append(sigmas, np.float32(0.0)), 1.0, {}, calls=calls)
