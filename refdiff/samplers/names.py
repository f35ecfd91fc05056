"""What samplers are called elsewhere: k-diffusion, ComfyUI, AUTOMATIC1111 and diffusers, in one table.

Source: the names as in the four programs, and what they do by default: k-diffusion 0.1.1, ComfyUI's comfy/samplers.py,
AUTOMATIC1111 1.10's modules/sd_samplers_kdiffusion.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any

from refdiff.errors import BadRequest
from refdiff.samplers import absent
from refdiff.samplers.grids_webui import SCHEDULES
from refdiff.samplers.schedulers import FAMILIES
from refdiff.samplers.schedulers.k_diffusion import K_FAMILIES


@dataclass(frozen=True)
class Entry:
    """A sampler: upstream's class with some options, its names elsewhere ("" where it has none), and its character.

    `order` is that of convergence as measured in docs/samplers/order.md, where noise is drawn that of the variance; with a
    consistency function a run is exact. `calls` are those of the network for each step. `programs` are the options that a
    program adds.
    """

    class_name: str
    order: str
    calls: str
    source: str
    k_diffusion: str = ""
    comfyui: str = ""
    automatic1111: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    programs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """Its family's name here, "" while there is none."""
        return next((name for name, family in FAMILIES.items() if family.class_name == self.class_name), "")

    def name_in(self, program: str) -> str:
        """Its name in a program, "" where it has none."""
        diffusers = "" if self.family in K_FAMILIES or self.options else self.class_name
        names = {"comfyui": self.comfyui, "automatic1111": self.automatic1111, "k-diffusion": self.k_diffusion}
        return {**names, "diffusers": diffusers}[program]

    def options_in(self, program: str) -> dict[str, Any]:
        """What its name in a program means for the options."""
        common = PROGRAMS.get(program, {}) if self.family in K_FAMILIES else {}
        return {**common, **self.options, **self.programs.get(program, {})}


# What a program does with every sampler of k-diffusion; a name of ComfyUI goes with a schedule, "normal" if not said.
PROGRAMS: dict[str, dict[str, Any]] = {
    "k-diffusion": {},
    "comfyui": {"schedule": "normal", "initial": "comfyui", "times": "nearest", "sigma_table": "comfyui"},
    "automatic1111": {},
}
DPM, DPM_2, K = "arXiv 2211.01095", "arXiv 2206.00364", "k-diffusion"
KARRAS = {"automatic1111": {"schedule": "karras"}}
EXPONENTIAL = {"automatic1111": {"schedule": "exponential"}}
WITH_NOISE = {"automatic1111": {"noisy": True}}
SHORT_3M: dict[str, dict[str, Any]] = {"automatic1111": {"schedule": "exponential", "discard_next_to_last": True}}
SHORT: dict[str, dict[str, Any]] = {
    "comfyui": {"discard_next_to_last": True},
    "automatic1111": {"schedule": "karras", "discard_next_to_last": True},
}
TABLE = (
    Entry("DDIMScheduler", "1", "1", "arXiv 2010.02502", "", "", "DDIM"),
    Entry("DDIMInverseScheduler", "1", "1", "arXiv 2105.05233, appendix F"),
    Entry("DDPMScheduler", "1", "1", "arXiv 2006.11239", "", "ddpm", ""),
    Entry("PNDMScheduler", "2", "1, and 1 more", "arXiv 2202.09778", "", "", "PLMS"),
    Entry("IPNDMScheduler", "2", "1", "arXiv 2202.09778"),  # ComfyUI's ipndm is for other models: this has its own schedule
    Entry("LMSDiscreteScheduler", "4", "1", K),
    Entry("EulerDiscreteScheduler", "1", "1", DPM_2),
    Entry("EulerAncestralDiscreteScheduler", "1", "1", K),
    Entry("HeunDiscreteScheduler", "2", "2", DPM_2),
    Entry("KDPM2DiscreteScheduler", "2", "2", DPM_2),
    Entry("KDPM2AncestralDiscreteScheduler", "2", "2", K),
    Entry("DPMSolverMultistepScheduler", "2", "1", DPM),
    Entry("DPMSolverMultistepInverseScheduler", "2", "1", DPM),
    Entry("DPMSolverSinglestepScheduler", "2", "1", DPM),
    Entry("DPMSolverSDEScheduler", "2", "2", DPM),
    Entry("DEISMultistepScheduler", "2", "1", "arXiv 2204.13902", "", "deis", ""),
    Entry("UniPCMultistepScheduler", "3", "1", "arXiv 2302.04867", "", "", "UniPC"),
    Entry("UniPCMultistepScheduler", "3", "1", "arXiv 2302.04867", "", "uni_pc_bh2", "", {"solver_type": "bh2"}),
    Entry("UniPCMultistepScheduler", "3", "1", "arXiv 2302.04867", "", "uni_pc", "", {"solver_type": "bh1"}),
    Entry("SASolverScheduler", "2", "1", "arXiv 2309.05019", "", "sa_solver", ""),
    Entry("LCMScheduler", "exact", "1", "arXiv 2310.04378", "", "lcm", "LCM"),
    Entry("TCDScheduler", "exact", "1", "arXiv 2402.19159"),
    Entry("CMStochasticIterativeScheduler", "exact", "1", "arXiv 2303.01469"),
    Entry("EDMEulerScheduler", "1", "1", DPM_2),
    Entry("EDMDPMSolverMultistepScheduler", "2", "1", DPM),
    Entry("UnCLIPScheduler", "1", "1", "arXiv 2204.06125"),
    Entry("ScoreSdeVeScheduler", "1", "2", "arXiv 2011.13456"),
    Entry("RePaintScheduler", "1", "1, and more", "arXiv 2201.09865"),
    Entry("FlowMatchEulerDiscreteScheduler", "1", "1", "arXiv 2403.03206"),
    Entry("FlowMatchHeunDiscreteScheduler", "2", "2", "arXiv 2403.03206"),
    Entry("FlowMatchLCMScheduler", "exact", "1", "arXiv 2310.04378"),
    Entry("k_diffusion.sample_euler", "1", "1", DPM_2, "sample_euler", "euler", "Euler"),
    Entry("k_diffusion.sample_euler", "1", "1", "arXiv 2010.02502", "", "ddim", ""),
    Entry("k_diffusion.sample_euler_ancestral", "1", "1", K, "sample_euler_ancestral", "euler_ancestral", "Euler a"),
    Entry("k_diffusion.sample_heun", "2", "2", DPM_2, "sample_heun", "heun", "Heun"),
    Entry("k_diffusion.sample_dpm_2", "2", "2", DPM_2, "sample_dpm_2", "dpm_2", "DPM2", {}, SHORT),
    Entry("k_diffusion.sample_dpm_2_ancestral", "2", "2", K, "sample_dpm_2_ancestral", "dpm_2_ancestral", "DPM2 a", {}, SHORT),
    Entry("k_diffusion.sample_lms", "4", "1", K, "sample_lms", "lms", "LMS"),
    Entry("k_diffusion.sample_dpmpp_2m", "2", "1", DPM, "sample_dpmpp_2m", "dpmpp_2m", "DPM++ 2M", {}, KARRAS),
    Entry(
        "k_diffusion.sample_dpmpp_2m_sde", "2", "1", DPM, "sample_dpmpp_2m_sde", "dpmpp_2m_sde", "DPM++ 2M SDE", {}, EXPONENTIAL
    ),
    Entry(
        "k_diffusion.sample_dpmpp_2m_sde", "2", "1", DPM, "", "dpmpp_2m_sde_heun", "DPM++ 2M SDE Heun", {"slope": "heun"},
        EXPONENTIAL,
    ),
    Entry("k_diffusion.sample_dpmpp_3m_sde", "2", "1", DPM, "sample_dpmpp_3m_sde", "dpmpp_3m_sde", "DPM++ 3M SDE", {}, SHORT_3M),
    Entry("k_diffusion.sample_dpmpp_sde", "2", "2", DPM, "sample_dpmpp_sde", "dpmpp_sde", "DPM++ SDE", {}, KARRAS),
    Entry(
        "k_diffusion.sample_dpmpp_2s_ancestral", "2", "2", DPM, "sample_dpmpp_2s_ancestral", "dpmpp_2s_ancestral", "DPM++ 2S a",
        {}, KARRAS,
    ),
    Entry(
        "k_diffusion.sample_dpm_fast", "2 or 3", "1", "arXiv 2206.00927", "sample_dpm_fast", "dpm_fast", "DPM fast", {},
        WITH_NOISE,
    ),
    Entry(
        "k_diffusion.sample_dpm_adaptive", "3", "as needed", "arXiv 2206.00927", "sample_dpm_adaptive", "dpm_adaptive",
        "DPM adaptive", {}, WITH_NOISE,
    ),
    Entry("k_diffusion.restart_sampler", "2", "2", "arXiv 2306.14878", "", "", "Restart", {}, KARRAS),
)  # fmt: skip

# The endings of names, and what they mean for the options of diffusers' schedulers.
RAMPS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
ENDINGS: dict[str, dict[str, Any]] = {
    "karras": {**RAMPS, "use_karras_sigmas": True},
    "exponential": {**RAMPS, "use_exponential_sigmas": True},
    "beta": {**RAMPS, "use_beta_sigmas": True},
    "sgm_uniform": {**RAMPS, "timestep_spacing": "trailing"},
    "normal": {**RAMPS, "timestep_spacing": "linspace"},
}
OWN_TIMES = ("lcm", "tcd")  # whatever the spacing is
# The schedules of each program, under the names that they have there.
AYS = ("align_your_steps", "align_your_steps_sdxl")
SCHEDULES_OF: dict[str, dict[str, str]] = {
    "refdiff": {name: name for name in SCHEDULES},
    "k-diffusion": {name: name for name in ("uniform", "karras", "exponential", "polyexponential", "vp")},
    "comfyui": {
        name: name
        for name in (
            "normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta", "linear_quadratic", "kl_optimal",
            "polyexponential", "vp", "laplace", *AYS,
        )
    },
    "automatic1111": {
        **{name: name for name in ("uniform", "karras", "exponential", "polyexponential", "sgm_uniform", "simple", "normal")},
        **{name: name + "_a1111" for name in ("beta", "kl_optimal", *AYS)}, "ddim": "ddim_uniform", "sgmuniform": "sgm_uniform",
        "ka": "karras", "exp": "exponential",
    },
}  # fmt: skip

# ComfyUI's names for the same with noise drawn on a GPU.
DRAWN_ELSEWHERE = ("dpmpp_sde_gpu", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde_gpu")
# AUTOMATIC1111's short names; those of families here come first, but for the endings "ka" and "exp".
SHORT_NAMES = {
    "k_euler_a": "Euler a", "k_euler": "Euler", "k_heun": "Heun", "k_lms": "LMS", "k_dpm_2": "DPM2", "k_dpm_2_a": "DPM2 a",
    "k_dpmpp_2s_a": "DPM++ 2S a", "k_dpmpp_2m": "DPM++ 2M", "k_dpmpp_sde": "DPM++ SDE", "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "k_dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun", "k_dpmpp_3m_sde": "DPM++ 3M SDE", "k_dpm_fast": "DPM fast",
    "k_dpm_ad": "DPM adaptive", "k_lcm": "LCM",
}  # fmt: skip

RULE = (
    'Case, blanks, "-", "_" and "+" do not matter, and "++" is "pp".',
    'A name may end in that of a schedule: "DPM++ 2M Karras", "dpmpp_2m karras", "euler simple".',
    "Where programs share a name, the first that knows it, with its ending, counts: the names here, then those of ComfyUI, "
    "k-diffusion, AUTOMATIC1111 and diffusers.",
    'AUTOMATIC1111 comes first for names with "++" or a capital letter and without "_": "Euler" is its Euler, "euler" is the one '
    "here, which is diffusers'.",
    'A program before a colon decides: "comfyui:euler karras", "automatic1111:DDIM", "k-diffusion:heun", "refdiff:lms".',
)


def offered() -> list[Entry]:
    """The entries whose family is there."""
    return [entry for entry in TABLE if entry.family]


def named(name: str) -> tuple[str, dict[str, Any]]:
    """The family and the options that a sampler's name means, by the RULE.

    Raises: BadRequest for a name that is unknown, or an ending that its sampler cannot follow
    """
    *before, text = name.split(":", 1)
    programs = [p for p in ("refdiff", *NAMESPACES) if before and _plain(p) == _plain(before[0])]
    if before and not programs:
        raise BadRequest(f'sampler "{name}": unknown program "{before[0]}": choose one of refdiff, {", ".join(NAMESPACES)}')
    plain, refusal = _plain(text), ""
    for program in programs or _order(text):
        known = _known(program)
        if plain in known:
            return known[plain][0], dict(known[plain][1])
        for head, ending in _divided(plain):
            options = _ended(program, *known[head], ending) if head in known else None
            if options is not None:
                return known[head][0], options
            if head in known and ending in EVERY_ENDING:
                refusal = refusal or f"{FAMILIES[known[head][0]].class_name} has no {ending} sigmas; take {head} alone"
    raise BadRequest(f'sampler "{name}": {refusal}' if refusal else _unknown(name, plain, programs or _order(text)))


NAMESPACES = ("comfyui", "k-diffusion", "automatic1111", "diffusers")


EVERY_ENDING = {*ENDINGS, *(ending for endings in SCHEDULES_OF.values() for ending in endings)}


def _order(text: str) -> tuple[str, ...]:
    """Where a name is looked for, by its spelling."""
    if ("++" in text or text != text.lower()) and "_" not in text:
        return ("automatic1111", "refdiff", "comfyui", "k-diffusion", "diffusers")
    return ("refdiff", *NAMESPACES)


def _divided(plain: str) -> list[tuple[str, str]]:
    """Every way to take a name for a sampler's and a schedule's."""
    parts = plain.split("_")
    return [("_".join(parts[:k]), "_".join(parts[k:])) for k in range(1, len(parts))]


def _ended(program: str, family: str, own: Mapping[str, Any], ending: str) -> dict[str, Any] | None:
    """The options with those of an ending: None where it is no schedule of the program, or the family cannot follow it."""
    if family in K_FAMILIES:
        if ending == "automatic" and program == "automatic1111":
            return dict(own)
        schedule = SCHEDULES_OF[program].get(ending)
        return None if schedule is None else {**own, "schedule": schedule}
    defaults = FAMILIES[family].defaults
    options = ENDINGS.get(ending)
    if options is None or family in OWN_TIMES or any(value and key not in defaults for key, value in options.items()):
        return None
    return {**own, **{key: value for key, value in options.items() if key in defaults}}


def _unknown(name: str, plain: str, programs: Sequence[str]) -> str:
    """What to say of a name that means nothing here."""
    divided = _divided(plain)[::-1]
    for head in (plain, *(head for head, _ in divided)):
        if head in absent.SAMPLERS and not any(head in _known(program) for program in programs):
            program, near = absent.SAMPLERS[head]
            return f'sampler "{name}": {head} is of {program} and not here; near it is {near}'
    samplers = list({known: "" for program in programs for known in _known(program)})
    typo = get_close_matches(plain, samplers, n=2, cutoff=0.9)
    for head, ending in divided:
        program = next((program for program in programs if head in _known(program)), "")
        if program and ending in absent.SCHEDULES:
            origin, near = absent.SCHEDULES[ending]
            return f'sampler "{name}": the schedule {ending} is of {origin} and not here; near it is {near}'
        if program and not typo:
            able = [
                known
                for known in SCHEDULES_OF.get(program, ENDINGS)
                if _ended(program, *_known(program)[head], known) is not None
            ]
            near = ", ".join(get_close_matches(ending, able) or able)
            advice = f"`refdiff samplers` lists all, such as {near}" if near else f"take {head} alone"
            return f'sampler "{name}": there is no schedule "{ending}" for {head}; {advice}'
    if plain in EVERY_ENDING:
        return f'unknown sampler "{name}": that is a schedule; name a sampler before it, such as "dpmpp_2m {plain}"'
    near = " or ".join(typo or get_close_matches(plain, samplers, n=4))
    return f'unknown sampler "{name}": ' + (f"did you mean {near}? " if near else "") + "`refdiff samplers` lists all"


def _plain(name: str) -> str:
    plain = "".join(c if c.isalnum() else "_" for c in name.lower().replace("++", "pp ").replace("+", " "))
    return "_".join(part for part in plain.split("_") if part)


@cache
def _known(program: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every name of a program in its plain form; of two entries the first counts."""
    if program == "refdiff":
        return {_plain(name): (name, {}) for name in FAMILIES}
    known: dict[str, tuple[str, dict[str, Any]]] = {}
    for entry in offered():
        name = entry.name_in(program)
        if name:
            known.setdefault(_plain(name), (entry.family, entry.options_in(program)))
    if program == "comfyui":
        known.update({name: known[name.removesuffix("_gpu")] for name in DRAWN_ELSEWHERE})
    if program == "automatic1111":
        known.update({short: known[_plain(label)] for short, label in SHORT_NAMES.items()})
    if program == "k-diffusion":
        known.update({name.removeprefix("sample_"): meant for name, meant in list(known.items())})
        known.update({f"k_diffusion_{name}": meant for name, meant in list(known.items())})
    return known
