"""DPM-Solver++ for the diffusion, in single steps of two calls: "DPM++ SDE"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.ancestral import down_and_up
from refdiff.samplers.step import Denoise, Step, fresh
from refdiff.samplers.woven import Woven
from refdiff.xp import Array


def dpmpp_sde(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, eta: float, s_noise: float, r: float, noise: Stream | None
) -> Iterator[Step]:
    """Each step goes with noise to a place within it, and from its beginning again with what the network says there.

    Math: with d, u of `down_and_up` from s: y = (d/s) x + (1 - d/s) D + s_noise u noise at m = s^(1-r) s'^r, then
    x' = (d/s) x + (1 - d/s) ((1 - 1/2r) D + (1/2r) denoise(y, m)) + s_noise u noise at s'; x' = D at s' = 0, D = denoise(x, s)
    It draws for the way from s to m and then for that from s to s' (`intervals`), nothing where u is 0.
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Lu et al. 2022 (arXiv 2211.01095), on diffusion SDEs, divided by alpha; k-diffusion's sampling.py, sample_dpmpp_sde
    """
    for i, (sigma, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        denoised = picture = denoise(x, sigma)
        if after > 0.0:
            middle = partway(sigma, after, r)
            trial = _towards(x, denoised, sigma, middle, eta, s_noise, noise)
            picture = denoised + (denoise(trial, middle) - denoised) / (2.0 * r)
        x = _towards(x, picture, sigma, after, eta, s_noise, noise)
        yield Step(i, after, x, denoised)


def dpmpp_sde_along_a_path(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, eta: float, s_noise: float, r: float, noise: Stream | None
) -> Iterator[Step]:
    """`dpmpp_sde` whose two noises of a step are of one Brownian path, as k-diffusion's and diffusers' trees make them.

    Noises drawn apart would make it a method of weak order 1, where this one has 2.
    """
    woven = None if noise is None else Woven(noise, intervals(sigmas, r=r))
    return dpmpp_sde(denoise, x, sigmas, eta=eta, s_noise=s_noise, r=r, noise=woven)


def partway(sigma: float, after: float, r: float) -> float:
    """The sigma a share r of the way, counted in the logarithm."""
    return sigma * (after / sigma) ** r


def intervals(sigmas: Sequence[float], *, r: float) -> list[tuple[float, float]]:
    """From which sigma to which each draw of `dpmpp_sde` leads, for Brownian paths.  Shapes: [n+1] -> [2n], fewer to 0"""
    steps = [(a, b) for a, b in zip(sigmas[:-1], sigmas[1:], strict=True) if b > 0.0]
    return [way for a, b in steps for way in ((a, partway(a, b, r)), (a, b))]


def _towards(x: Array, picture: Array, sigma: float, after: float, eta: float, s_noise: float, noise: Stream | None) -> Array:
    """An ancestral step to the sigma `after` if the picture is this one."""
    down, up = down_and_up(sigma, after, eta=eta)
    x = (down / sigma) * x + (1.0 - down / sigma) * picture
    return x + s_noise * up * fresh(noise, x) if up > 0.0 else x
