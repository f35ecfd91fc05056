"""Latents along a run are upstream's, for every scheduler, configuration and setting of the fixture, in one number of steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from refdiff.samplers import from_config
from tests.samplers.cases import name_of
from tests.samplers.stand_in import Given, first_latent, network, network_of
from tests.samplers.trajectories import K_BOUND, K_NAMES, k_config, k_runs, name_of_k_run, name_of_run, runs, seen

STORED = json.loads((Path(__file__).parent / "trajectories.json").read_text())["runs"]
RUNS = list(runs())
CLASSES = list(dict.fromkeys(run[0].class_name for run in RUNS))
AGAIN = "run python tools/make_scheduler_fixture.py"


def test_every_run_is_in_the_fixture():
    wanted = {name_of_run(run) for run in RUNS} | {name_of_k_run(run) for run in k_runs()}
    assert len(wanted) == len(RUNS) + len(list(k_runs()))
    assert wanted == STORED.keys(), f"{len(wanted ^ STORED.keys())} runs are others: {AGAIN}"


@pytest.mark.parametrize("class_name", CLASSES)
def test_latents(class_name):
    for run in RUNS:
        case, config, settings, steps = run
        if case.class_name == class_name:
            wanted, found = STORED[name_of_run(run)], seen(latents(run))
            assert len(found) == len(wanted), AGAIN
            for got, want in zip(found, wanted, strict=True):
                error = np.linalg.norm(np.subtract(got, want)) / np.linalg.norm(want)
                assert error <= case.exact_bound(config), f"{error:.1e}: {name_of(config)}, {settings}, {steps} steps"


@pytest.mark.parametrize("name", K_NAMES)
def test_last_latents_of_k_diffusion(name):
    for run in k_runs():
        if run[0] == name:
            _, settings, steps, schedule = run
            sampler = from_config(k_config(schedule), name=name, settings=settings)
            end = sampler.sample(lambda x, t: network(np, x, t), first_latent(steps), steps, noise=Given(5))
            got, want = seen([end])[0], STORED[name_of_k_run(run)][0]
            assert np.linalg.norm(np.subtract(got, want)) <= K_BOUND * np.linalg.norm(want), name_of_k_run(run)


def latents(run):
    """Ours, after every step."""
    case, config, settings, steps = run
    x, model = first_latent(steps).astype(np.float64), network_of(config)
    taken = from_config(config, settings=settings).iterate(lambda x, t: model(np, x, t), x, steps, noise=Given(steps))
    return case.as_upstream(config, [step.x for step in taken])
