"""A Brownian path that can be asked anywhere, in any order: noise that does not depend on how the steps divide the way.

Source: Lévy 1939 (the midpoint of a bridge); Li et al. 2020 (arXiv 2001.01328), section 4, for a tree that is not stored
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from refdiff.diffusion import philox
from refdiff.errors import BadRequest

DEPTH = 40  # halvings, beyond which the path is straight: it lacks a variance of (high - low) 2^-42 there, at most
TAG = np.uint64(0x42726F77)  # the highest word of every counter, so that no number is one of the stream "cuda"
NEAR = 2  # values of the path that are kept, for a step begins where the last one ended


class BrownianPath:
    """One path W on [low, high] with W(low) = 0, decided by its seed and range alone.

    Math: in the middle m of [l,r], W(m) = (W(l) + W(r)) / 2 + sqrt(r - l) / 2 z, with a z of its own for every such node
    """

    def __init__(self, seed: int, shape: tuple[int, ...], *, low: float, high: float):
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise BadRequest(f"a Brownian path needs two ends in order, not {low} and {high}")
        self._seed, self._shape, self._low, self._high = seed, shape, low, high
        self._near: dict[float, np.ndarray] = {}

    def increment(self, a: float, b: float) -> np.ndarray:
        """W(b) - W(a), normal of variance |b - a|, float64; increments over [a,b] and [b,c] add up to that over [a,c].

        Shapes: -> shape
        Raises: BadRequest for a place outside [low, high]
        """
        return self._at(b) - self._at(a)

    def normal_between(self, a: float, b: float) -> np.ndarray:
        """The increment as a standard normal, float32, as an SDE solver wants it for its step from a to b.

        Math: (W(b) - W(a)) / sqrt(|b - a|)
        Shapes: -> shape
        Raises: BadRequest for a place outside [low, high], or no distance between the two
        """
        if a == b:
            raise BadRequest(f"a step from {a} to {b} has no noise of its own")
        return (self.increment(a, b) / math.sqrt(abs(b - a))).astype(np.float32)

    def _at(self, time: float) -> np.ndarray:
        if not self._low <= time <= self._high:
            raise BadRequest(f"{time} is outside the Brownian path's range, {self._low} to {self._high}")
        if time not in self._near:
            unit = self._of_unit((time - self._low) / (self._high - self._low))
            kept = list(self._near.items())[1 - NEAR :]
            self._near = dict([*kept, (time, unit * math.sqrt(self._high - self._low))])
        return self._near[time]

    def _of_unit(self, place: float) -> np.ndarray:
        """The path on [0,1], by halving the interval around the place."""
        way = descent(place)
        end, *noises = self._noises([0, *(node for node, _, _ in way)])
        left, right, low, width = np.zeros(self._shape), end, 0.0, 1.0
        for (_, low, width), noise in zip(way, noises, strict=True):
            middle = (left + right) / 2 + math.sqrt(width) / 2 * noise
            left, right = (left, middle) if place < low + width / 2 else (middle, right)
        if way:
            low, width = (low if place < low + width / 2 else low + width / 2), width / 2
        return left + (right - left) * ((place - low) / width)

    def _noises(self, nodes: Sequence[int]) -> np.ndarray:
        """The normals of some nodes.  Shapes: n nodes -> [n, shape]"""
        size = int(np.prod(self._shape, dtype=np.int64))
        counters = np.concatenate([philox.counters(node, -(-size // 4)) for node in nodes], axis=1)
        counters[3] = TAG
        normals = philox.box_muller(philox.philox(counters, self._seed)).reshape(4, len(nodes), -1)
        return normals.transpose(1, 0, 2).reshape(len(nodes), -1)[:, :size].astype(np.float64).reshape(-1, *self._shape)


def descent(place: float) -> list[tuple[int, float, float]]:
    """The intervals of [0,1] that hold a place, halved from node 1 on until it is an end of one: (node, low end, width)."""
    way: list[tuple[int, float, float]] = []
    node, low, width = 1, 0.0, 1.0
    while len(way) < DEPTH and low < place < low + width:
        way.append((node, low, width))
        width /= 2
        node, low = (2 * node, low) if place < low + width else (2 * node + 1, low + width)
    return way


class BrownianStream:
    """A stream whose k-th draw is the noise of the k-th of the steps given; every picture has a path of its own.

    With it a solver that draws one noise a step follows the same path in 10 steps as in 20; for one that draws otherwise,
    `over` takes the way of each draw.
    """

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], sigmas: Iterable[float]):
        stops = [float(sigma) for sigma in sigmas]
        self._begin(seeds, shape, list(zip(stops[:-1], stops[1:], strict=True)))

    @classmethod
    def over(cls, seeds: Sequence[int], shape: tuple[int, ...], ways: Iterable[tuple[float, float]]) -> BrownianStream:
        """A stream whose k-th draw is the noise of the k-th way, (from, to); ways may overlap."""
        made = cls.__new__(cls)
        made._begin(seeds, shape, [(float(a), float(b)) for a, b in ways])
        return made

    def _begin(self, seeds: Sequence[int], shape: tuple[int, ...], ways: list[tuple[float, float]]) -> None:
        if not ways:
            raise BadRequest("a Brownian stream needs the sigmas of at least one step: its beginning and its end")
        ends = {"low": min(map(min, ways)), "high": max(map(max, ways))}
        self._paths = [BrownianPath(seed, shape, **ends) for seed in seeds]
        self._shape = (len(seeds), *shape)
        self._steps = iter(ways)

    def normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next step's noise, float32.

        Shapes: [B,...] -> [B,...]
        Raises: BadRequest for another shape than the paths have, or after the last step
        """
        if tuple(shape) != self._shape:
            raise BadRequest(f"noise of the shape {list(shape)} was asked of Brownian paths of the shape {list(self._shape)}")
        step = next(self._steps, None)
        if step is None:
            raise BadRequest("noise was asked for after the last step of the Brownian paths: give the sigmas of all steps")
        return np.stack([path.normal_between(*step) for path in self._paths])
