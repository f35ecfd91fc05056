"""Times, sigmas and first scales are upstream's, for every scheduler, spacing and number of steps of the fixture."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from refdiff.errors import BadRequest
from refdiff.samplers import from_config

ROWS = json.loads((Path(__file__).parent / "tables.json").read_text())["rows"]


def name_of(row: dict) -> str:
    config = row["config"]
    return " ".join([config["_class_name"], config["timestep_spacing"], config["beta_schedule"]])


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_grid(row):
    sampler = from_config(row["config"])
    for grid in row["grids"]:
        steps = grid["steps"]
        times, sigmas = sampler.timesteps(steps), sampler.sigmas(steps)
        wanted = grid["timesteps"]
        assert (str(times.dtype), len(times)) == (wanted["dtype"], wanted["length"]), steps
        assert hashlib.sha256(np.ascontiguousarray(times).tobytes()).hexdigest() == wanted["sha256"], (steps, times)
        assert sigmas.shape == (grid["sigmas"]["length"],) == (steps + 1,)
        np.testing.assert_allclose(sigmas[grid["sigmas"]["at"]], grid["sigmas"]["values"], rtol=1e-6, err_msg=steps)


def test_the_fixture_covers_what_it_should():
    assert {name_of(row).split()[0] for row in ROWS} == {"DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler"}
    for row in ROWS:
        expected = [1, 2, 3, 7, 10, 20, 50, 999, 1000]
        short = row["config"]["timestep_spacing"] == "leading" and row["config"]["steps_offset"] == 1
        assert [grid["steps"] for grid in row["grids"]] == expected[: 8 if short else 9], name_of(row)


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_first_scale(row):
    """A network that answers nothing leaves the first latent as it is: its scale is upstream's for unit noise."""
    sampler = from_config({**row["config"], "prediction_type": "epsilon"})
    for grid in row["grids"][:6]:
        seen = []

        def silent(x, t, seen=seen):
            seen.append(x)
            return np.zeros_like(x)

        sampler.sample(silent, np.ones((1, 1)), grid["steps"])
        first = grid["sigmas"]["values"][0]
        scaled = grid["initial"] / (1.0 if name_of(row)[0] in "DP" else (first**2 + 1.0) ** 0.5)
        np.testing.assert_allclose(seen[0], scaled, rtol=1e-6, err_msg=grid["steps"])


@pytest.mark.parametrize("row", [r for r in ROWS if r["config"]["steps_offset"] == 1], ids=name_of)
def test_an_offset_beyond_the_last_training_time_is_refused(row):
    sampler = from_config(row["config"])
    if row["config"]["timestep_spacing"] != "leading":
        assert sampler.timesteps(1000)[0] == 999
        return
    for use in (sampler.timesteps, sampler.sigmas, lambda n: sampler.sample(None, np.ones((1, 1)), n)):
        with pytest.raises(BadRequest, match="1000 steps with steps_offset 1 begin at time 1000 of 1000: take fewer steps"):
            use(1000)
    assert sampler.timesteps(999)[0] == 999
