"""SASolverScheduler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from refdiff.samplers.family import MODEL, MODEL_ONLY, RAMPS, Family, Options, diffusion_table, preserving
from refdiff.samplers.grids_dpm import sa_grid
from refdiff.samplers.sa_solver import DATA, NOISE, sa_solver
from refdiff.samplers.schedulers.dpm_multistep import DPM_ONLY, FLOW, SPACED, THRESHOLD, altered, network

ORDERS = (1, 2, 3, 4)
OTHERS = ("use_dynamic_shifting", "time_shift_type", "solver_order", "solver_type")
SCHEMES = {"data_prediction": DATA, "noise_prediction": NOISE}


def draws(options: Options, settings: Mapping[str, Any]) -> bool:
    """Unless tau is 0 everywhere."""
    return settings["tau"] is None or bool(np.any(np.asarray(settings["tau"]) > 0.0))


SA_SOLVER = Family(
    class_name="SASolverScheduler",
    defaults={
        **MODEL, **THRESHOLD, **RAMPS, "use_flow_sigmas": False, "flow_shift": FLOW["flow_shift"], **SPACED,
        "predictor_order": 2, "corrector_order": 2, "tau_func": None, "algorithm_type": "data_prediction",
        "lower_order_final": True, "lambda_min_clipped": -np.inf, "variance_type": None,
    },
    only={
        **{key: value for key, value in DPM_ONLY.items() if key not in OTHERS},
        "timestep_spacing": MODEL_ONLY["timestep_spacing"], "algorithm_type": tuple(SCHEMES), "predictor_order": ORDERS,
        "corrector_order": ORDERS, "tau_func": (None,),
    },
    grid=sa_grid, solve=sa_solver, table=diffusion_table, network=network,
    constants=lambda options: {"scheme": SCHEMES[options["algorithm_type"]]}, settings={"tau": None}, stochastic=True,
    draws=draws, outside=preserving, altered=altered, planning=("tau",), arrays=("tau",),
)  # fmt: skip
