"""The sampler of a request."""

from __future__ import annotations

import pytest

from refdiff.pipelines.sampling import chosen_sampler
from refdiff.samplers import from_config


@pytest.mark.parametrize("clips", [{}, {"clip_sample": True}])
@pytest.mark.parametrize("name", [None, "ddim", "ddpm", "ddim_inverse", "DDPMScheduler"])
def test_latents_are_never_clipped(clips, name):
    """Though the file asks for it, or says nothing where the class clips by default."""
    scheduler = {"_class_name": "DDIMScheduler", **clips}
    assert from_config(scheduler).config["clip_sample"] is True
    assert chosen_sampler(scheduler, name=name, eta=None, grid={}).config["clip_sample"] is False
