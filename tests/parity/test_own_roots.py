"""What torch's own float32 roots make of zero terminal SNR, beside the exact ones with which the other tests hold diffusers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from refdiff.samplers import from_config
from tests.parity.schedulers import _made, planned
from tests.samplers.all_cases import CASES
from tests.samplers.cases import name_of

torch.set_num_threads(1)
PAIRS = [(case, config) for case in CASES for config in case.configs() if config.get("rescale_betas_zero_snr")]


def test_a_root_is_within_a_unit_in_the_last_place():
    x = torch.linspace(1e-4, 1.0, 100_000)
    ours = np.sqrt(x.numpy())
    apart = np.abs(x.sqrt().numpy().view(np.int32) - ours.view(np.int32))
    assert apart.max() <= 1


def sigmas_bound(config):
    """Near time 0, where alpha is near 1, a few of its last digits are 4.0e-4 of sigma (measured), 1.4e-3 with the cosine; the
    schedule of Stable Diffusion stays within 1.1e-4.
    """
    return {"squaredcos_cap_v2": 5e-3, "scaled_linear": 2e-4}.get(config.get("beta_schedule", "linear"), 1e-3)


@pytest.mark.parametrize(("case", "config"), PAIRS, ids=lambda value: name_of(value) if isinstance(value, dict) else "")
def test_with_torchs_roots(case, config):
    sampler = from_config(config, settings=case.settings[0])
    scheduler = planned(_made.__wrapped__(json.dumps(config)), 10, case.settings[0])
    theirs, ours = scheduler.alphas_cumprod.numpy().astype(np.float64), sampler.alphas.astype(np.float64)
    sigmas = [np.sqrt((1.0 - signal[:-1]) / signal[:-1]) for signal in (ours, theirs)]  # the last has no signal
    np.testing.assert_allclose(*sigmas, rtol=sigmas_bound(config))
