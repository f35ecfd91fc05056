"""DPMSolverMultistepInverseScheduler: from a picture back to the noise that leads to it."""

from __future__ import annotations

from refdiff.samplers.dpm_multistep import dpm_multistep
from refdiff.samplers.family import FLAG, MODEL_ONLY, Family, diffusion_table, never, preserving
from refdiff.samplers.grids_dpm import dpm_inverse_grid
from refdiff.samplers.schedulers.dpm_multistep import DPM, DPM_ONLY, SPACED, altered, network, scheme_of

DPM_MULTISTEP_INVERSE = Family(
    class_name="DPMSolverMultistepInverseScheduler",
    defaults={
        **{key: value for key, value in DPM.items() if key not in ("use_dynamic_shifting", "time_shift_type")}, **SPACED,
        "lower_order_final": True, "euler_at_final": False,
    },
    only={
        **{key: value for key, value in DPM_ONLY.items() if key not in ("use_dynamic_shifting", "time_shift_type")},
        "timestep_spacing": MODEL_ONLY["timestep_spacing"], "algorithm_type": ("dpmsolver++", "dpmsolver", "deis"),
        "euler_at_final": FLAG, "use_flow_sigmas": (False,),
    },
    grid=dpm_inverse_grid, solve=dpm_multistep, table=diffusion_table, network=network,
    constants=lambda options: {"scheme": scheme_of(options)}, settings={}, stochastic=True, draws=never, outside=preserving,
    altered=altered,
)  # fmt: skip
