"""What zero terminal SNR's looser bounds are for: torch's root in float32, and nothing else.

The betas are quotients of differences of roots, and torch's root is one unit in the last place beside IEEE 754's for a fifth of
all numbers, for which ones depends on the processor. With roots rounded as IEEE says, upstream's tables are ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from refdiff.samplers import from_config
from tests.parity import schedulers
from tests.parity.schedulers import upstream_run
from tests.samplers.all_cases import CASES
from tests.samplers.cases import Case, name_of
from tests.samplers.stand_in import Given, first_latent, network_of

torch.set_num_threads(1)
PAIRS = [(case, config) for case in CASES for config in case.configs() if config.get("rescale_betas_zero_snr")]
POWER = torch.Tensor.__pow__


def root(x: torch.Tensor) -> torch.Tensor:
    """As IEEE 754 rounds it."""
    return torch.from_numpy(np.asarray(np.sqrt(x.numpy())))


def power(x: torch.Tensor, exponent: Any) -> torch.Tensor:
    """torch's, but for roots."""
    return root(x) if isinstance(exponent, float) and exponent == 0.5 else POWER(x, exponent)


@contextlib.contextmanager
def exact_roots() -> Iterator[None]:
    """Let torch take roots as NumPy does; schedulers that were made before are made again, now and afterwards."""
    schedulers._made.cache_clear()
    patch = mock.patch.object
    with patch(torch, "sqrt", root), patch(torch.Tensor, "sqrt", root), patch(torch.Tensor, "__pow__", power):
        yield
    schedulers._made.cache_clear()


def bound_of(case: Case, config: Mapping[str, Any]) -> float:
    """Measured 2.5e-6, but for two that upstream makes in float32 whatever it is given: Euler ancestral's sigma to go down to,
    1.1e-4, and DPM-Solver's differences of noises from a sigma of 4e3, 1.2e-4.
    """
    noises = case.class_name == "DPMSolverMultistepScheduler" and config["algorithm_type"] in ("dpmsolver", "sde-dpmsolver")
    return 5e-4 if noises or case.class_name == "EulerAncestralDiscreteScheduler" else 5e-6


@pytest.mark.parametrize(("case", "config"), PAIRS, ids=lambda value: name_of(value) if isinstance(value, dict) else "")
def test_with_exact_roots(case, config, measure):
    settings, network = case.settings[0], network_of(config)
    for steps in (3, 20):
        if not case.allowed(config, steps, settings):
            continue
        x = first_latent(steps).astype(np.float64)
        with exact_roots():
            _, wanted = upstream_run(config, x, steps, settings, Given(steps))
        sampler = from_config(config, settings=settings)
        got = [step.x for step in sampler.iterate(lambda x, t: network(np, x, t), x, steps, noise=Given(steps))]
        errors = [np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) for ours, theirs in zip(got, wanted, strict=True)]
        worst = int(np.argmax(errors))
        measure(f"exact roots, {name_of(config)}, {steps} steps", got[worst], wanted[worst], bound_of(case, config))
