"""UniPCMultistepScheduler."""

from __future__ import annotations

from typing import Any

from refdiff.samplers.dpm_multistep import data_flow, half_curvature, noise_flow, slope_by_half
from refdiff.samplers.family import FLAG, MODEL, MODEL_ONLY, RAMPS, SHARES, Family, Network, Options, never, preserving
from refdiff.samplers.grids_dpm import unipc_grid
from refdiff.samplers.schedulers.dpm_multistep import DPM_ONLY, FINAL, FLOW, MU, SPACED, THRESHOLD, altered, network, refuse
from refdiff.samplers.schedulers.euler import almost_zero_table
from refdiff.samplers.unipc import grown, itself, unipc

SIZES = {"bh2": grown, "bh1": itself, "midpoint": grown, "heun": grown, "logrho": grown}


def constants(options: Options) -> dict[str, Any]:
    """What is integrated, and the size of a step."""
    scheme = data_flow if options["predict_x0"] else noise_flow
    return {"scheme": scheme(slope_by_half, half_curvature), "size": SIZES[options["solver_type"]]}


def network_of(options: Options) -> Network:
    """As DPM-Solver's; upstream does not threshold what becomes noise again."""
    return network(options if options["predict_x0"] else {**options, "thresholding": False})


def of_unipc(options: Options) -> dict[str, Any]:
    """The form of the latents, with flow sigmas, which Karras's may be turned into.

    Raises: BadRequest for options that exclude each other
    """
    refuse(
        not options["predict_x0"] and options["final_sigmas_type"] == "zero",
        "predict_x0 = False cannot end at 0: write final_sigmas_type sigma_min",
    )
    terminal, skipped = options["shift_terminal"], options["disable_corrector"]
    refuse(terminal is not None and not options["use_flow_sigmas"], "shift_terminal needs use_flow_sigmas = True")
    refuse(
        not (terminal is None or (type(terminal) in (int, float) and 0 <= terminal < 1)),
        f"shift_terminal = {terminal!r} must be a number from 0 to below 1",
    )
    refuse(
        not isinstance(skipped, (list, tuple)) or any(type(step) is not int for step in skipped),
        f"disable_corrector = {skipped!r} must be a list of steps",
    )
    return altered({**options, "use_karras_sigmas": options["use_karras_sigmas"] and not options["use_flow_sigmas"]})


UNIPC = Family(
    class_name="UniPCMultistepScheduler",
    defaults={
        **MODEL, **THRESHOLD, **RAMPS, **FLOW, **SPACED, "solver_order": 2, "predict_x0": True, "solver_type": "bh2",
        "lower_order_final": True, "disable_corrector": [], "solver_p": None, "final_sigmas_type": "zero",
        "rescale_betas_zero_snr": False, "sigma_min": None, "sigma_max": None, "shift_terminal": None,
    },
    only={
        **{key: value for key, value in DPM_ONLY.items() if key != "variance_type"}, "solver_type": tuple(SIZES),
        "timestep_spacing": MODEL_ONLY["timestep_spacing"], "predict_x0": FLAG, "solver_p": (None,), "final_sigmas_type": FINAL,
        "rescale_betas_zero_snr": FLAG,
    },
    grid=unipc_grid, solve=unipc, table=almost_zero_table, network=network_of, constants=constants, settings=MU,
    stochastic=False, draws=never, outside=preserving, altered=of_unipc, planning=tuple(MU), listed={"sigmas": SHARES},
)  # fmt: skip
