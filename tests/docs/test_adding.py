"""docs/samplers/adding.md adds a sampler: each of its programs runs, and what it adds is known and of its order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from refdiff import cli
from refdiff.samplers import from_config, names
from refdiff.samplers.schedulers import FAMILIES
from tests.samplers.ladder import Rung, denoiser, even, slope

PAGE = Path(__file__).parents[2] / "docs" / "samplers" / "adding.md"


@pytest.fixture
def page(monkeypatch):
    """What the page's programs define; the tables are as before when the test is over."""
    monkeypatch.setattr(names, "TABLE", names.TABLE)
    before = dict(FAMILIES)
    found: dict = {}
    for program in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(program, str(PAGE), "exec"), found)
    yield found
    FAMILIES.clear()
    FAMILIES.update(before)


def test_it_is_known_by_its_name_and_listed(page):
    assert from_config({"_class_name": "RalstonScheduler"}).sigmas(5).shape == (6,)
    lines = CliRunner().invoke(cli.refdiff, ["samplers"]).output.splitlines()
    (line,) = [line for line in lines if line.startswith("ralston ")]
    assert "RalstonScheduler" in line and "Ralston 1962" in line
    np.testing.assert_array_equal(page["latent"].shape, (1, 4, 8, 8))


def test_it_has_the_order_that_it_says(page):
    def run(x, sigmas):
        thirds = [(a + 2.0 * b) / 3.0 for a, b in zip(sigmas[:-1], sigmas[1:], strict=True)]
        return page["ralston"](denoiser, x, sigmas, thirds=thirds)

    ladder = (48, 96, 192)
    assert abs(slope(ladder, Rung("Ralston", 2, 2, run, even).errors(ladder)) - 2.0) < 0.15


def test_it_is_as_short_as_the_page_says(page):
    (entry,) = [entry for entry in names.TABLE if entry.class_name == "RalstonScheduler"]
    assert entry.family == "ralston" and entry.order == "2"
    calls = []
    sampler = from_config({"_class_name": "RalstonScheduler"})
    sampler.sample(lambda x, t: calls.append(t) or 0.1 * x, np.ones((1, 4, 2, 2)), 10)
    assert len(calls) == 2 * 10
