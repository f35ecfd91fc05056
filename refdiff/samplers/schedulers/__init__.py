"""The schedulers of upstream, each a Family, by their names here. To add one: its Family, and a line in this table."""

import math

from refdiff.samplers.family import FLAG, Family
from refdiff.samplers.schedulers.ddim import DDIM
from refdiff.samplers.schedulers.ddim_inverse import DDIM_INVERSE
from refdiff.samplers.schedulers.ddpm import DDPM
from refdiff.samplers.schedulers.deis import DEIS
from refdiff.samplers.schedulers.dpm2 import KDPM2, KDPM2_ANCESTRAL
from refdiff.samplers.schedulers.dpm_multistep import DPM_MULTISTEP
from refdiff.samplers.schedulers.dpm_multistep_inverse import DPM_MULTISTEP_INVERSE
from refdiff.samplers.schedulers.dpm_sde import DPM_SDE
from refdiff.samplers.schedulers.dpm_singlestep import DPM_SINGLESTEP
from refdiff.samplers.schedulers.edm import CONSISTENCY, EDM_DPM, EDM_EULER
from refdiff.samplers.schedulers.euler import EULER
from refdiff.samplers.schedulers.euler_ancestral import EULER_ANCESTRAL
from refdiff.samplers.schedulers.flow import FLOW_EULER, FLOW_HEUN, FLOW_LCM
from refdiff.samplers.schedulers.heun import HEUN
from refdiff.samplers.schedulers.ipndm import IPNDM
from refdiff.samplers.schedulers.k_diffusion import K_FAMILIES
from refdiff.samplers.schedulers.lcm import LCM, TCD
from refdiff.samplers.schedulers.lms import LMS
from refdiff.samplers.schedulers.pndm import PNDM
from refdiff.samplers.schedulers.repaint import REPAINT
from refdiff.samplers.schedulers.sa_solver import SA_SOLVER
from refdiff.samplers.schedulers.score_sde import SCORE_SDE_VE
from refdiff.samplers.schedulers.unclip import UNCLIP
from refdiff.samplers.schedulers.unipc import UNIPC

FAMILIES: dict[str, Family] = {
    "ddim": DDIM, "euler": EULER, "pndm": PNDM,
    "edm_euler": EDM_EULER, "edm_dpm": EDM_DPM, "consistency": CONSISTENCY, "unclip": UNCLIP,
    "flow_euler": FLOW_EULER, "flow_heun": FLOW_HEUN, "flow_lcm": FLOW_LCM,
    "ddpm": DDPM, "ddim_inverse": DDIM_INVERSE, "lcm": LCM, "tcd": TCD,
    "dpm_multistep": DPM_MULTISTEP, "dpm_singlestep": DPM_SINGLESTEP, "dpm_inverse": DPM_MULTISTEP_INVERSE, "deis": DEIS,
    "unipc": UNIPC, "ipndm": IPNDM,
    "dpm_sde": DPM_SDE, "sa_solver": SA_SOLVER, "score_sde_ve": SCORE_SDE_VE, "repaint": REPAINT,
    "euler_ancestral": EULER_ANCESTRAL, "heun": HEUN, "lms": LMS, "dpm2": KDPM2, "dpm2_ancestral": KDPM2_ANCESTRAL,
    **K_FAMILIES,
}  # fmt: skip

# Options that scheduler_config.json files carry over from other classes, with the values that mean nothing to this one:
# upstream passes them over, whatever they are.
FOREIGN = {
    "skip_prk_steps": FLAG, "set_alpha_to_one": FLAG, "clip_sample": (False,), "clip_sample_range": (1.0,),
    "thresholding": (False,), "dynamic_thresholding_ratio": (0.995,), "sample_max_value": (1.0,),
    "rescale_betas_zero_snr": (False,), "interpolation_type": ("linear",), "timestep_type": ("discrete",),
    "use_karras_sigmas": (False,), "use_exponential_sigmas": (False,), "use_beta_sigmas": (False,),
    "sigma_min": (None,), "sigma_max": (None,), "final_sigmas_type": ("zero",),
    "solver_order": (1, 2, 3), "solver_type": ("midpoint", "heun", "logrho", "bh1", "bh2"), "lower_order_final": FLAG,
    "algorithm_type": ("dpmsolver++", "dpmsolver", "deis"), "euler_at_final": FLAG, "use_lu_lambdas": (False,),
    "use_flow_sigmas": (False,), "flow_shift": (1.0,), "use_dynamic_shifting": (False,), "time_shift_type": ("exponential",),
    "lambda_min_clipped": (-math.inf,), "predict_x0": (True,), "disable_corrector": ([],), "solver_p": (None,),
    "shift_terminal": (None,), "variance_type": (None,), "noise_sampler_seed": (None,), "tau_func": (None,),
    "schedule": (), "rho": (), "discard_next_to_last": (), "initial": (), "times": (), "sigma_table": (),
    "noisy": (), "slope": (),
    "predictor_order": (1, 2, 3, 4), "corrector_order": (1, 2, 3, 4),
}  # fmt: skip
