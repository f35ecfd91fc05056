"""What samplers are called elsewhere: k-diffusion, ComfyUI, AUTOMATIC1111 and diffusers, in one table.

A name may end in that of a sigma ramp or spacing: "DPM++ 2M Karras", "dpmpp_2m+karras", "euler_sgm_uniform".
Source: the names as in the four programs; what they mean for diffusers as in its documentation of schedulers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from refdiff.errors import BadRequest
from refdiff.samplers.schedulers import FAMILIES


@dataclass(frozen=True)
class Entry:
    """A sampler: upstream's class with some options, its names elsewhere ("" where it has none), and its character.

    `order` is that of convergence as measured in docs/samplers/order.md, where noise is drawn that of the variance; with a
    consistency function a run is exact. `calls` are those of the network for each step.
    """

    class_name: str
    order: str
    calls: str
    source: str
    k_diffusion: str = ""
    comfyui: str = ""
    automatic1111: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """Its family's name here, "" while there is none."""
        return next((name for name, family in FAMILIES.items() if family.class_name == self.class_name), "")


SDE = {"algorithm_type": "sde-dpmsolver++"}
DPM, DPM_2 = "arXiv 2211.01095", "arXiv 2206.00364"
TABLE = (
    Entry("DDIMScheduler", "1", "1", "arXiv 2010.02502", "", "ddim", "DDIM"),
    Entry("DDIMInverseScheduler", "1", "1", "arXiv 2105.05233, appendix F"),
    Entry("DDPMScheduler", "1", "1", "arXiv 2006.11239", "", "ddpm", ""),
    Entry("PNDMScheduler", "2", "1, and 1 more", "arXiv 2202.09778", "", "", "PLMS"),
    Entry("IPNDMScheduler", "2", "1", "arXiv 2202.09778"),  # ComfyUI's ipndm is for other models: this has its own schedule
    Entry("LMSDiscreteScheduler", "4", "1", "k-diffusion", "sample_lms", "lms", "LMS"),
    Entry("EulerDiscreteScheduler", "1", "1", DPM_2, "sample_euler", "euler", "Euler"),
    Entry("EulerAncestralDiscreteScheduler", "1", "1", "k-diffusion", "sample_euler_ancestral", "euler_ancestral", "Euler a"),
    Entry("HeunDiscreteScheduler", "2", "2", DPM_2, "sample_heun", "heun", "Heun"),
    Entry("KDPM2DiscreteScheduler", "2", "2", DPM_2, "sample_dpm_2", "dpm_2", "DPM2"),
    Entry(
        "KDPM2AncestralDiscreteScheduler", "2", "2", "k-diffusion", "sample_dpm_2_ancestral", "dpm_2_ancestral", "DPM2 a"
    ),
    Entry("DPMSolverMultistepScheduler", "2", "1", DPM, "sample_dpmpp_2m", "dpmpp_2m", "DPM++ 2M"),
    Entry(
        "DPMSolverMultistepScheduler", "2", "1", DPM, "sample_dpmpp_2m_sde", "dpmpp_2m_sde", "DPM++ 2M SDE",
        {**SDE, "solver_type": "midpoint"},
    ),
    Entry(
        "DPMSolverMultistepScheduler", "2", "1", DPM, "", "dpmpp_2m_sde_heun", "DPM++ 2M SDE Heun", {**SDE, "solver_type": "heun"}
    ),
    Entry("DPMSolverMultistepInverseScheduler", "2", "1", DPM),
    Entry("DPMSolverSinglestepScheduler", "2", "1", DPM),
    Entry("DPMSolverSDEScheduler", "1", "2", DPM, "sample_dpmpp_sde", "dpmpp_sde", "DPM++ SDE"),
    Entry("DEISMultistepScheduler", "2", "1", "arXiv 2204.13902", "", "deis", "DEIS"),
    Entry("UniPCMultistepScheduler", "3", "1", "arXiv 2302.04867"),  # AUTOMATIC1111's UniPC is bh1 or bh2 by a setting
    Entry("UniPCMultistepScheduler", "3", "1", "arXiv 2302.04867", "", "uni_pc_bh2", "", {"solver_type": "bh2"}),
    Entry("UniPCMultistepScheduler", "3", "1", "arXiv 2302.04867", "", "uni_pc", "", {"solver_type": "bh1"}),
    Entry("SASolverScheduler", "2", "1", "arXiv 2309.05019", "", "sa_solver", ""),
    Entry("LCMScheduler", "exact", "1", "arXiv 2310.04378", "sample_lcm", "lcm", "LCM"),
    Entry("TCDScheduler", "exact", "1", "arXiv 2402.19159", "", "", "TCD"),
    Entry("CMStochasticIterativeScheduler", "exact", "1", "arXiv 2303.01469"),
    Entry("EDMEulerScheduler", "1", "1", DPM_2),
    Entry("EDMDPMSolverMultistepScheduler", "2", "1", DPM),
    Entry("UnCLIPScheduler", "1", "1", "arXiv 2204.06125"),
    Entry("ScoreSdeVeScheduler", "1", "1", "arXiv 2011.13456"),
    Entry("RePaintScheduler", "1", "1", "arXiv 2201.09865"),
    Entry("FlowMatchEulerDiscreteScheduler", "1", "1", "arXiv 2403.03206"),
    Entry("FlowMatchHeunDiscreteScheduler", "2", "2", "arXiv 2403.03206"),
    Entry("FlowMatchLCMScheduler", "exact", "1", "arXiv 2310.04378"),
)  # fmt: skip

# The endings of names, and what they mean for the options.
RAMPS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
ENDINGS: dict[str, dict[str, Any]] = {
    "karras": {**RAMPS, "use_karras_sigmas": True},
    "exponential": {**RAMPS, "use_exponential_sigmas": True},
    "beta": {**RAMPS, "use_beta_sigmas": True},
    "sgm_uniform": {**RAMPS, "timestep_spacing": "trailing"},
    "normal": {**RAMPS, "timestep_spacing": "linspace"},
}


def offered() -> list[Entry]:
    """The entries whose family is there."""
    return [entry for entry in TABLE if entry.family]


def named(name: str) -> tuple[str, dict[str, Any]]:
    """The family and the options that a sampler's name means; case, blanks, "-" and "+" do not matter.

    Raises: BadRequest for a name that is unknown, or an ending that its sampler cannot follow
    """
    known = _known()
    plain = _plain(name)
    if plain in known:
        return known[plain]
    for ending, options in ENDINGS.items():
        head = plain.removesuffix("_" + ending)
        if head != plain and head in known:
            family, own = known[head]
            defaults = FAMILIES[family].defaults
            if any(value and key not in defaults for key, value in options.items()):
                raise BadRequest(f'sampler "{name}": {FAMILIES[family].class_name} has no {ending} sigmas; take {head} alone')
            return family, {**own, **{key: value for key, value in options.items() if key in defaults}}
    raise BadRequest(f'unknown sampler "{name}": choose one of {", ".join(FAMILIES)}, or another name of `refdiff samplers`')


def _plain(name: str) -> str:
    plain = "".join(c if c.isalnum() else "_" for c in name.lower().replace("++", "pp").replace("+", " "))
    return "_".join(part for part in plain.split("_") if part)


def _known() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every spelling in its plain form; the names here come first, then the table's from above."""
    known: dict[str, tuple[str, dict[str, Any]]] = {_plain(name): (name, {}) for name in FAMILIES}
    for entry in offered():
        meant = (entry.family, dict(entry.options))
        for name in (entry.comfyui, entry.automatic1111, entry.k_diffusion, entry.k_diffusion.removeprefix("sample_")):
            if name:
                known.setdefault(_plain(name), meant)
        known.setdefault(_plain(entry.class_name), (entry.family, {}))
    return known
