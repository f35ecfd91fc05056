"""The fixture of trajectories, trajectories.json: which runs it has, and where their latents are looked at.

The latents are those that upstream's formulas give in float64 with its tables of float32, so that rounding hides no fault.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from refdiff.samplers.schedulers.k_diffusion import K_FAMILIES
from tests.samplers.all_cases import CASES
from tests.samplers.cases import SCALED, Case, whatever
from tests.samplers.tables import BACK_AND_FORTH, key

PLACES = (0, 29, 58, 61, 90, 119)  # of 120 numbers, in both pictures of the batch
Run = tuple[Case, dict[str, Any], Mapping[str, Any], int]


def runs() -> Iterator[Run]:
    """Every scheduler in every configuration and with all of its settings, each time in another number of steps; and with nothing
    but its name, by its defaults.
    """
    bare = {case.class_name: case for case in reversed(CASES)}
    plain = [replace(case, base={}, options={}, allowed=whatever, steps=(7,)) for case in bare.values()]
    for case in [*CASES, *plain]:
        for turn, config in enumerate(case.configs()):
            for further, settings in enumerate(case.settings):
                possible = [steps for steps in case.steps or (3, 20) if case.allowed(config, steps, settings)]
                most = 7 if case.class_name == BACK_AND_FORTH else 20
                long = [steps for steps in possible if 3 <= steps <= most] or possible
                if long:
                    yield case, config, settings, long[(turn + further) % len(long)]


# k-diffusion's functions, but for two that it has not or that make steps of their own; their settings; steps and schedules.
K_NAMES = tuple(name for name in K_FAMILIES if name not in ("k_restart", "k_dpm_adaptive"))
K_SETTINGS: tuple[Mapping[str, Any], ...] = (
    {}, {"eta": 0.5, "s_noise": 0.9}, {"eta": 0.0}, {"s_churn": 2.0, "s_tmin": 0.1, "s_tmax": 9.0, "s_noise": 1.01},
    {"order": 2}, {"r": 0.3},
)  # fmt: skip
K_GRIDS = ((3, "simple"), (7, "karras"), (10, "uniform"))
K_BOUND = 2e-5  # both sides in float32
KRun = tuple[str, Mapping[str, Any], int, str]


def k_runs() -> Iterator[KRun]:
    """Every function with all the settings that it has, each time on the next grid."""
    for name in K_NAMES:
        fitting = [settings for settings in K_SETTINGS if set(settings) <= set(K_FAMILIES[name].settings)]
        for settings, (steps, schedule) in itertools.product(fitting, K_GRIDS):
            yield name, settings, steps, schedule


def k_config(schedule: str) -> dict[str, Any]:
    """Of a model, and of the schedule to run it by."""
    return {"_class_name": "PNDMScheduler", "skip_prk_steps": True, **SCALED, "prediction_type": "epsilon", "schedule": schedule}


def name_of_k_run(run: KRun) -> str:
    """What tells one run from another."""
    name, settings, steps, schedule = run
    return " ".join([name, *(f"{key}={value:g}" for key, value in settings.items()), str(steps), schedule])


def name_of_run(run: Run) -> str:
    """What tells one run from another, in a few letters."""
    _, config, settings, steps = run
    return hashlib.sha256(json.dumps([key(config, settings), steps]).encode()).hexdigest()[:12]


def seen(latents: list[np.ndarray]) -> list[list[float]]:
    """Some numbers of the latents after the first step, about half of the steps, and the last, with nine digits."""
    chosen = [latents[k] for k in sorted({0, len(latents) // 2, len(latents) - 1})]
    return [[float(f"{float(value):.9g}") for value in latent.ravel()[list(PLACES)]] for latent in chosen]
