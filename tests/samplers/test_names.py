"""Samplers under the names that other programs give them."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.names import ENDINGS, TABLE, Entry, named, offered
from refdiff.samplers.schedulers import FAMILIES

MODEL = {
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "skip_prk_steps": True, "steps_offset": 1, "clip_sample": False,
    "set_alpha_to_one": False, "prediction_type": "epsilon",
}  # fmt: skip


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
        ("Euler a", "euler_ancestral", {}),
        ("euler_ancestral", "euler_ancestral", {}),
        ("sample_heun", "heun", {}),
        ("DPM2 a", "dpm2_ancestral", {}),
        ("dpm_2", "dpm2", {}),
        ("PLMS", "pndm", {}),
        ("dpmpp_2m", "dpm_multistep", {}),
        ("DPM++ 2M SDE", "dpm_multistep", {"algorithm_type": "sde-dpmsolver++", "solver_type": "midpoint"}),
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
    assert family == "dpm_multistep"
    assert [key for key, value in options.items() if value] == ["use_karras_sigmas"]


@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if not ending.startswith(("sgm", "normal"))])
def test_an_ending_takes_the_place_of_the_models_ramp(ending):
    family, options = named(f"euler {ending}")
    given = {**MODEL, "use_karras_sigmas": True}
    want = from_config({**MODEL, **{key: value for key, value in options.items() if value}}, name=family).sigmas(7)
    np.testing.assert_array_equal(from_config({**given, **options}, name=family).sigmas(7), want)


@pytest.mark.parametrize("entry", offered(), ids=lambda entry: f"{entry.class_name} {dict(entry.options)}")
def test_every_name_is_taken(entry):
    names = [name for name in (entry.comfyui, entry.automatic1111, entry.k_diffusion) if name]
    for name in [*names, *(n.upper() for n in names)]:
        assert named(name) == (entry.family, dict(entry.options))
        family, options = named(name)
        assert from_config({**MODEL, **options}, name=family).sigmas(4).shape == (5,)


@pytest.mark.parametrize("name", ["DDIM Karras", "euler_ancestral_beta"])
def test_endings_that_a_sampler_cannot_follow(name):
    with pytest.raises(BadRequest, match="has no"):
        named(name)


@pytest.mark.parametrize("name", ["", "eular", "karras", "dpmpp_9m", "euler karras karras"])
def test_unknown_names(name):
    with pytest.raises(BadRequest, match="unknown sampler.*ddim.*refdiff samplers"):
        named(name)
