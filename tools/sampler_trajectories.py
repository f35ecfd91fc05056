"""Upstream's latents along a run of every scheduler, in every configuration of tests/samplers/all_cases.py, for the plain tests.

Used by tools/make_scheduler_fixture.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from refdiff.samplers import from_config  # noqa: E402
from tests.parity import k_diffusion  # noqa: E402
from tests.parity.schedulers import upstream_run  # noqa: E402
from tests.samplers.stand_in import Given, first_latent  # noqa: E402
from tests.samplers.trajectories import (  # noqa: E402
    K_BOUND,
    KRun,
    Run,
    k_config,
    k_runs,
    name_of_k_run,
    name_of_run,
    runs,
    seen,
)


def trajectories() -> dict[str, list[list[float]]]:
    """What is seen of upstream's latents, by the run's name."""
    found = {name_of_run(run): seen(latents(run)) for run in runs()}
    return found | {name_of_k_run(run): seen([last_latent(run)]) for run in k_runs()}


def latents(run: Run) -> list[np.ndarray]:
    """Upstream's latent after every step."""
    case, config, settings, steps = run
    x = first_latent(steps).astype(np.float64)
    _, found = upstream_run(config, x, steps, settings, Given(steps))
    return list(case.keep(found, steps))


def last_latent(run: KRun) -> np.ndarray:
    """k-diffusion's, in float32."""
    name, settings, steps, schedule = run
    sampler = from_config(k_config(schedule), name=name)
    found, _ = k_diffusion.upstream_run(sampler, first_latent(steps), steps, settings)
    return found


def differences(stored: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
    """What a stored fixture has otherwise than one made now; numbers may differ as the processor's do."""
    old, new = stored["runs"], made["runs"]
    yield from (f"no longer a run: {name}" for name in old.keys() - new.keys())
    yield from (f"not there: {name}" for name in new.keys() - old.keys())
    for run in runs():
        case, config, settings, steps = run
        name = name_of_run(run)
        if name in old and name in new and not near(old[name], new[name], case.exact_bound(config)):
            yield f"other latents: {name}, {config}, {settings}, {steps} steps"
    for name in map(name_of_k_run, k_runs()):
        if name in old and name in new and not near(old[name], new[name], K_BOUND):
            yield f"other latents: {name}"


def near(one: list[list[float]], other: list[list[float]], bound: float) -> bool:
    """Whether two runs were seen to be the same, each latent within the bound."""
    return len(one) == len(other) and all(
        np.linalg.norm(np.subtract(a, b)) <= bound * np.linalg.norm(b) for a, b in zip(one, other, strict=True)
    )
