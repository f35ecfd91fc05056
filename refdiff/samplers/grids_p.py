"""The grids of DDPM, inversion, PNDM's Runge-Kutta start, LCM and TCD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from refdiff.diffusion import schedule
from refdiff.samplers.grids import NO_SIGNAL, Grid, spaced

LEAST_VARIANCE = 1e-20  # upstream's, so that its logarithm exists


def neighbour_grid(config: Mapping[str, Any], alphas: np.ndarray, steps: int) -> Grid:
    """DDPM's: every step ends at the next time, the last at the whole picture, even where its own time is not 0.

    `small` and `large` are the variances that Ho et al. name, the posterior's and beta's, for strides of any length; `random`
    is whether noise is drawn: not at time 0.
    Raises: BadRequest as `spaced`
    """
    times = np.round(spaced(config, steps)).astype(np.int64)
    signal = np.maximum(alphas.astype(np.float64), NO_SIGNAL)
    here, after = signal[times], np.append(signal[times[1:]], 1.0)
    large = 1.0 - here / after
    small = np.maximum((1.0 - after) / (1.0 - here) * large, LEAST_VARIANCE)
    sigmas = schedule.sigmas_of(np.append(here, 1.0))
    policy = {"small": small, "large": large, "random": times > 0}
    return Grid(times, sigmas, math.sqrt(1.0 + float(sigmas[0]) ** 2), policy)
