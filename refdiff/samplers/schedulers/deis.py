"""DEISMultistepScheduler: DEIS in log rho, which is DPM-Solver with what a parabola needs (log rho is log sigma)."""

from __future__ import annotations

from refdiff.samplers.dpm_multistep import dpm_multistep, noise_flow, slope_by_interpolation, whole_curvature
from refdiff.samplers.family import MODEL, MODEL_ONLY, RAMPS, Family, diffusion_table, never, preserving
from refdiff.samplers.grids_dpm import deis_grid
from refdiff.samplers.schedulers.dpm_multistep import DPM_ONLY, FLOW, MU, SLOPES, SPACED, THRESHOLD, altered, network

DEIS = Family(
    class_name="DEISMultistepScheduler",
    defaults={
        **MODEL, **THRESHOLD, **RAMPS, **FLOW, **SPACED, "solver_order": 2, "algorithm_type": "deis", "solver_type": "logrho",
        "lower_order_final": True,
    },
    only={
        **{key: value for key, value in DPM_ONLY.items() if key != "variance_type"}, "solver_type": ("logrho", *SLOPES),
        "timestep_spacing": MODEL_ONLY["timestep_spacing"], "algorithm_type": ("deis", "dpmsolver", "dpmsolver++"),
    },
    grid=deis_grid, solve=dpm_multistep, table=diffusion_table, network=network,
    constants=lambda options: {"scheme": noise_flow(slope_by_interpolation, whole_curvature)}, settings=MU, stochastic=True,
    draws=never, outside=preserving, altered=altered, planning=tuple(MU),
)  # fmt: skip
