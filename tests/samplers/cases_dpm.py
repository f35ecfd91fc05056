"""DPM-Solver, DEIS, UniPC and SA-Solver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from refdiff.samplers import from_config
from tests.samplers.cases import COSINE, LINEAR, SCALED, Case
from tests.samplers.cases_first import SPACING

PREDICTIONS = ["epsilon", "v_prediction", "sample"]
THRESHOLDS: list[Any] = [{}, {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}]
KEB: list[Any] = [{}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}]
ENDS: list[Any] = [{}, {"sigma_min": 0.05, "sigma_max": 9.0}]
FLOW: list[Any] = [{"use_flow_sigmas": True}, {"use_flow_sigmas": True, "flow_shift": 3.0}]

DYNAMIC = {"use_flow_sigmas": True, "use_dynamic_shifting": True, "prediction_type": "flow_prediction"}
DYNAMIC_ORDERS: dict[str, list[Any]] = {"flow_shift": [1.0, 3.0], "solver_order": [2, 3]}


def on_a_ramp(config: Mapping[str, Any]) -> bool:
    """Whether the sigmas are not those of spaced times."""
    return any(value for key, value in config.items() if key.startswith("use_") and key != "use_dynamic_shifting")


def two_velocities(config: Mapping[str, Any]) -> bool:
    """With flow sigmas upstream takes a v_prediction for one thing where it makes x0 of it, for another where noise."""
    noises = config.get("algorithm_type") == "dpmsolver" or not config.get("predict_x0", True)
    return bool(noises and config.get("use_flow_sigmas") and config.get("prediction_type") == "v_prediction")


def fits(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """1000 leading steps would all be at one time, 999 with an offset begin beyond the last; and with lambda_min_clipped, 999
    trailing ones do not exist.
    """
    if on_a_ramp(config):
        return True
    if config.get("timestep_spacing") == "leading":
        return steps + config["steps_offset"] < 1000
    return not (config.get("lambda_min_clipped", -9.0) > -9.0 and steps >= 999)


def multistep_allowed(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """A ramp that ends at sigma_min has this sigma twice at its end: upstream divides 0 by 0 there, unless the order is 1.

    Flow sigmas end below that sigma_min in many steps: fresh noise cannot lead up to it.
    """
    curved = config["solver_order"] == 3 or (config["solver_order"] == 2 and config["solver_type"] == "heun")
    lowered = config.get("euler_at_final") or (config.get("lower_order_final", True) and steps < 15)
    stands = on_a_ramp(config) and config.get("final_sigmas_type") == "sigma_min"
    rises = config.get("use_flow_sigmas") and stands and steps > 30 and str(config.get("algorithm_type")).startswith("sde")
    return fits(config, steps, settings) and not (stands and curved and not lowered and steps > 1) and not rises


def singlestep_allowed(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Upstream's thresholding for dpmsolver takes a table's element at no time at all, and stops."""
    rises = config.get("use_flow_sigmas") and config["final_sigmas_type"] == "sigma_min" and steps > 30
    stops = (config.get("thresholding") and config["algorithm_type"] == "dpmsolver") or two_velocities(config)
    return fits(config, steps, settings) and not stops and not (rises and config["algorithm_type"].startswith("sde"))


def inverse_allowed(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Upstream leaves out times that come twice, but not their sigmas."""
    if not multistep_allowed({**config, "final_sigmas_type": "sigma_min"}, steps, settings):
        return False
    return len(set(from_config(config).timesteps(steps).tolist())) == steps


def unipc_allowed(config: Mapping[str, Any], steps: int, settings: Mapping[str, Any]) -> bool:
    """Without lower_order_final upstream takes a step of more than order 1 to where it is, or to 0: NaN; and it stretches
    one step by 0.
    """
    stands = on_a_ramp(config) or config["final_sigmas_type"] == "zero"
    lowered = config.get("lower_order_final", True) or config["solver_order"] == 1 or steps == 1
    stretched = config.get("shift_terminal") and steps == 1
    return fits(config, steps, settings) and (lowered or not stands) and not stretched and not two_velocities(config)


CASES = [
    Case(
        "DPMSolverMultistepScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "spacing": SPACING, "limits": THRESHOLDS,
            "ramps": [*KEB, {"use_lu_lambdas": True}],
            "algorithm": [
                {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"},
                {"algorithm_type": "dpmsolver++", "final_sigmas_type": "sigma_min"},
                {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
                {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "zero"},
                {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"},
            ],
            "solver_order": [2, 1, 3], "solver_type": ["midpoint", "heun"], "lower_order_final": [True, False],
            "euler_at_final": [False, True], "rescale_betas_zero_snr": [False, True],
            "lambda_min_clipped": [{}, {"lambda_min_clipped": -5.1}],
        },
        allowed=multistep_allowed,
    ),
    Case(
        "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
        {
            "betas": [SCALED, LINEAR], "prediction_type": PREDICTIONS, "spacing": SPACING, "limits": THRESHOLDS,
            "solver_order": [2, 1], "solver_type": ["midpoint", "heun"],
        },
        allowed=multistep_allowed,
    ),
    Case(
        "DPMSolverMultistepScheduler", SCALED,
        {
            "prediction_type": ["flow_prediction", *PREDICTIONS], "flow": FLOW, "final_sigmas_type": ["zero", "sigma_min"],
            "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"], "solver_order": [2, 1, 3], "solver_type": ["midpoint", "heun"],
        },
        allowed=multistep_allowed,
    ),
    Case(
        "DPMSolverMultistepScheduler", SCALED,
        {
            "variance_type": ["learned", "learned_range"], "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"],
            "names": [{"solver_type": "bh2"}, {"solver_type": "logrho"}],
        },
    ),
    Case(
        "DPMSolverSinglestepScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "limits": THRESHOLDS, "ramps": [*KEB, *FLOW],
            "algorithm": [
                {"algorithm_type": "dpmsolver++", "final_sigmas_type": "zero"},
                {"algorithm_type": "dpmsolver++", "final_sigmas_type": "sigma_min"},
                {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
                {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "zero"},
                {"algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"},
            ],
            "solver_order": [2, 1, 3], "solver_type": ["midpoint", "heun"], "lower_order_final": [True, False],
            "lambda_min_clipped": [{}, {"lambda_min_clipped": -5.1}],
        },
        allowed=singlestep_allowed,
    ),
    Case(
        "DEISMultistepScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "limits": THRESHOLDS, "spacing": SPACING,
            "ramps": [*KEB, *FLOW], "solver_order": [2, 1, 3], "lower_order_final": [True, False],
        },
        allowed=fits,
    ),
    Case(
        "DPMSolverMultistepInverseScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "limits": THRESHOLDS, "spacing": SPACING,
            "ramps": KEB, "algorithm_type": ["dpmsolver++", "dpmsolver"], "solver_order": [2, 1, 3],
            "solver_type": ["midpoint", "heun"], "lower_order_final": [True, False], "euler_at_final": [False, True],
            "lambda_min_clipped": [{}, {"lambda_min_clipped": -5.1}],
        },
        allowed=inverse_allowed, bound=2e-5,  # 3 steps up to the cosine's 2e4 multiply what rounding left: measured 1.3e-5
    ),
    Case(
        "UniPCMultistepScheduler", {},
        {
            "betas": [SCALED, LINEAR, COSINE], "prediction_type": PREDICTIONS, "limits": THRESHOLDS, "spacing": SPACING,
            "ramps": [*KEB, *FLOW, {"use_flow_sigmas": True, "use_karras_sigmas": True}], "ends": ENDS,
            "form": [
                {"final_sigmas_type": "zero", "solver_type": "bh2"}, {"final_sigmas_type": "sigma_min", "solver_type": "bh2"},
                {"final_sigmas_type": "sigma_min", "solver_type": "bh1"},
            ],
            "solver_order": [2, 1, 3], "lower_order_final": [True, False], "disable_corrector": [[], [0], [1, 2]],
            "rescale_betas_zero_snr": [False, True],
        },
        allowed=unipc_allowed,
    ),
    Case(
        "UniPCMultistepScheduler", {"predict_x0": False, "final_sigmas_type": "sigma_min"},
        {
            "betas": [SCALED, LINEAR], "prediction_type": PREDICTIONS, "limits": THRESHOLDS, "spacing": SPACING, "ramps": KEB,
            "ends": ENDS, "solver_type": ["bh2", "bh1"], "solver_order": [2, 1, 3], "lower_order_final": [True, False],
            "disable_corrector": [[], [0], [1, 2]],
        },
        allowed=unipc_allowed,
    ),
    # From sigmas of 4e3 to 1e6 float32 leaves nothing to a difference of noises: these are for float64 alone.
    Case(
        "UniPCMultistepScheduler", {"predict_x0": False, "final_sigmas_type": "sigma_min"},
        {
            "betas": [COSINE, {**SCALED, "rescale_betas_zero_snr": True}], "prediction_type": PREDICTIONS,
            "ramps": [*FLOW, *KEB[:2], {"use_flow_sigmas": True, "use_karras_sigmas": True}], "solver_type": ["bh2", "bh1"],
            "solver_order": [2, 3],
        },
        allowed=unipc_allowed, steps=(),
    ),
    Case(
        "UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True},
        {
            "flow_shift": [1.0, 3.0], "shift_terminal": [None, 0.1], "solver_order": [2, 3],
            "final_sigmas_type": ["zero", "sigma_min"],
        },
        allowed=unipc_allowed,
    ),
    Case(
        "DPMSolverMultistepScheduler", DYNAMIC,
        {**DYNAMIC_ORDERS, "solver_type": ["midpoint", "heun"], "final_sigmas_type": ["zero", "sigma_min"]},
        settings=({"mu": 0.8}, {"mu": -0.4}), allowed=multistep_allowed, steps=(1, 3, 10),
    ),
    Case(
        "DPMSolverSinglestepScheduler", DYNAMIC,
        {
            **DYNAMIC_ORDERS, "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"], "final_sigmas_type": ["zero", "sigma_min"],
        },
        settings=({"mu": 0.8}, {"mu": -0.4}), allowed=singlestep_allowed, steps=(1, 3, 10),
    ),
    Case(
        "DEISMultistepScheduler", DYNAMIC, DYNAMIC_ORDERS,
        settings=({"mu": 0.8}, {"mu": -0.4}), allowed=fits, steps=(1, 3, 10),
    ),
    Case(
        "UniPCMultistepScheduler", DYNAMIC,
        {**DYNAMIC_ORDERS, "shift_terminal": [None, 0.1], "time_shift_type": ["exponential", "linear"]},
        settings=({"mu": 0.8}, {"mu": 1.4}), allowed=unipc_allowed, steps=(1, 3, 10),
    ),
]  # fmt: skip
