"""Rescaled guidance against diffusers' function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from refdiff.diffusion.guidance import guide, rescaled


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, 7.5, -1.0])
@pytest.mark.parametrize("phi", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (3, 4, 6, 10)])
def test_rescaled(shape, phi, scale, measure):
    generator = np.random.Generator(np.random.PCG64(0))
    unconditional, conditional = 1.5 * generator.standard_normal((2, *shape), dtype=np.float32) + np.float32(0.3)
    guided = guide(unconditional, conditional, scale=scale)
    want = rescale_noise_cfg(torch.from_numpy(guided), torch.from_numpy(conditional), guidance_rescale=phi).numpy()
    measure(f"rescaled guidance {shape}, phi {phi}, scale {scale}", rescaled(guided, conditional, phi=phi), want, 1e-6)
