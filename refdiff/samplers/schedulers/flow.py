"""FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler and FlowMatchLCMScheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from refdiff.diffusion.prediction import denoised_from_flow
from refdiff.samplers.family import (
    FLAG,
    FLOW,
    RAMPS,
    RAMPS_ONLY,
    SHARES,
    Family,
    Network,
    Options,
    always,
    never,
    nothing,
    unchanged,
)
from refdiff.samplers.flow import flow_again, flow_euler, flow_heun
from refdiff.samplers.grids_flow import flow_grid, flow_heun_grid, flow_table
from refdiff.xp import Array


def flow_noised(x0: Array, noise: Array, sigma: float) -> Array:
    """(1 - sigma) x0 + sigma noise."""
    return (1.0 - sigma) * x0 + sigma * noise


def flow_network(options: Options) -> Network:
    """A network that sees x as it is and predicts the velocity."""
    return Network(unchanged, denoised_from_flow)


def flow_pair(options: Options) -> Network:
    """The same for solvers that ask for the velocity too."""
    return Network(unchanged, lambda x, v, sigma: (denoised_from_flow(x, v, sigma), v))


def altered(options: Options) -> Mapping[str, Any]:
    """Another solver with stochastic sampling."""
    if not options["stochastic_sampling"]:
        return {}
    return {"solve": flow_again, "network": flow_network, "stochastic": True, "draws": always}


def churned(options: Options, settings: Mapping[str, Any]) -> bool:
    """Only with churn."""
    return settings["s_churn"] > 0.0


# What says how mu follows from a picture's size is for the caller: base_shift and the like.
DEFAULTS = {
    **RAMPS, "num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False, "base_shift": 0.5, "max_shift": 1.15,
    "base_image_seq_len": 256, "max_image_seq_len": 4096, "invert_sigmas": False, "shift_terminal": None,
    "time_shift_type": "exponential",
}  # fmt: skip
ONLY = {**RAMPS_ONLY, "use_dynamic_shifting": FLAG, "invert_sigmas": FLAG, "time_shift_type": ("exponential", "linear")}

LISTED = {"timesteps": FLOW, "sigmas": SHARES}

FLOW_EULER = Family(
    class_name="FlowMatchEulerDiscreteScheduler", defaults={**DEFAULTS, "stochastic_sampling": False},
    only={**ONLY, "stochastic_sampling": FLAG}, grid=flow_grid, solve=flow_euler, table=flow_table, network=flow_pair,
    constants=nothing, settings={"mu": None}, stochastic=False, draws=never, outside=unchanged, altered=altered,
    planning=("mu",), noised=flow_noised, listed=LISTED,
)  # fmt: skip

FLOW_HEUN = Family(
    class_name="FlowMatchHeunDiscreteScheduler", defaults={"num_train_timesteps": 1000, "shift": 1.0}, only={},
    grid=flow_heun_grid, solve=flow_heun, table=flow_table, network=flow_pair, constants=nothing,
    settings={"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": math.inf, "s_noise": 1.0}, stochastic=True, draws=churned,
    outside=unchanged, noised=flow_noised,
)  # fmt: skip

# Pictures that grow from step to step (scale_factors) are another solver's.
FLOW_LCM = Family(
    class_name="FlowMatchLCMScheduler", defaults={**DEFAULTS, "scale_factors": None, "upscale_mode": "bicubic"},
    only={**ONLY, "scale_factors": (None,)}, grid=flow_grid, solve=flow_again, table=flow_table, network=flow_network,
    constants=nothing, settings={"mu": None}, stochastic=True, draws=always, outside=unchanged, planning=("mu",),
    noised=flow_noised, listed=LISTED,
)  # fmt: skip
