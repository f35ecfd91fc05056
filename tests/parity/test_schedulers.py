"""Every scheduler against diffusers': tables, and every step of a run with a network that bends what it gets.

Where one is further away than 1e-5 in float32 it is shown that upstream has lost those digits itself, by upstream in float64; in
float64 both are within 1e-5 (test_float64.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from refdiff.samplers import from_config
from tests.parity.schedulers import upstream_of, upstream_run
from tests.samplers.all_cases import CASES
from tests.samplers.cases import MANY_STEPS, STEPS, name_of
from tests.samplers.stand_in import Given, network_of

torch.set_num_threads(1)
ALL = [(case, config) for case in CASES for config in case.configs()]
WITH_SETTINGS = [(case, config, settings) for case, config in ALL for settings in case.settings]


def named(value):
    """What a test's name says of a configuration and of settings."""
    if not isinstance(value, Mapping):
        return ""
    return name_of(value) if "_class_name" in value else " ".join(f"{key}={chosen}" for key, chosen in value.items())


# A run in float32 is within the bound, and so many times of what upstream's own float32 has lost until then against upstream in
# float64: two independent losses of one size are 1.4 times it apart.
TIMES = 3.0
each = pytest.mark.parametrize(("case", "config"), ALL, ids=named)


def assert_same_times(ours, theirs, bound, exact):
    """Whole times are the same where they are `exact`, others nearly."""
    assert ours.dtype == theirs.dtype
    whole = (theirs == np.round(theirs)) & exact
    np.testing.assert_array_equal(ours[whole], theirs[whole])
    np.testing.assert_allclose(ours, theirs, rtol=bound, atol=bound)


@each
def test_times_and_scales(case, config):
    settings = case.settings[0]
    sampler = from_config(config, settings=settings)
    for steps in (*STEPS, *MANY_STEPS):
        if case.allowed(config, steps, settings):
            scheduler = upstream_of(config, steps, settings)
            times = sampler.timesteps(steps)
            assert_same_times(times, scheduler.timesteps.numpy()[: len(times)], case.times_bound(config), case.whole_times)
            assert len(scheduler.timesteps) - len(times) in ((0, 1) if config.get("timestep_spacing") == "trailing" else (0,))
            first = sampler.initial(steps)
            assert first == pytest.approx(float(getattr(scheduler, "init_noise_sigma", 1.0)), rel=case.tables_bound)


@pytest.mark.parametrize(("case", "config", "settings"), WITH_SETTINGS, ids=named)
def test_every_step(case, config, settings, measure):
    sampler = from_config(config, settings=settings)
    for steps in case.steps:
        if not case.allowed(config, steps, settings):
            continue
        x = np.random.default_rng(steps).standard_normal((2, 3, 4, 5)).astype(np.float32)
        noise, theirs, asked = Given(steps), Given(steps), []

        def model(x, t, asked=asked):
            asked.append(t)
            return network_of(config)(np, x, t)

        got = [step.x for step in sampler.iterate(model, x, steps, noise=noise)]
        times, wanted = upstream_run(config, x, steps, settings, theirs)
        wanted = case.keep(wanted, steps)[: len(got)]
        np.testing.assert_allclose(asked, times[: len(asked)], rtol=case.times_bound(config), atol=case.times_bound(config))
        assert len(got) == len(wanted) == len(sampler.sigmas(steps)) - 1
        got = case.as_upstream(config, got)
        errors = apart(got, wanted)
        bounds = np.full(len(errors), case.bound)
        if errors.max() > case.bound:
            _, exact = upstream_run(config, x.astype(np.float64), steps, settings, Given(steps))
            bounds += TIMES * np.maximum.accumulate(apart(wanted, case.keep(exact, steps)[: len(got)]))
        worst = int(np.argmax(errors / bounds))
        measure(f"{name_of(config)}, {settings}, {steps} steps", got[worst], wanted[worst], float(bounds[worst]))


def apart(ours, theirs):
    """Relative L2 errors, one a step."""
    return np.array([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(ours, theirs, strict=True)])
