"""What a solver yields after each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refdiff.diffusion.noise import Stream
from refdiff.xp import Array, like

Denoise = Callable[[Array, float], Array]  # (x, sigma) -> the denoised latent
Predict = Callable[[Array, float], tuple[Array, Any]]  # (x, sigma) -> the denoised latent, and what else the network says


@dataclass(frozen=True)
class Step:
    """Step `index` is done: `x` has noise of deviation `sigma` now; `denoised` is what it took the picture to be."""

    index: int
    sigma: float
    x: Array
    denoised: Array


def restated(x: Array, sigma: float, as_sigma: float) -> Array:
    """The sample of `sigma` as the sample of `as_sigma` that is equal to it in variance-preserving form."""
    return x if sigma == as_sigma else x * ((1.0 + as_sigma**2) / (1.0 + sigma**2)) ** 0.5


def fresh(noise: Stream | None, x: Array) -> Array:
    """Normals of x's shape and precision, where x is."""
    assert noise is not None  # the caller has checked what the solver will ask for
    return like(noise.normal(x.shape).astype(x.dtype), x)
