"""Latents along a run are upstream's, for every scheduler, configuration and setting of the fixture, in one number of steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from refdiff.samplers import from_config
from tests.samplers.cases import name_of
from tests.samplers.stand_in import Given, first_latent, network_of
from tests.samplers.trajectories import bound_of, name_of_run, runs, seen

STORED = json.loads((Path(__file__).parent / "trajectories.json").read_text())["runs"]
RUNS = list(runs())
CLASSES = list(dict.fromkeys(run[0].class_name for run in RUNS))
AGAIN = "run python tools/make_scheduler_fixture.py"


def test_every_run_is_in_the_fixture():
    wanted = {name_of_run(run) for run in RUNS}
    assert len(wanted) == len(RUNS)
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
                assert error <= bound_of(run), f"{error:.1e}: {name_of(config)}, {settings}, {steps} steps"


def latents(run):
    """Ours, after every step."""
    _, config, settings, steps = run
    x, network = first_latent(steps).astype(np.float64), network_of(config)
    taken = from_config(config, settings=settings).iterate(lambda x, t: network(np, x, t), x, steps, noise=Given(steps))
    return [step.x for step in taken]
