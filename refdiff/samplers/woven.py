"""Noise for ways that overlap, from noise for ways that do not: so that all of it is of one Brownian path."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from refdiff.diffusion.noise import Stream


class Woven:
    """A stream whose draws are for ways down, each from where the last one began, to further below, or from where it ended.

    Math: over [b,a], of which [m,a] was drawn before: (sqrt(a - m) z + sqrt(m - b) z') / sqrt(a - b), z' being fresh
    """

    def __init__(self, noise: Stream, ways: Iterable[tuple[float, float]]):
        self._noise, self._ways = noise, iter(ways)
        self._begin, self._end, self._last = 0.0, 0.0, np.zeros(())

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next way's noise.  Shapes: -> shape"""
        begin, end = next(self._ways)
        drawn = self._noise.normal(shape)
        if begin == self._begin:
            old, new = (math.sqrt(part / (begin - end)) for part in (begin - self._end, self._end - end))
            drawn = old * self._last + new * drawn
        self._begin, self._end, self._last = begin, end, drawn
        return drawn
