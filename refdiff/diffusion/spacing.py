"""Which training times a run of n steps visits."""

from __future__ import annotations

import numpy as np


def leading(steps: int, *, count: int, offset: int) -> np.ndarray:
    """Times at equal whole strides from 0, plus an offset, latest first.

    Shapes: -> [steps]
    Traps: steps-offset, spacing
    """
    return (np.arange(steps) * (count // steps))[::-1] + offset


def trailing(steps: int, *, count: int) -> np.ndarray:
    """Times at equal strides down from the last one, rounded (halves to even) before 1 is taken off.

    Upstream's arange has one element too many for 62 of the numbers of steps up to 1000 (61 is the first): a last step
    at time -1. It is left out here.
    Shapes: -> [steps]
    Traps: spacing
    """
    return np.round(np.arange(count, 0, -count / steps)).astype(np.int64)[:steps] - 1


def linspaced(steps: int, *, count: int) -> np.ndarray:
    """Times from the last to the first at equal distances, not rounded.  Shapes: -> [steps]  Traps: spacing"""
    return np.linspace(0, count - 1, steps)[::-1]
