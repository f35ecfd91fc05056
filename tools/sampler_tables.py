"""Upstream's tables of every scheduler, in every configuration of tests/samplers/all_cases.py, for the plain tests.

Used by tools/make_scheduler_fixture.py. The same times and sigmas, which many configurations share, are stored once.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.parity.schedulers import upstream_of  # noqa: E402
from tests.samplers.cases import Case  # noqa: E402
from tests.samplers.tables import BACK_AND_FORTH, STEPS, key, plain, positions, rows  # noqa: E402

DIGITS = 9  # of a float32: all


def sha256(values: np.ndarray) -> str:
    """Of the bytes in little-endian order."""
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest()


def sampler_tables() -> dict[str, Any]:
    """Rows, one for each configuration, and the grids that they name by number: one for each count of steps, or none."""
    grids: dict[str, int] = {}
    found = []
    for case, config, settings in rows():
        chosen = []
        for steps in STEPS:
            if not case.allowed(config, steps, settings):
                chosen.append(None)
                continue
            text = json.dumps(grid(case, config, settings, steps))
            chosen.append(grids.setdefault(text, len(grids)))
        found.append({"config": config, "settings": plain(settings), "grids": chosen})
    return {"steps": STEPS, "grids": [json.loads(text) for text in grids], "rows": found}


def grid(case: Case, config: Mapping[str, Any], settings: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Times: whole ones by their sha256, others at some places; sigmas and their mean logarithm; the first scale."""
    scheduler = upstream_of(config, steps, settings)
    times = scheduler.timesteps.numpy()
    sigmas = SIGMAS.get(case.class_name, listed)(scheduler, config, steps)
    moves = len(times) if case.class_name == BACK_AND_FORTH else steps
    assert len(sigmas) == moves + 1, (config, steps, len(sigmas))
    whole = case.whole_times and bool(np.all(times == np.round(times)))
    seen = {"sha256": sha256(times)} if whole else {"at": short(times[positions(len(times))])}
    some = sigmas[np.isfinite(sigmas) & (sigmas > 0)]
    return {
        "times": {"dtype": str(times.dtype), "length": len(times), **seen},
        "sigmas": short(sigmas[positions(len(sigmas))]),
        "mean": short(np.log(some).mean() if len(some) else 0.0),
        "initial": short(getattr(scheduler, "init_noise_sigma", 1.0)),
    }


def short(values: Any) -> Any:
    """Numbers with nine digits."""
    return [short(v) for v in values] if np.ndim(values) else float(f"{float(values):.{DIGITS}g}")


def listed(scheduler: Any, config: Mapping[str, Any], steps: int) -> np.ndarray:
    """The scheduler's own list, without what it has beyond the last step.  Shapes: -> [n+1]"""
    return scheduler.sigmas.numpy().astype(np.float64)[: steps + 1]


def of_sines(scheduler: Any, config: Mapping[str, Any], steps: int) -> np.ndarray:
    """iPNDM's shares of noise over those of the picture.  Shapes: -> [n+1]"""
    noise, picture = (values.numpy().astype(np.float64) for values in (scheduler.betas, scheduler.alphas))
    with np.errstate(divide="ignore"):
        return noise / picture


def twice(scheduler: Any, config: Mapping[str, Any], steps: int) -> np.ndarray:
    """A list that has the sigma of every step but the first twice.  Shapes: -> [n+1]"""
    sigmas = scheduler.sigmas.numpy().astype(np.float64)
    return np.append(sigmas[:1], sigmas[1::2][:steps])


def sigmas_at(scheduler: Any, times: Any, end: float) -> np.ndarray:
    """The sigmas of the signal at these training times, and of the one at the end.  Shapes: [n] -> [n+1]"""
    signal = np.append(scheduler.alphas_cumprod.numpy().astype(np.float64)[np.asarray(times)], end)
    with np.errstate(divide="ignore"):
        return np.sqrt((1.0 - signal) / signal)


def to_nothing(scheduler: Any, config: Mapping[str, Any], steps: int) -> np.ndarray:
    """Sigmas of the times, and at last 0.  Shapes: -> [n+1]"""
    return sigmas_at(scheduler, scheduler.timesteps, 1.0)


def to_time_0(scheduler: Any, config: Mapping[str, Any], steps: int) -> np.ndarray:
    """Sigmas of the times, and at last that of time 0.  Shapes: -> [n+1]"""
    return sigmas_at(scheduler, scheduler.timesteps, float(scheduler.alphas_cumprod[0]))


def by_strides(scheduler: Any, config: Mapping[str, Any], steps: int) -> np.ndarray:
    """Sigmas of the times at which steps begin, and one stride after the last.  Shapes: -> [n+1]"""
    times = scheduler.timesteps.numpy()
    if len(times) == steps + 1:  # PNDM's trial step: the second time comes twice
        times = np.delete(times, 2)
    elif len(times) > steps + 1:  # three steps by Runge and Kutta, of four times each
        times = np.append(times[:12:4], times[12:])
    end = int(times[-1]) - scheduler.config.num_train_timesteps // steps
    last = scheduler.alphas_cumprod[end] if end >= 0 else scheduler.final_alpha_cumprod
    return sigmas_at(scheduler, times, float(last))


def upwards(scheduler: Any, config: Mapping[str, Any], steps: int) -> np.ndarray:
    """DDIM's inverse: sigmas one stride before each time, and that of the last time.  Shapes: -> [n+1]"""
    times = scheduler.timesteps.numpy()
    begins = times - scheduler.config.num_train_timesteps // steps
    found = sigmas_at(scheduler, np.maximum(begins, 0), float(scheduler.alphas_cumprod[times[-1]]))
    first = float(scheduler.initial_alpha_cumprod)
    found[:-1][begins < 0] = np.sqrt((1.0 - first) / first)
    return found


def by_moves(scheduler: Any, config: Mapping[str, Any], steps: int) -> np.ndarray:
    """RePaint's: that of the first time, and one stride before the time of each move, down or back up.  Shapes: -> [moves+1]"""
    times = scheduler.timesteps.numpy()
    levels = np.append(times[0], times - scheduler.config.num_train_timesteps // steps)
    found = sigmas_at(scheduler, np.maximum(levels, 0), 1.0)[:-1]
    found[levels < 0] = 0.0
    return found


def told(scheduler: Any, config: Mapping[str, Any], steps: int) -> np.ndarray:
    """What ScoreSdeVe's network is told, and at last 0.  Shapes: -> [n+1]"""
    return np.append(scheduler.sigmas.numpy().astype(np.float64), 0.0)


Sigmas = Callable[[Any, Mapping[str, Any], int], np.ndarray]
SIGMAS: dict[str, Sigmas] = {
    "IPNDMScheduler": of_sines, "RePaintScheduler": by_moves, "ScoreSdeVeScheduler": told,
    "DDIMScheduler": by_strides, "PNDMScheduler": by_strides, "DDIMInverseScheduler": upwards, "DDPMScheduler": to_nothing,
    "LCMScheduler": to_nothing, "UnCLIPScheduler": to_nothing, "TCDScheduler": to_time_0, "HeunDiscreteScheduler": twice,
    "DPMSolverSDEScheduler": twice,
    "KDPM2DiscreteScheduler": twice, "KDPM2AncestralDiscreteScheduler": twice, "FlowMatchHeunDiscreteScheduler": twice,
}  # fmt: skip


def differences(stored: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
    """What a stored fixture has otherwise than one made now; numbers may differ as the processor's roots and logarithms do."""
    old, new = ({key(row["config"], row["settings"]): row for row in data["rows"]} for data in (stored, made))
    yield from (f"no longer a case: {name}" for name in old.keys() - new.keys())
    yield from (f"not there: {name}" for name in new.keys() - old.keys())
    cases = {key(config, settings): case for case, config, settings in rows()}
    for name in old.keys() & new.keys():
        case, config = cases[name], old[name]["config"]
        for steps, one, other in zip(STEPS, old[name]["grids"], new[name]["grids"], strict=True):
            same = one is other or (one is not None and other is not None)
            if same and one is not None:
                same = alike(stored["grids"][one], made["grids"][other], case, config)
            if not same:
                yield f"{steps} steps are others: {name}"


def alike(one: Mapping[str, Any], other: Mapping[str, Any], case: Case, config: Mapping[str, Any]) -> bool:
    """Whether two grids are the same within the case's bounds."""
    times = [dict(grid["times"]) for grid in (one, other)]
    at = [found.pop("at", []) for found in times]
    bounds = {"rtol": case.tables_bound, "atol": 0.0}
    return (
        times[0] == times[1]
        and len(at[0]) == len(at[1])
        and np.allclose(*at, rtol=case.times_bound(config), atol=case.times_bound(config))
        and all(np.allclose(one[name], other[name], **bounds) for name in ("sigmas", "initial"))
    )
