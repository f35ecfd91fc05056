"""Every scheduler against diffusers' in float64 over the same tables: what float32 makes of a formula is not in the way here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from refdiff.samplers import from_config
from tests.parity.schedulers import upstream_run
from tests.parity.test_schedulers import WITH_SETTINGS, named
from tests.samplers.cases import name_of
from tests.samplers.stand_in import Given, network_of

torch.set_num_threads(1)


@pytest.mark.parametrize(("case", "config", "settings"), WITH_SETTINGS, ids=named)
def test_every_step_in_float64(case, config, settings, measure):
    sampler = from_config(config, settings=settings)
    for steps in (3, 20):
        if steps not in case.steps or not case.allowed(config, steps, settings):
            continue
        x = np.random.default_rng(steps).standard_normal((2, 3, 4, 5))
        got = [step.x for step in sampler.iterate(lambda x, t: network_of(config)(np, x, t), x, steps, noise=Given(steps))]
        wanted = case.keep(upstream_run(config, x, steps, settings, Given(steps))[1], steps)[: len(got)]
        for ours, theirs in zip(case.as_upstream(config, got), wanted, strict=True):
            assert ours.dtype == theirs.dtype == np.float64
            measure(f"float64, {name_of(config)}, {settings}, {steps} steps", ours, theirs, case.exact_bound(config))
