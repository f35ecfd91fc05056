"""Restart sampling: Heun's method that goes back up by much fresh noise, and down the same way again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from refdiff.diffusion import ramps
from refdiff.diffusion.noise import Stream
from refdiff.samplers.churn import lifted
from refdiff.samplers.heun import heun_step
from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


def restart(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, begins: Sequence[float], s_noise: float, noise: Stream | None
) -> Iterator[Step]:
    """Heun's steps, each from the sigma where it is said to begin: fresh noise leads there where that is higher.

    Math: x^ = x + s_noise sqrt(b^2 - s^2) noise, then Heun's step from b to s'
    Shapes: x and the results [B,...], sigmas [n+1]: at the beginning and after each step, begins [n] (`with_restarts`)
    Source: Xu et al. 2023 (arXiv 2306.14878), section 3
    """
    for i, (sigma, begin, after) in enumerate(zip(sigmas[:-1], begins, sigmas[1:], strict=True)):
        if begin > sigma:
            x = lifted(x, sigma, begin, s_noise, noise)
        x, denoised = heun_step(denoise, x, begin, after)
        yield Step(i, after, x, denoised)


@dataclass(frozen=True)
class Interval:
    """Where a run goes back up: from `low` to `high`, `times` times, each time down again through `levels` sigmas."""

    low: float
    high: float
    levels: int
    times: int


def with_restarts(sigmas: Sequence[float], intervals: Sequence[Interval]) -> tuple[list[float], list[float]]:
    """The sigmas of the whole run, restarts included, and where its steps begin.

    The ends of an interval are the levels of the run that are nearest to them; between them lies Karras's ramp. Where both are
    the same level, or a run begins at the lower one, nothing is restarted.
    Shapes: [n+1] -> [m+1], [m]
    Source: Xu et al. 2023 (arXiv 2306.14878), section 3; for the nearest levels AUTOMATIC1111 as below
    """
    planned = {_nearest(sigmas, interval.low): interval for interval in intervals}
    ends, begins = [sigmas[0]], []
    for i, (sigma, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        begins.append(sigma)
        ends.append(after)
        if i + 1 not in planned:
            continue
        interval = planned[i + 1]
        top = _nearest(sigmas, interval.high)
        if top <= i:
            down = ramps.karras(interval.levels, low=after, high=sigmas[top], rho=7.0).tolist()
            down[0], down[-1] = sigmas[top], after
            begins += down[:-1] * interval.times
            ends += down[1:] * interval.times
    return ends, begins


def webui_plan(sigmas: Sequence[float]) -> tuple[list[float], list[float]]:
    """AUTOMATIC1111's: of n steps so many restart that there are n in all, on Karras's ramp between the ends given.

    From 36 steps on the run goes back from 0.1 to 2 twice, by a quarter of the steps each; from 20 on once, by 9; below never,
    and then the sigmas are those given.
    Shapes: [n+1], the last of them 0 -> [m+1], [m]
    Source: AUTOMATIC1111's stable-diffusion-webui, modules/sd_samplers_extra.py
    """
    steps = len(sigmas) - 1
    if steps < 20:
        return list(sigmas), list(sigmas[:-1])
    each, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    levels = ramps.karras(steps - each * times, low=sigmas[-2], high=sigmas[0], rho=7.0).tolist()
    return with_restarts([*levels, 0.0], [Interval(low=0.1, high=2.0, levels=each + 1, times=times)])


def _nearest(sigmas: Sequence[float], wanted: float) -> int:
    """The place of the level that is nearest to this one."""
    return min(range(len(sigmas)), key=lambda i: math.fabs(sigmas[i] - wanted))
