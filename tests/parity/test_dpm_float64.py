"""Solvers whose coefficients upstream loses to float32, against upstream in float64 over the same tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refdiff.samplers import from_config
from tests.parity.schedulers import upstream_run
from tests.samplers import cases_s
from tests.samplers.cases import name_of
from tests.samplers.cases_dpm import CASES
from tests.samplers.stand_in import Given, network

torch.set_num_threads(1)
CLASSES = ("SASolverScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler", "DPMSolverSinglestepScheduler")
ALL = [(case, config) for case in [*CASES, *cases_s.CASES] if case.class_name in CLASSES for config in case.configs()]
# With zero terminal SNR betas are differences of roots, and torch's root is not IEEE's: the tables themselves differ, by 1.4e-3.
PAIRS = [(case, config) for case, config in ALL if not config.get("rescale_betas_zero_snr")]
RANDOM = ("sde-dpmsolver++",)
BOUND = 1e-6  # measured 2.7e-7: roots in the tables differ in their last digit


def settings_of(config):
    """What a caller says of the size of the picture, where the shift follows it."""
    return {"mu": 0.8} if config.get("use_dynamic_shifting") else {}


@pytest.mark.parametrize(("case", "config"), PAIRS, ids=lambda value: name_of(value) if isinstance(value, dict) else "")
def test_every_step_in_float64(case, config, measure):
    if config.get("algorithm_type") in RANDOM:
        config = {**config, "algorithm_type": "dpmsolver++"}
    for steps in (3, 20):
        if not case.allowed(config, steps, {}):
            continue
        x = np.random.default_rng(steps).standard_normal((2, 3, 4, 5))
        sampler = from_config(config, settings=settings_of(config))
        got = [step.x for step in sampler.iterate(lambda x, t: network(np, x, t), x, steps, noise=Given(steps))]
        _, wanted = upstream_run(config, x, steps, settings_of(config), Given(steps))
        for ours, theirs in zip(got, wanted, strict=True):
            assert ours.dtype == theirs.dtype == np.float64
            measure(f"float64, {name_of(config)}, {steps} steps", ours, theirs, BOUND)
