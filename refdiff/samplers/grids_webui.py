"""The grids of k-diffusion, ComfyUI and AUTOMATIC1111: their named schedules, from a model's training sigmas.

Where two programs give one name to two schedules, the plain name is ComfyUI's and the other one ends in "_a1111".
Source: k-diffusion 0.1.1's sampling.py and external.py; ComfyUI's comfy/samplers.py, comfy/k_diffusion/sampling.py,
comfy_extras/nodes_align_your_steps.py and nodes_custom_sampler.py; AUTOMATIC1111 1.10's modules/sd_schedulers.py and
modules/sd_samplers_kdiffusion.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.diffusion import ramps, schedule
from refdiff.errors import BadRequest
from refdiff.samplers.grids import Grid

# What is published for ten steps. AUTOMATIC1111 has fewer digits than ComfyUI, and those of another table.
AYS_SD1 = (
    14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904, 0.6523686016,
    0.3977456272, 0.1515232662, 0.0291671582,
)  # fmt: skip
AYS_SDXL = (
    14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289, 0.3798540708,
    0.2332364134, 0.1114188177, 0.0291671582,
)  # fmt: skip
AYS_SD1_A1111 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
AYS_SDXL_A1111 = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


@dataclass(frozen=True)
class Ends:
    """Between which sigmas a ramp goes, and its exponent (None: the schedule's own)."""

    low: float
    high: float
    rho: float | None = None  # house: None is the schedule's own


def uniform(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """n times at equal distances from the last training time to the first, both among them, and 0.

    AUTOMATIC1111's "Uniform" and, where no ends are given, ComfyUI's and AUTOMATIC1111's "normal".
    Shapes: [T] -> [n+1]
    """
    return with_zero(sigma_at(times_between(len(table) - 1, 0, steps, table), table))


def normal(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """n times at equal distances between those of the ends, and 0.  Shapes: [T] -> [n+1]"""
    last, first = ramps.time_of(np.array([ends.high, ends.low], table.dtype), table)
    return with_zero(sigma_at(times_between(last, first, steps, table), table))


def sgm_uniform(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """n + 1 times at equal distances between those of the ends; 0 takes the place of the last.  Shapes: [T] -> [n+1]"""
    last, first = ramps.time_of(np.array([ends.high, ends.low], table.dtype), table)
    return with_zero(sigma_at(times_between(last, first, steps + 1, table)[:-1], table))


def simple(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """Training sigmas at strides of T / n down from the last, rounded down, and 0.  Shapes: [T] -> [n+1]"""
    back = (np.arange(steps) * (len(table) / steps)).astype(np.int64)
    return with_zero(table[len(table) - 1 - back])


def ddim_uniform(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """Training sigmas at whole strides of T // n up from time 1, and 0: as many as there is room for, not always n.

    AUTOMATIC1111's "DDIM" among its schedules.
    Shapes: [T] -> [m+1]
    """
    if len(table) < 2:
        raise BadRequest("schedule ddim_uniform begins at training time 1, which this model does not have")
    return with_zero(table[1 :: max(len(table) // steps, 1)][::-1])


def beta(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """Training sigmas at the rounded quantiles of a beta distribution of time, each once, and 0: not always n.

    Shapes: [T] -> [m+1]
    Source: Lee et al. 2024 (arXiv 2407.12173)
    """
    at = ramps.beta_quantiles(1 - np.linspace(0, 1, steps, endpoint=False), 0.6, 0.6) * (len(table) - 1)
    return with_zero(table[np.rint(at).astype(np.int64)])


def beta_of_sigma(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """The quantiles of a beta distribution of sigma itself, and 0.  Shapes: -> [n+1]"""
    return with_zero(ramps.beta(steps, low=ends.low, high=ends.high, a=0.6, b=0.6))


def karras(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """n sigmas along Karras's ramp, rho 7 if not said, and 0.  Shapes: -> [n+1]"""
    rho = 7.0 if ends.rho is None else ends.rho
    return with_zero(ramps.karras(steps, low=ends.low, high=ends.high, rho=rho))


def exponential(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """n sigmas at equal distances of their logarithms, and 0.  Shapes: -> [n+1]"""
    return with_zero(ramps.exponential(steps, low=ends.low, high=ends.high))


def polyexponential(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """n sigmas whose logarithms are at distances that grow as a power, rho 1 if not said, and 0.  Shapes: -> [n+1]"""
    rho = 1.0 if ends.rho is None else ends.rho
    return with_zero(ramps.polyexponential(steps, low=ends.low, high=ends.high, rho=rho))


def kl_optimal(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """n sigmas at equal distances of their arctangents, and 0.

    For one step, where ComfyUI divides by 0, the larger end.
    Shapes: -> [n+1]
    """
    return with_zero(ramps.arctangent(steps, low=ends.low, high=ends.high))


def kl_optimal_whole(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """n + 1 sigmas at equal distances of their arctangents, and no 0: a run ends at the smaller end.  Shapes: -> [n+1]"""
    return ramps.arctangent(steps + 1, low=ends.low, high=ends.high)


def laplace(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """n quantiles of a Laplace distribution of log sigma (0, 0.5), and 0.

    ComfyUI's node has no 0: its n sigmas are n - 1 steps, which end at the smaller end.
    Shapes: -> [n+1]
    """
    levels = ramps.laplace(steps, low=ends.low, high=ends.high, mean=0.0, scale=0.5)
    return with_zero(levels if steps > 1 else np.array([ends.high]))


def preserving(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """k-diffusion's "vp": from sigma 152, whatever the model's largest is, and 0.  Shapes: -> [n+1]"""
    return with_zero(ramps.preserving(steps, slope=19.9, least=0.1, end=1e-3))


def linear_quadratic(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
    """Straight for the first half of the steps, then along a parabola to 0.  Shapes: -> [n+1]"""
    return ramps.linear_quadratic(steps, high=float(table[-1]), threshold=0.025)


def align_your_steps(levels: tuple[float, ...]) -> Schedule:
    """n + 1 sigmas along those published, with 0 in the place of the last: for ten steps, the published ones."""

    def levels_along(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
        return with_zero(ramps.through(levels, steps + 1)[:-1])

    return levels_along


def align_your_steps_short(levels: tuple[float, ...]) -> Schedule:
    """n sigmas along those published, and 0: for eleven steps, the published ones; for one, where upstream takes the last
    of them, the first.
    """

    def levels_along(steps: int, table: np.ndarray, ends: Ends) -> np.ndarray:
        return with_zero(ramps.through(levels, steps))

    return levels_along


Schedule = Callable[[int, np.ndarray, Ends], np.ndarray]  # (steps, training sigmas, ends) -> sigmas, the last 0 but once
SCHEDULES: dict[str, Schedule] = {
    "uniform": uniform, "normal": normal, "simple": simple, "sgm_uniform": sgm_uniform, "ddim_uniform": ddim_uniform,
    "karras": karras, "exponential": exponential, "polyexponential": polyexponential, "vp": preserving, "laplace": laplace,
    "beta": beta, "beta_a1111": beta_of_sigma, "kl_optimal": kl_optimal, "kl_optimal_a1111": kl_optimal_whole,
    "linear_quadratic": linear_quadratic,
    "align_your_steps": align_your_steps(AYS_SD1), "align_your_steps_sdxl": align_your_steps(AYS_SDXL),
    "align_your_steps_a1111": align_your_steps_short(AYS_SD1_A1111),
    "align_your_steps_sdxl_a1111": align_your_steps_short(AYS_SDXL_A1111),
}  # fmt: skip
# Those that go between two ends, the model's if not said, and those with an exponent.
BETWEEN_ENDS = (
    "normal", "sgm_uniform", "karras", "exponential", "polyexponential", "kl_optimal", "kl_optimal_a1111", "beta_a1111",
    "laplace",
)  # fmt: skip
WITH_RHO = ("karras", "polyexponential")


def with_zero(sigmas: np.ndarray) -> np.ndarray:
    """Shapes: [n] -> [n+1]"""
    return np.append(sigmas, 0.0)


def times_between(last: float, first: float, count: int, table: np.ndarray) -> np.ndarray:
    """Times at equal distances, in the table's precision: as upstream's, whose float32 has few digits of the late ones.

    Shapes: -> [count]
    """
    return (schedule.linspace_torch if table.dtype == np.float32 else np.linspace)(last, first, count)


def sigma_at(times: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The sigma of a time between training times, its logarithm interpolated.

    Shapes: [n], [T] -> [n]
    Source: k-diffusion's external.py, t_to_sigma
    """
    times = times.astype(np.float64)
    return np.exp(np.interp(times, np.arange(len(table)), np.log(table.astype(np.float64))))


def nearest_time(sigma: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The training time whose sigma has the nearest logarithm.

    Shapes: [n], [T] -> [n]
    Source: ComfyUI's model_sampling.py, timestep; k-diffusion's external.py, sigma_to_t with quantize
    """
    return np.abs(np.log(np.maximum(sigma, 1e-10)) - np.log(table)[:, None]).argmin(axis=0)


TIMES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "interpolated": lambda sigma, table: ramps.time_of(sigma, table).astype(table.dtype), "nearest": nearest_time,
}  # fmt: skip


def initial_sigma(first: float, largest: float) -> float:
    """The first sigma: x = sigma noise."""
    return first


def initial_deviation(first: float, largest: float) -> float:
    """The deviation of noise and signal together: x = sqrt(1 + sigma^2) noise."""
    return math.sqrt(1.0 + first**2)


def initial_comfyui(first: float, largest: float) -> float:
    """The latter where the first sigma is the model's largest or above it, else the former."""
    whole = first > largest or math.isclose(first, largest, rel_tol=1e-5)
    return initial_deviation(first, largest) if whole else first


INITIAL = {"sigma": initial_sigma, "deviation": initial_deviation, "comfyui": initial_comfyui}


def levels_of(config: Mapping[str, Any], table: np.ndarray, steps: int) -> np.ndarray:
    """The sigmas of a schedule, in the table's precision, each once.

    With `discard_next_to_last` the schedule is that of one step more, without its last sigma above the end.
    Shapes: [T] -> [n+1], or fewer or more where the schedule says so
    """
    low, high = config["sigma_min"], config["sigma_max"]
    ends = Ends(float(table[0]) if low is None else low, float(table[-1]) if high is None else high, config["rho"])
    if not ends.low < ends.high:
        raise BadRequest(f"sigma_min {ends.low:g} must be below sigma_max {ends.high:g}")
    sigmas = SCHEDULES[config["schedule"]](steps + config["discard_next_to_last"], table, ends).astype(table.dtype)
    sigmas = sigmas[np.append(True, sigmas[1:] != sigmas[:-1])]
    return np.delete(sigmas, -2) if config["discard_next_to_last"] and len(sigmas) > 2 else sigmas


def webui_grid(config: Mapping[str, Any], table: np.ndarray, steps: int) -> Grid:
    """The schedule's sigmas and their times, which no solver says by itself; `table` is the training sigmas.

    Traps: init-sigma, sigma-tail
    """
    sigmas = levels_of(config, table, steps)
    of = TIMES[config["times"]]

    def time_at(sigma: float) -> float:
        return of(np.array([sigma], dtype=table.dtype), table).tolist()[0]

    initial = INITIAL[config["initial"]](float(sigmas[0]), float(table[-1]))
    return Grid(of(sigmas[:-1], table), sigmas, initial, {}, time_at=time_at)
