"""The grids of the variance-exploding SDE and of RePaint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.errors import BadRequest
from refdiff.samplers.family import betas_of
from refdiff.samplers.grids import NO_SIGNAL, Grid


def even_levels(config: Mapping[str, Any], count: int, precision: str) -> np.ndarray:
    """Equal distances in the logarithm of sigma, smallest first.  Shapes: -> [count]"""
    linspace = schedule.LINSPACES[precision]
    return np.exp(linspace(math.log(config["sigma_min"]), math.log(config["sigma_max"]), count))


def exploding_grid(config: Mapping[str, Any], table: np.ndarray, steps: int) -> Grid:
    """ScoreSdeVe's: the network is told sigma, not the time, which goes from 1 to sampling_eps.

    A step goes down from one to the next of n sigmas that are even in the logarithm, the last to 0: `widths` are the roots of the
    differences of their squares. The network is asked at other sigmas, those of the times, which begin at sigma_max, the last
    however a little above sigma_min (a quirk of upstream).
    """
    kind = table.dtype.type
    times = schedule.LINSPACES[str(table.dtype) if kind is np.float64 else "float32-torch"](1.0, config["sampling_eps"], steps)
    places = (times * kind(steps - 1)).astype(np.int64)
    levels = even_levels(config, steps, "float64" if kind is np.float64 else "float32-torch")
    after = np.where(places == 0, kind(0), levels[places - 1])
    widths = np.sqrt(levels[places] ** 2 - after**2)
    low, high = config["sigma_min"], config["sigma_max"]
    sigmas = kind(low) * kind(high / low) ** times
    return Grid(sigmas, np.append(sigmas, kind(0)), float(high), {"widths": widths}, calls=times)


def repaint_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """RePaint's: down from time to time, and `jump_n_sample - 1` times back up by `jump_length` from each place there is for it.

    Each move, up or down, is a step here. `betas` are those of a way up, 0 on a way down; upstream takes them from where the last
    way down began, which is one stride less one too late (a quirk).
    Raises: BadRequest for jumps that are no whole numbers from 1 on
    """
    for name in ("jump_length", "jump_n_sample"):
        if type(config[name]) is not int or config[name] < 1:
            raise BadRequest(f"{name} {config[name]} is not a whole number from 1 on")
    stride = len(alphas) // steps
    places = np.array(jumping(steps, config["jump_length"], config["jump_n_sample"]))
    levels = np.append(places[0], places - 1)
    signal = np.maximum(alphas.astype(np.float64), NO_SIGNAL)
    sigmas = schedule.sigmas_of(np.where(levels >= 0, signal[np.maximum(levels, 0) * stride], 1.0))
    begins = np.append(0, places[:-1]) * stride
    betas = betas_of(config, "float64" if alphas.dtype == np.float64 else "float32-torch")  # a quotient of alphas has few digits
    up = betas[np.minimum(begins[:, None] + np.arange(stride), len(alphas) - 1)]
    policy = {"betas": np.where(np.diff(sigmas)[:, None] > 0.0, up, 0.0)}
    initial = math.sqrt(1.0 + float(sigmas[0]) ** 2)
    return Grid(np.maximum(levels[:-1], 0) * stride, sigmas, initial, policy, calls=places * stride)


def jumping(steps: int, length: int, samples: int) -> list[int]:
    """The places of a run that jumps, from steps - 1 down to 0: after each place that is a multiple of `length` it goes up again
    that far, `samples` - 1 times.

    Source: Lugmayr et al. 2022 (arXiv 2201.09865), appendix on the schedule of jumps
    """
    left = dict.fromkeys(range(0, steps - length, length), samples - 1)
    found, place = [], steps
    while place >= 1:
        place -= 1
        found.append(place)
        if left.get(place, 0) > 0:
            left[place] -= 1
            found += range(place + 1, place + length + 1)
            place += length
    return found
