"""The times of a run that begins part way are those of diffusers' image-to-image pipeline."""

from __future__ import annotations

from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
from diffusers import StableDiffusionImg2ImgPipeline

from refdiff.samplers import from_config
from refdiff.samplers.strength import start_of

MODEL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 100])
@pytest.mark.parametrize("strength", [0.02, 0.29, 0.3, 0.5, 0.58, 0.75, 0.999, 1.0])
def test_times(name, steps, strength):
    scheduler = getattr(diffusers, name)(**MODEL)
    scheduler.set_timesteps(steps)
    times, left = StableDiffusionImg2ImgPipeline.get_timesteps(SimpleNamespace(scheduler=scheduler), steps, strength, "cpu")
    if left < 1:
        assert int(steps * strength) == 0
        return
    start = start_of(strength, steps, convention="diffusers")
    assert start == steps - left
    extra = {"clip_sample": False} if name == "DDIMScheduler" else {}
    ours = from_config({"_class_name": name, **MODEL, **extra}).timesteps(steps)[start:]
    np.testing.assert_allclose(ours, times.numpy(), rtol=1e-6)
