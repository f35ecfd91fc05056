"""DPMSolverSinglestepScheduler."""

from __future__ import annotations

from typing import Any

from refdiff.samplers.dpm_multistep import misplaced_curvature, whole_curvature
from refdiff.samplers.dpm_singlestep import chord, dpm_singlestep, parabola
from refdiff.samplers.family import WHOLE, Family, Options, diffusion_table, preserving
from refdiff.samplers.grids_dpm import dpm_singlestep_grid
from refdiff.samplers.schedulers.dpm_multistep import DPM, DPM_ONLY, FINAL, MU, SCHEMES, SLOPES, draws, network, of_algorithm


def constants(options: Options) -> dict[str, Any]:
    """What is integrated, with which weights, along which curve."""
    misplaced = options["algorithm_type"] == "sde-dpmsolver++"
    curvature = (lambda z: 2.0 * misplaced_curvature(z)) if misplaced else whole_curvature
    scheme = SCHEMES[options["algorithm_type"]](SLOPES[options["solver_type"]], curvature)
    return {"scheme": scheme, "expand": parabola if options["solver_type"] == "heun" else chord}


DPM_SINGLESTEP = Family(
    class_name="DPMSolverSinglestepScheduler",
    defaults={**DPM, "lower_order_final": False, "final_sigmas_type": "zero"},
    only={
        **DPM_ONLY, "algorithm_type": ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "deis"), "final_sigmas_type": FINAL,
    },
    grid=dpm_singlestep_grid, solve=dpm_singlestep, table=diffusion_table, network=network, constants=constants, settings=MU,
    stochastic=True, draws=draws, outside=preserving, altered=of_algorithm,
    planning=tuple(MU), listed={"timesteps": WHOLE},
)  # fmt: skip
