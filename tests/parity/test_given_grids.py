"""Times and sigmas that the caller lists, against diffusers, for every scheduler that takes them."""

from __future__ import annotations

import inspect

import diffusers
import numpy as np
import pytest
from diffusers.schedulers import AysSchedules

from refdiff.samplers import from_config
from refdiff.samplers.listed import PUBLISHED
from refdiff.samplers.schedulers import FAMILIES
from tests.parity.schedulers import upstream_run
from tests.parity.test_options_audit import UPSTREAM
from tests.samplers.cases import LINEAR, SCALED, name_of
from tests.samplers.cases_k import every_second
from tests.samplers.stand_in import Given, network_of

TIMES = [(999, 850, 736, 645, 545, 455, 343, 233, 124, 24), (700, 3), (999,), (999, 500, 100, 0), tuple(range(980, -1, -40))]
BETWEEN = [(998.5, 700.25, 81.0, 3.125), (0.5,)]
SIGMAS = [(14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0), (700.0, 54.5, 0.034, 0.0), (3.0, 1.0)]
SHARES = [(1.0, 0.75, 0.5, 0.25), (0.9,), (0.98, 0.4, 0.1)]
LCM = {**SCALED, "original_inference_steps": 50}
FLOW = {"flow_shift": 3.0, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def dpm(class_name):
    """Orders and ends, where the order of a step depends on the number of steps."""
    rows = [(2, "zero", True), (3, "zero", False), (3, "sigma_min", True), (2, "sigma_min", False)]
    names = ("solver_order", "final_sigmas_type", "lower_order_final")
    return [{"_class_name": class_name, **SCALED, **dict(zip(names, row, strict=True))} for row in rows]


def euler(**options):
    return {"_class_name": "EulerDiscreteScheduler", **SCALED, **options}


def flow(name, **options):
    return {"_class_name": f"FlowMatch{name}Scheduler", "shift": 3.0, **options}


CASES = [
    *[(config, {"timesteps": times}) for config in (
        euler(timestep_spacing="leading"), euler(final_sigmas_type="sigma_min", prediction_type="v_prediction"),
        euler(interpolation_type="log_linear"), {"_class_name": "HeunDiscreteScheduler", **LINEAR},
    ) for times in [*TIMES, *BETWEEN]],
    *[(config, {"sigmas": sigmas}) for config in (
        euler(), euler(timestep_spacing="leading", use_karras_sigmas=True),
        euler(timestep_type="continuous", prediction_type="v_prediction"),
    ) for sigmas in SIGMAS],
    *[({"_class_name": "DDPMScheduler", **LINEAR, "variance_type": kind}, {"timesteps": times})
      for kind in ("fixed_small", "fixed_large", "learned_range") for times in TIMES],
    *[({"_class_name": f"{name}Scheduler", **LCM}, {"timesteps": times}) for name in ("LCM", "TCD") for times in TIMES],
    *[(config, {"timesteps": times}) for name in ("Multistep", "Singlestep") for config in dpm(f"DPMSolver{name}Scheduler")
      for times in TIMES],
    *[({"_class_name": "CMStochasticIterativeScheduler"}, {"timesteps": times}) for times in [(22, 0), (39, 17, 4), (8,)]],
    *[(flow(name, **options), {**settings, **given}) for name in ("EulerDiscrete", "LCM") for options, settings in (
        ({}, {}), ({"shift_terminal": 0.1}, {}), ({"invert_sigmas": True}, {}), ({"use_karras_sigmas": True}, {}),
        ({"use_dynamic_shifting": True}, {"mu": 0.7}),
    ) for given in [{"timesteps": (1000, 750.0, 300.5)}, {"sigmas": (1.0, 0.75, 0.5, 0.25)}, {"sigmas": (0.9, 0.2)},
                    {"timesteps": (900, 100), "sigmas": (0.8, 0.3)}]],
    *[({"_class_name": "UniPCMultistepScheduler", **FLOW, **options}, {**settings, "sigmas": sigmas}) for options, settings in (
        ({}, {}), ({"final_sigmas_type": "sigma_min"}, {}), ({"shift_terminal": 0.1}, {}),
        ({"use_dynamic_shifting": True}, {"mu": 0.7}),
    ) for sigmas in SHARES if "shift_terminal" not in options or len(sigmas) > 1],
]  # fmt: skip


def listed(sampler, given):
    """The sampler with these lists."""
    for kind, change in (("timesteps", "with_timesteps"), ("sigmas", "with_sigmas")):
        sampler = getattr(sampler, change)(given[kind]) if kind in given else sampler
    return sampler


def bound_of(config):
    """Heun's two steps divide by a small sigma what rounding has left: measured 1.2e-5 there, else 2.0e-6."""
    return 5e-5 if "Heun" in config["_class_name"] else 1e-5


@pytest.mark.parametrize(("config", "given"), CASES, ids=lambda v: name_of(v) if "_class_name" in v else str(v)[:60])
def test_every_step(config, given, measure):
    kinds = ("timesteps", "sigmas")
    sampler = listed(from_config(config, settings={k: v for k, v in given.items() if k not in kinds}), given)
    steps = sampler.steps
    told = {k: np.array(v) if k == "sigmas" else list(v) if k == "timesteps" else v for k, v in given.items()}
    x = np.random.default_rng(steps).standard_normal((2, 3, 4, 5)).astype(np.float32)
    times, wanted = upstream_run(config, x, None, told, Given(steps))
    asked = []

    def model(x, t):
        asked.append(t)
        return network_of(config)(np, x, t)

    got = [step.x for step in sampler.iterate(model, x, steps, noise=Given(steps))]
    if "Heun" in config["_class_name"]:
        wanted = every_second(wanted, steps)
    np.testing.assert_allclose(asked, times, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(sampler.timesteps(steps), times, rtol=1e-6, atol=1e-6)
    assert len(got) == len(wanted) == steps
    for g, w in zip(got, wanted, strict=True):
        measure(f"{name_of(config)}, {given}", g, w, bound_of(config))


@pytest.mark.parametrize("name", UPSTREAM)
def test_all_that_take_lists_are_here(name):
    """But EDMEuler's sigmas, which are places on its ramp, from 0 to 1."""
    family = FAMILIES[name]
    taken = set(inspect.signature(getattr(diffusers, family.class_name).set_timesteps).parameters) & {"timesteps", "sigmas"}
    assert set(family.listed) == (taken if name != "edm_euler" else set())
    held = {kind for config, given in CASES if config["_class_name"] == family.class_name for kind in given}
    assert held & {"timesteps", "sigmas"} == set(family.listed)


def test_published_lists():
    assert {name: tuple(values) for name, values in AysSchedules.items()} == dict(PUBLISHED)
