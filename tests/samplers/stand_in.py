"""A network's stand-in and noise that was drawn before, for a scheduler of ours and for one of upstream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

SHAPE = (2, 3, 4, 5)


class Given:
    """Noise that was drawn before, for both sides: the k-th draw is that of seed (seed, k)."""

    def __init__(self, seed: int):
        self.seed, self.drawn = seed, 0

    def normal(self, shape: Iterable[int]) -> np.ndarray:
        """The next draw."""
        self.drawn += 1
        return np.random.default_rng((self.seed, self.drawn)).standard_normal(tuple(shape)).astype(np.float32)


def first_latent(seed: int) -> np.ndarray:
    """What a run begins with.  Shapes: -> [2,3,4,5] float32"""
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


def network(xp: Any, x: Any, t: float) -> Any:
    """A network's stand-in: not linear, and other at every time."""
    return 0.9 * xp.tanh(1.1 * x + 0.2) + 0.3 * xp.cos(2.0 * x + float(t) * 0.01)


def score(xp: Any, x: Any, sigma: float) -> Any:
    """A score's stand-in: x less a picture, divided by a little more than the variance."""
    width = (1.0 + float(sigma) ** 2) ** 0.5
    return (network(xp, x / width, sigma) - x / width) / width


def network_of(config: Mapping[str, Any]) -> Any:
    """The stand-in; where the variance is learned, with it in further channels, above 0 and below 1; where the network predicts
    a score, as large as one is.
    """
    if config["_class_name"] == "ScoreSdeVeScheduler":
        return score
    if not str(config.get("variance_type")).startswith("learned"):
        return network

    def twofold(xp: Any, x: Any, t: float) -> Any:
        return xp.concatenate([network(xp, x, t), 0.5 + 0.4 * xp.tanh(x + 0.1)], 1)

    return twofold
