"""Samplers under the names that other programs give them."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.errors import BadRequest
from refdiff.samplers import absent, from_config
from refdiff.samplers.names import DRAWN_ELSEWHERE, ENDINGS, NAMESPACES, SCHEDULES_OF, TABLE, Entry, named, offered
from refdiff.samplers.schedulers import FAMILIES
from refdiff.samplers.schedulers.k_diffusion import K_FAMILIES

MODEL = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False,
    "set_alpha_to_one": False, "prediction_type": "epsilon",
}  # fmt: skip


COMFYUI = {"schedule": "normal", "initial": "comfyui", "times": "nearest", "sigma_table": "comfyui"}


def test_every_family_has_an_entry():
    assert {family.class_name for family in FAMILIES.values()} <= {entry.class_name for entry in TABLE}


def test_only_families_that_are_there_are_offered():
    assert Entry("NoSuchScheduler", "1", "1", "").family == ""
    assert {entry.family for entry in offered()} == set(FAMILIES)


def test_no_name_means_two_things():
    for column in ("k_diffusion", "comfyui", "automatic1111"):
        names = [getattr(entry, column) for entry in TABLE if getattr(entry, column)]
        assert len(set(names)) == len(names), column


@pytest.mark.parametrize(
    ("name", "family", "options"),
    [
        ("euler", "euler", {}),
        ("Euler", "k_euler", {}),
        ("comfyui:euler", "k_euler", COMFYUI),
        ("ComfyUI: ddim", "k_euler", COMFYUI),
        ("refdiff:euler", "euler", {}),
        ("k-diffusion:euler", "k_euler", {}),
        ("Euler a", "k_euler_ancestral", {}),
        ("euler_ancestral", "euler_ancestral", {}),
        ("EulerAncestralDiscreteScheduler", "euler_ancestral", {}),
        ("sample_heun", "k_heun", {}),
        ("DPM2 a", "k_dpm_2_ancestral", {"schedule": "karras", "discard_next_to_last": True}),
        ("dpm_2", "k_dpm_2", {**COMFYUI, "discard_next_to_last": True}),
        ("sample_dpm_2", "k_dpm_2", {}),
        ("PLMS", "pndm", {}),
        ("dpmpp_2m", "k_dpmpp_2m", COMFYUI),
        ("dpmpp_2m simple", "k_dpmpp_2m", {**COMFYUI, "schedule": "simple"}),
        ("euler_simple", "k_euler", {**COMFYUI, "schedule": "simple"}),
        ("euler_ancestral_beta", "k_euler_ancestral", {**COMFYUI, "schedule": "beta"}),
        ("DPM++ 2M", "k_dpmpp_2m", {"schedule": "karras"}),
        ("DPM++ 2M Automatic", "k_dpmpp_2m", {"schedule": "karras"}),
        ("DPM++ 2M Beta", "k_dpmpp_2m", {"schedule": "beta_a1111"}),
        ("Euler SGM Uniform", "k_euler", {"schedule": "sgm_uniform"}),
        ("k_euler", "k_euler", {}),
        ("k_euler_beta_a1111", "k_euler", {"schedule": "beta_a1111"}),
        ("sample_lms_polyexponential", "k_lms", {"schedule": "polyexponential"}),
        ("DPM++ 2M SDE", "k_dpmpp_2m_sde", {"schedule": "exponential"}),
        ("DPM++ 2M SDE Heun Karras", "k_dpmpp_2m_sde", {"slope": "heun", "schedule": "karras"}),
        ("dpmpp_2m_sde_gpu", "k_dpmpp_2m_sde", COMFYUI),
        ("DPM++ 3M SDE Exponential", "k_dpmpp_3m_sde", {"schedule": "exponential", "discard_next_to_last": True}),
        ("DPM++ SDE", "k_dpmpp_sde", {"schedule": "karras"}),
        ("DPM++ 2S a Karras", "k_dpmpp_2s_ancestral", {"schedule": "karras"}),
        ("DPM fast", "k_dpm_fast", {"noisy": True}),
        ("dpm_adaptive", "k_dpm_adaptive", COMFYUI),
        ("Restart", "k_restart", {"schedule": "karras"}),
        ("uni_pc_bh2", "unipc", {"solver_type": "bh2"}),
        ("DDIMScheduler", "ddim", {}),
    ],
)
def test_names_and_what_they_mean(name, family, options):
    assert named(name) == (family, options)


@pytest.mark.parametrize(
    "name", ["DPM++ 2M Karras", "dpmpp_2m+karras", "dpmpp_2m karras", "sample_dpmpp_2m_karras", "dpm++ 2m  KARRAS"]
)
def test_spellings_of_an_ending(name):
    family, options = named(name)
    assert family == "k_dpmpp_2m" and options["schedule"] == "karras"


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if not ending.startswith(("sgm", "normal"))])
def test_an_ending_takes_the_place_of_the_models_ramp(ending):
    family, options = named(f"euler {ending}")
    given = {**MODEL, "use_karras_sigmas": True}
    want = from_config({**MODEL, **{key: value for key, value in options.items() if value}}, name=family).sigmas(7)
    np.testing.assert_array_equal(from_config({**given, **options}, name=family).sigmas(7), want)


@pytest.mark.parametrize("entry", offered(), ids=lambda entry: f"{entry.class_name} {dict(entry.options)} {entry.comfyui}")
def test_every_name_is_taken(entry):
    names = [(program, entry.name_in(program)) for program in NAMESPACES if entry.name_in(program)]
    for program, name in names:
        for spelling in (name, name.upper()):
            assert named(f"{program}:{spelling}") == (entry.family, entry.options_in(program))
        family, options = named(f"{program}:{name}")
        if "beta_schedule" in FAMILIES[family].defaults and "inverse" not in family and family != "unclip":
            assert from_config({**MODEL, **options}, name=family).sigmas(4)[-1] < 0.05
        if name not in FAMILIES:  # the names here come first
            assert named(name)[0] == entry.family or program == "diffusers"


@pytest.mark.parametrize("program", [program for program in SCHEDULES_OF if program != "refdiff"])
def test_every_schedule_of_a_program_is_taken(program):
    for ending, schedule in SCHEDULES_OF[program].items():
        family, options = named(f"{program}:euler {ending}")
        assert (family, options["schedule"]) == ("k_euler", schedule)
        assert len(from_config({**MODEL, **options}, name=family).sigmas(5)) == 6


def test_samplers_that_are_not_here():
    offered_here = {name for entry in offered() for name in (entry.comfyui, entry.automatic1111)}
    for name, (program, near) in absent.SAMPLERS.items():
        assert named(near) and name not in offered_here
        bare = () if name in FAMILIES else (name, f"{name} karras")  # the names here come first
        for spelling in (f"comfyui:{name}", *bare):
            with pytest.raises(BadRequest, match=f"{name} is of {program} and not here; near it is {near}"):
                named(spelling)


def test_schedules_that_are_not_here():
    for name, (program, near) in absent.SCHEDULES.items():
        assert named(f"dpmpp_2m {near}") and named(f"Euler {near}")
        for spelling in (f"dpmpp_2m {name}", f"DPM++ 2M {name.replace('_', ' ').title()}", f"euler_{name}"):
            with pytest.raises(BadRequest, match=f"schedule {name} is of {program} and not here; near it is {near}"):
                named(spelling)


# Every name that the two programs list: ComfyUI's KSampler, AUTOMATIC1111 1.10 with its schedules' labels.
KSAMPLER = """euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 exp_heun_2_x0 exp_heun_2_x0_sde dpm_2
dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral dpmpp_2s_ancestral_cfg_pp dpmpp_sde dpmpp_sde_gpu dpmpp_2m
dpmpp_2m_cfg_pp dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde dpmpp_3m_sde_gpu ddpm lcm ipndm
ipndm_v deis cfgpp_ud10_ab res_multistep res_multistep_cfg_pp res_multistep_ancestral res_multistep_ancestral_cfg_pp
gradient_estimation gradient_estimation_cfg_pp er_sde seeds_2 seeds_3 sa_solver sa_solver_pece ddim uni_pc uni_pc_bh2""".split()
SCHEDULERS = "simple sgm_uniform karras exponential ddim_uniform beta normal linear_quadratic kl_optimal".split()
LABELS = (
    "DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a", "Euler", "LMS", "Heun",
    "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart", "DDIM", "DDIM CFG++", "PLMS", "UniPC", "LCM",
)  # fmt: skip
SCHEDULE_LABELS = (
    "Automatic", "Uniform", "Karras", "Exponential", "Polyexponential", "SGM Uniform", "KL Optimal", "Align Your Steps", "Simple",
    "Normal", "DDIM", "Beta",
)  # fmt: skip


@pytest.mark.parametrize("name", KSAMPLER)
def test_every_name_of_ksampler_is_taken_or_said_to_be_absent(name):
    known = {entry.comfyui for entry in offered()} | set(DRAWN_ELSEWHERE)
    assert (name in known) != (name in absent.SAMPLERS)
    for scheduler in SCHEDULERS:
        if name in absent.SAMPLERS:
            with pytest.raises(BadRequest, match=f"{name} is of ComfyUI"):
                named(f"comfyui:{name} {scheduler}")
        elif named(f"comfyui:{name}")[0] in K_FAMILIES:
            assert named(f"comfyui:{name} {scheduler}")[1]["schedule"] == scheduler


@pytest.mark.parametrize("name", LABELS)
def test_every_label_of_the_webui_is_taken_or_said_to_be_absent(name):
    for label in SCHEDULE_LABELS:
        if name == "DDIM CFG++":
            with pytest.raises(BadRequest, match="ddim_cfgpp is of AUTOMATIC1111"):
                named(f"{name} {label}")
        else:
            family, options = named(name)
            assert options == named(f"automatic1111:{name}")[1]
            if family in K_FAMILIES:
                taken = named(f"{name} {label}")
                schedule = SCHEDULES_OF["automatic1111"].get(label.lower().replace(" ", "_"))
                assert taken == (family, {**options, **({"schedule": schedule} if schedule else {})})


def test_nothing_is_called_the_webuis_that_is_not():
    assert {entry.automatic1111 for entry in offered()} - {""} == set(LABELS) - {"DDIM CFG++"}


@pytest.mark.parametrize(
    ("name", "label"),
    [("k_euler_a", "Euler a"), ("k_dpm_2_a_ka", "DPM2 a Karras"), ("k_dpm_2_ka", "DPM2 Karras"),
     ("k_diffusion.sample_heun", "k-diffusion:heun"), ("k_dpmpp_2m_sde_heun_exp", "DPM++ 2M SDE Heun Exponential"),
     ("k_dpm_ad", "DPM adaptive"), ("DPM++2M Karras", "DPM++ 2M Karras"), ("dpm++2m", "DPM++ 2M"), ("EULER A", "Euler a")],
)  # fmt: skip
def test_short_names_and_loose_spellings(name, label):
    assert named(name) == named(label)


@pytest.mark.parametrize(
    ("name", "said"),
    [("eular", "did you mean euler"), ("dpmpp 2n", "dpmpp_2m"), ("DPM++ 2M Karass", "such as karras$"),
     ("unipc bh2", "did you mean uni_pc_bh2"), ("ipndm rainbow", "take ipndm alone"), ("unipc rainbow", "as normal, .*karras"),
     ("euler karras karras", 'no schedule "karras_karras"'), ("euler rainbow", "karras, exponential"), ("", "lists all"),
     ("karras", 'is a schedule.*"dpmpp_2m karras"'), ("k_euler carras", "such as karras"), ("comfyui:Restart", "lists all")],
)  # fmt: skip
def test_what_is_said_of_names_that_are_not_known(name, said):
    with pytest.raises(BadRequest, match=said) as raised:
        named(name)
    assert len(str(raised.value)) < 300 and "\n" not in str(raised.value)


def test_the_rule_says_what_is_done():
    """Each example in it, and who comes first."""
    assert named("DPM++ 2M Karras")[1] == named("automatic1111:DPM++ 2M Karras")[1] != named("dpmpp_2m karras")[1]
    assert named("dpmpp_2m karras") == named("comfyui:dpmpp_2m karras") == named("DPMPP-2m_+Karras")
    assert named("euler simple") == named("comfyui:euler simple")
    assert named("Euler")[0] == "k_euler" and named("euler")[0] == "euler" == named("refdiff:EULER")[0]
    assert named("ddim")[0] == "ddim" and named("comfyui:ddim")[0] == "k_euler"
    assert [named(name)[0] for name in ("automatic1111:DDIM", "k-diffusion:heun", "refdiff:lms")] == ["ddim", "k_heun", "lms"]


def test_unknown_programs():
    with pytest.raises(BadRequest, match='unknown program "invokeai".*refdiff, comfyui'):
        named("invokeai:euler")


@pytest.mark.parametrize("name", ["automatic1111:DDIM Karras", "pndm_beta", "lcm sgm_uniform", "tcd normal"])
def test_endings_that_a_sampler_cannot_follow(name):
    with pytest.raises(BadRequest, match="has no"):
        named(name)


@pytest.mark.parametrize("name", ["", "eular", "karras", "dpmpp_9m", "euler karras karras"])
def test_unknown_names(name):
    with pytest.raises(BadRequest, match="sampler.*(refdiff samplers|is a schedule)"):
        named(name)
