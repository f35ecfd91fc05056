"""Times, sigmas and first scales are upstream's, for every scheduler, configuration and number of steps of the fixture."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

from refdiff.errors import BadRequest
from refdiff.samplers import from_config
from refdiff.samplers.grids_dpm import flowing
from refdiff.samplers.schedulers import FAMILIES
from tests.samplers.cases import name_of
from tests.samplers.tables import BACK_AND_FORTH, STEPS, key, positions, rows

STORED = json.loads((Path(__file__).parent / "tables.json").read_text())
ROWS = {key(row["config"], row["settings"]): row["grids"] for row in STORED["rows"]}
CASES = list(rows())
CLASSES = list(dict.fromkeys(case.class_name for case, _, _ in CASES))
AGAIN = "run python tools/make_scheduler_fixture.py"


def test_every_case_is_in_the_fixture():
    wanted = {key(config, settings) for _, config, settings in CASES}
    assert wanted == ROWS.keys(), f"{len(wanted ^ ROWS.keys())} cases are others: {AGAIN}"
    assert tuple(STORED["steps"]) == STEPS, AGAIN


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_diffusers_is_in_the_fixture(name):
    class_name = FAMILIES[name].class_name
    if not class_name.startswith("k_diffusion."):
        assert class_name in CLASSES, f"{class_name} has no case in tests/samplers/all_cases.py; add one and {AGAIN}"


@pytest.mark.parametrize("class_name", CLASSES)
def test_tables(class_name):
    for case, config, settings in CASES:
        if case.class_name == class_name:
            sampler = from_config(config, settings=settings)
            for steps, number in zip(STEPS, ROWS[key(config, settings)], strict=True):
                assert (number is not None) == case.allowed(config, steps, settings), AGAIN
                if number is not None:
                    assert_as_stored(sampler, case, config, steps, STORED["grids"][number])


def assert_as_stored(sampler, case, config, steps, stored):
    """Whole times by their sha256, others and the sigmas at some places and the sigmas by their mean logarithm too."""
    what = f"{name_of(config)}, {steps} steps"
    grid = sampler.family.grid({**sampler.config, **sampler.settings}, sampler.alphas, steps)
    times = grid.times if grid.calls is None else grid.calls
    wanted = stored["times"]
    moves = wanted["length"] if case.class_name == BACK_AND_FORTH else steps
    assert (str(times.dtype), len(times), len(grid.sigmas)) == (wanted["dtype"], wanted["length"], moves + 1), what
    if "sha256" in wanted:
        assert hashlib.sha256(np.ascontiguousarray(times).tobytes()).hexdigest() == wanted["sha256"], (what, times)
    else:
        bound, some, given = case.times_bound(config), times[positions(len(times))], np.array(wanted["at"])
        np.testing.assert_allclose(some, given, rtol=bound, atol=bound, err_msg=what)
        whole = (given == np.round(given)) & case.whole_times
        np.testing.assert_array_equal(some[whole], given[whole], err_msg=what)
    assert_same_sigmas(sampler, grid.sigmas, case.tables_bound, stored, what)
    first = grid.initial * sampler.family.outside(float(grid.sigmas[0]))
    assert first == pytest.approx(stored["initial"], rel=case.tables_bound), what


def assert_same_sigmas(sampler, sigmas, bound, stored, what):
    """Where nothing is left of the signal, upstream's sigma is infinite and ours is 1e8."""
    sigmas = sigmas.astype(np.float64)
    if sampler.family.outside is flowing:
        sigmas = sigmas / (1.0 + sigmas)
    sigmas = np.where(sigmas > 1e7, math.inf, sigmas)
    np.testing.assert_allclose(sigmas[positions(len(sigmas))], stored["sigmas"], rtol=bound, atol=1e-30, err_msg=what)
    some = sigmas[np.isfinite(sigmas) & (sigmas > 0)]
    assert (np.log(some).mean() if len(some) else 0.0) == pytest.approx(stored["mean"], rel=0, abs=bound), what


@pytest.mark.parametrize("class_name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_what_a_sampler_shows_is_its_grid(class_name):
    sampler = from_config({"_class_name": class_name})
    grid = sampler.family.grid({**sampler.config, **sampler.settings}, sampler.alphas, 20)
    np.testing.assert_array_equal(sampler.timesteps(20), grid.times)
    np.testing.assert_array_equal(sampler.sigmas(20), grid.sigmas)


OFFSET = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


@pytest.mark.parametrize("class_name", ["DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler"])
def test_an_offset_beyond_the_last_training_time_is_refused(class_name):
    config = {"_class_name": class_name, **OFFSET, **({"skip_prk_steps": True} if class_name == "PNDMScheduler" else {})}
    assert from_config({**config, "timestep_spacing": "trailing"}).timesteps(1000)[0] == 999
    sampler = from_config({**config, "timestep_spacing": "leading"})
    for use in (sampler.timesteps, sampler.sigmas, lambda n: sampler.sample(None, np.ones((1, 1)), n)):
        with pytest.raises(BadRequest, match="1000 steps with steps_offset 1 begin at time 1000 of 1000: take fewer steps"):
            use(1000)
    assert sampler.timesteps(999)[0] == 999
