"""Where a run begins part way, as two programs count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.schedulers.k_diffusion import K_FAMILIES
from refdiff.samplers.strength import start_of

SAMPLER = from_config({"_class_name": "DDIMScheduler", "clip_sample": False})


@pytest.mark.parametrize(
    ("strength", "steps", "diffusers", "webui"),
    [(1.0, 20, 0, 0), (0.75, 20, 5, 4), (0.5, 20, 10, 9), (0.5, 5, 3, 2), (0.3, 50, 35, 34), (0.05, 20, 19, 18), (1.0, 1, 0, 0)],
)
def test_by_hand(strength, steps, diffusers, webui):
    assert SAMPLER.start_of(strength, steps, convention="diffusers") == diffusers
    assert SAMPLER.start_of(strength, steps, convention="webui") == webui


@given(st.floats(0.0, 0.998), st.integers(2, 100))
def test_one_step_apart(strength, steps):
    start = start_of(strength, steps, convention="webui")
    assert 0 <= start < steps
    if start < steps - 1:
        assert start_of(strength, steps, convention="diffusers") == start + 1


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "1", True, None])
def test_strengths_that_are_none(strength):
    with pytest.raises(BadRequest, match="from 0 to 1"):
        start_of(strength, 20, convention="diffusers")


def test_what_cannot_be_started():
    with pytest.raises(BadRequest, match="leaves no step"):
        start_of(0.04, 20, convention="diffusers")
    with pytest.raises(BadRequest, match="diffusers, webui"):
        start_of(0.5, 20, convention="comfy")
    with pytest.raises(BadRequest, match="cannot be made"):
        SAMPLER.start_of(0.5, 0, convention="diffusers")


@pytest.mark.parametrize("name", K_FAMILIES)
@pytest.mark.parametrize("start", [0, 10, 18, 19])
def test_every_run_has_a_step_wherever_it_begins(name, start):
    """Also where a solver that does not go to 0 begins with the sigma at which it ends."""
    sampler, x0 = from_config({"_class_name": K_FAMILIES[name].class_name, "schedule": "karras"}), np.ones((1, 4, 2, 2))
    x = sampler.add_noise(x0, stream("numpy", 1).normal(x0.shape), 20, start)
    taken = list(sampler.iterate(lambda x, t: 0.5 * x, x, 20, noise=stream("numpy", 2), start=start))
    assert taken and [step.index for step in taken] == list(range(start, start + len(taken)))
    assert all(np.all(np.isfinite(part)) for step in taken for part in (step.x, step.denoised))
