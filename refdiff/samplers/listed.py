"""Grids that the caller lists: times or sigmas instead of a number of steps, and lists that have been published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refdiff.errors import BadRequest
from refdiff.samplers.family import ENDED, FLOW, WHOLE, Family

# Align your steps, ten steps each (Sabour, Fidler, Kreis 2024, arXiv 2404.14507), under the names that they have in diffusers.
PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "StableDiffusionTimesteps": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24),
    "StableDiffusionSigmas": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0),
    "StableDiffusionXLTimesteps": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13),
    "StableDiffusionXLSigmas": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.38, 0.234, 0.113, 0.0),
    "StableDiffusionVideoSigmas": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.0),
}
RAMPED = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


def numbers(values: Sequence[float] | np.ndarray | str, kind: str) -> tuple[float, ...]:
    """The list, or the published one of that name; `kind` is "timesteps" or "sigmas".

    Raises: BadRequest for an unknown name, no numbers, numbers below 0, and where one is not below the one before it
    """
    if isinstance(values, str):
        if values not in PUBLISHED or not values.lower().endswith(kind):
            known = ", ".join(name for name in PUBLISHED if name.lower().endswith(kind))
            raise BadRequest(f'there are no {kind} "{values}": give a list of numbers, or one of {known}')
        return PUBLISHED[values]
    found: list[Any] = (
        [v.item() if isinstance(v, np.generic) else v for v in values] if isinstance(values, Sequence | np.ndarray) else []
    )
    good = (isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and v >= 0 for v in found)
    if not found or not all(good):
        raise BadRequest(f"{kind} {values} must be a list of numbers from 0 on")
    for before, after in zip(found, found[1:], strict=False):
        if not after < before:
            raise BadRequest(f"{kind} must fall, and {after:g} comes after {before:g}: sort them, largest first, each once")
    return tuple(found)


def check_timesteps(family: Family, config: Mapping[str, Any], times: Sequence[float], count: int) -> None:
    """Raises: BadRequest where the family takes no times, where the options make them, and for times that it cannot visit"""
    _take(family, "timesteps")
    if family.listed["timesteps"] != FLOW:
        _no_ramp(config, (*RAMPED, "use_flow_sigmas"), "timesteps")
    if config.get("timestep_type") == "continuous" and config["prediction_type"] == "v_prediction":
        raise BadRequest("timesteps with timestep_type continuous and v_prediction are made of the sigmas: give sigmas")
    if config.get("strength", 1.0) != 1.0:
        raise BadRequest("strength makes the times itself: leave it out, and list the times from where the run begins")
    last = count if family.listed["timesteps"] == FLOW else count - 1
    if times[0] > last:
        raise BadRequest(f"the first time {times[0]:g} is beyond the last training time {last}: begin there or below")
    if family.listed["timesteps"] == FLOW and times[-1] == 0:
        raise BadRequest("a flow has no noise left at time 0: leave it out, the run ends there")
    if family.listed["timesteps"] == WHOLE and any(t != int(t) for t in times):
        raise BadRequest(f"{family.class_name} visits whole times alone: round {list(times)}")


def check_sigmas(family: Family, config: Mapping[str, Any], sigmas: Sequence[float]) -> None:
    """Raises: BadRequest where the family takes no sigmas, and for too few, or sigmas that are no shares of noise for flows"""
    _take(family, "sigmas")
    if family.listed["sigmas"] == ENDED:
        if len(sigmas) < 2:
            raise BadRequest("sigmas are those before each step and the one after the last: give two at least")
        return
    if not config.get("use_flow_sigmas", True):
        raise BadRequest(f"{family.class_name} takes sigmas with use_flow_sigmas True alone")
    if sigmas[0] > 1.0 or sigmas[-1] <= 0.0:
        raise BadRequest(f"sigmas of a flow are shares of noise before each step: from 1 down, and above 0, not {list(sigmas)}")
    if "flow_shift" in config:
        _no_ramp(config, RAMPED, "sigmas")


def _take(family: Family, kind: str) -> None:
    if kind not in family.listed:
        from refdiff.samplers.schedulers import FAMILIES

        able = " or ".join(name for name, f in FAMILIES.items() if kind in f.listed)
        raise BadRequest(f"{family.class_name} takes no {kind}: give a number of steps, or use --sampler {able}")


def _no_ramp(config: Mapping[str, Any], names: Sequence[str], kind: str) -> None:
    chosen = [name for name in names if config.get(name)]
    if chosen:
        raise BadRequest(f"{kind} and {chosen[0]} exclude each other: leave one")
