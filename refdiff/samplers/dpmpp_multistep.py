"""DPM-Solver++ in several steps as k-diffusion has it: "DPM++ 2M", "2M SDE" and "3M SDE".

They are `dpm_multistep` with orders and weights of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.dpm_multistep import (
    Scheme,
    data,
    data_flow,
    dpm_multistep,
    half_curvature,
    slope_by_half,
    slope_by_interpolation,
)
from refdiff.samplers.step import Denoise, Step
from refdiff.xp import Array


def dpmpp_2m(denoise: Denoise, x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
    """Each step but the first, and one to sigma 0, follows the last two pictures on a line.

    Math: x' = (s'/s) x + (1 - s'/s) (D + (D - D_) / 2r), r = h_ / h, h = log(s / s'), D_ and h_ those of the step before
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 2, divided by alpha
    """
    scheme = data_flow(slope_by_half, half_curvature)
    return dpm_multistep(denoise, x, sigmas, orders=orders_up_to(2, sigmas), scheme=scheme, noise=None)


def dpmpp_2m_sde(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    slope: Callable[[float], float],
    eta: float,
    s_noise: float,
    noise: Stream | None,
) -> Iterator[Step]:
    """The same for a diffusion with the share eta of fresh noise.

    Math: x' = (s'/s)^(1 + eta) x + (1 - e^-z) D + slope(-z) (D - D_) / r + s_noise s' sqrt(1 - (s'/s)^(2 eta)) noise, with
    z = (1 + eta) h and `slope_by_half` (k-diffusion's "midpoint") or `slope_by_interpolation` ("heun")
    Nothing is drawn with eta 0, nor on a step to sigma 0.
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Lu et al. 2022 (arXiv 2211.01095), on diffusion SDEs; k-diffusion's sampling.py, sample_dpmpp_2m_sde
    """
    scheme = partly_diffusion(slope, eta=eta, s_noise=s_noise)
    return dpm_multistep(denoise, x, sigmas, orders=orders_up_to(2, sigmas), scheme=scheme, noise=noise)


def dpmpp_3m_sde(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, eta: float, s_noise: float, noise: Stream | None
) -> Iterator[Step]:
    """The same with the last three pictures on a parabola, half of whose curvature is missing, as in k-diffusion.

    Math: x' = ... + phi_2 d_1 - phi_3 d_2, phi_2 = 1 - (1 - e^-z) / z, phi_3 = phi_2 / z - 1/2, with d of `differences`
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Lu et al. 2022 (arXiv 2211.01095), on diffusion SDEs; k-diffusion's sampling.py, sample_dpmpp_3m_sde
    """
    scheme = partly_diffusion(slope_by_interpolation, eta=eta, s_noise=s_noise)
    return dpm_multistep(denoise, x, sigmas, orders=orders_up_to(3, sigmas), scheme=scheme, noise=noise)


def orders_up_to(most: int, sigmas: Sequence[float]) -> list[int]:
    """1, 2, ... up to the most, and 1 for a step to sigma 0.  Shapes: [n+1] -> [n]"""
    return [1 if after == 0.0 else min(i + 1, most) for i, after in enumerate(sigmas[1:])]


def partly_diffusion(slope: Callable[[float], float], *, eta: float, s_noise: float) -> Scheme:
    """x' = (s'/s)^(1 + eta) x + (1 - (s'/s)^(1 + eta)) D + ... + s_noise s' sqrt(1 - (s'/s)^(2 eta)) noise"""
    return Scheme(
        data, -(1.0 + eta), lambda after: 1.0, slope, half_curvature, lambda s, after: (after / s) ** (1.0 + eta),
        lambda s, after: s_noise * after * math.sqrt(1.0 - (after / s) ** (2.0 * eta)),
    )  # fmt: skip
