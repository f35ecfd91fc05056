"""How far an ancestral step goes down, and how much noise leads back up."""

from __future__ import annotations

import math


def down_and_up(sigma: float, after: float, *, eta: float) -> tuple[float, float]:
    """The sigma to go down to from `sigma`, and the noise to add then, so that the step ends at `after`.

    Math: u = min(s', eta sqrt(s'^2 (s^2 - s'^2) / s^2)), d^2 = s'^2 - u^2; eta 0 is the flow, 1 the diffusion
    Source: k-diffusion's sampling.py, get_ancestral_step
    """
    up = min(after, eta * after * math.sqrt(max(sigma**2 - after**2, 0.0)) / sigma)
    return math.sqrt(after**2 - up**2), up


def down_within(sigma: float, after: float, low: float, *, eta: float) -> tuple[float, float]:
    """The same, but never down below `low`.

    Source: k-diffusion's sampling.py, DPMSolver
    """
    down = max(low, down_and_up(sigma, after, eta=eta)[0]) if eta > 0.0 else after
    return down, math.sqrt(max(after**2 - down**2, 0.0))
