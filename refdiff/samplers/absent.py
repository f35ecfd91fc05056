"""Names of ComfyUI, of RES4LYF, which is a part for it, of AUTOMATIC1111 and of Forge for what is not here, and what is near.

Source: ComfyUI's comfy/samplers.py, KSAMPLER_NAMES; AUTOMATIC1111's modules/sd_samplers_timesteps.py; Forge's
modules/sd_schedulers.py; RES4LYF
"""

from __future__ import annotations

COMFYUI, AUTOMATIC1111, FORGE, RES4LYF = "ComfyUI", "AUTOMATIC1111", "Forge", "RES4LYF"
# (program, name) by the name's plain form: a sampler, or an ending.
SAMPLERS: dict[str, tuple[str, str]] = {
    "heunpp2": (COMFYUI, "k_heun"), "exp_heun_2_x0": (COMFYUI, "k_heun"), "exp_heun_2_x0_sde": (COMFYUI, "k_heun"),
    "euler_cfg_pp": (COMFYUI, "k_euler"), "euler_ancestral_cfg_pp": (COMFYUI, "k_euler_ancestral"),
    "gradient_estimation": (COMFYUI, "k_euler"), "gradient_estimation_cfg_pp": (COMFYUI, "k_euler"),
    "res_multistep": (COMFYUI, "k_dpmpp_2m"), "res_multistep_cfg_pp": (COMFYUI, "k_dpmpp_2m"),
    "res_multistep_ancestral": (COMFYUI, "k_euler_ancestral"), "res_multistep_ancestral_cfg_pp": (COMFYUI, "k_euler_ancestral"),
    "dpmpp_2m_cfg_pp": (COMFYUI, "k_dpmpp_2m"), "dpmpp_2s_ancestral_cfg_pp": (COMFYUI, "k_dpmpp_2s_ancestral"),
    "cfgpp_ud10_ab": (COMFYUI, "k_dpmpp_2m"), "ipndm": (COMFYUI, "ipndm"), "ipndm_v": (COMFYUI, "ipndm"),
    "er_sde": (COMFYUI, "k_dpmpp_3m_sde"), "seeds_2": (COMFYUI, "k_dpmpp_sde"), "seeds_3": (COMFYUI, "k_dpmpp_sde"),
    "sa_solver_pece": (COMFYUI, "sa_solver"), "ddim_cfgpp": (AUTOMATIC1111, "ddim"), "ddim_cfg": (AUTOMATIC1111, "ddim"),
}  # fmt: skip
SCHEDULES: dict[str, tuple[str, str]] = {
    "turbo": (FORGE, "sgm_uniform"), "align_your_steps_gits": (FORGE, "align_your_steps"),
    "align_your_steps_11": (FORGE, "align_your_steps"), "align_your_steps_32": (FORGE, "align_your_steps"),
    "beta57": (RES4LYF, "beta"), "bong_tangent": (RES4LYF, "beta"),
}  # fmt: skip
