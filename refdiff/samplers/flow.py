"""Flow matching: the path from noise to a picture is straight, and the network predicts the velocity on it.

Here x = (1 - sigma) x0 + sigma noise, and the velocity is noise - x0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.churn import lifted, raised
from refdiff.samplers.step import Denoise, Predict, Step, fresh
from refdiff.xp import Array


def flow_euler(predict: Predict, x: Array, sigmas: Sequence[float]) -> Iterator[Step]:
    """Each step follows the velocity at its beginning.

    Math: x' = x + (s' - s) v
    Shapes: x and the results [B,...], sigmas [n+1], falling, or rising for a run towards noise
    Source: Lipman et al. 2022 (arXiv 2210.02747), equation 1; Esser et al. 2024 (arXiv 2403.03206), section 2
    """
    for i, sigma in enumerate(sigmas[:-1]):
        denoised, velocity = predict(x, sigma)
        x = x + (sigmas[i + 1] - sigma) * velocity
        yield Step(i, sigmas[i + 1], x, denoised)


def flow_again(denoise: Denoise, x: Array, sigmas: Sequence[float], *, noise: Stream | None) -> Iterator[Step]:
    """Each step goes to the picture that the network sees, and back to the next sigma by fresh noise.

    Math: x' = (1 - s') denoise(x, s) + s' noise
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Song et al. 2023 (arXiv 2303.01469), algorithm 1, on a straight path
    """
    for i, sigma in enumerate(sigmas[:-1]):
        denoised, after = denoise(x, sigma), sigmas[i + 1]
        x = (1.0 - after) * denoised + after * fresh(noise, x) if after > 0.0 else denoised
        yield Step(i, after, x, denoised)


def flow_heun(
    predict: Predict,
    x: Array,
    sigmas: Sequence[float],
    *,
    s_churn: float,
    s_tmin: float,
    s_tmax: float,
    s_noise: float,
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step follows the mean of the velocities at both ends, the last the first of them alone.

    Math: x^ = x + s_noise sqrt(r^2 - s^2) noise, r = (1 + g) s, g = min(s_churn / (2n - 1), sqrt(2) - 1);
    w = v s / r; x' = x^ + (s' - r) (w + v') / 2, v' the velocity at x^ + (s' - r) w
    The network is asked at x, not at x^, and noise is drawn for the second call too and not used, as upstream does.
    Shapes: x and the results [B,...], sigmas [n+1]
    Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 2, on a straight path
    """
    ups = raised(sigmas, steps=2 * len(sigmas) - 3, s_churn=s_churn, s_tmin=s_tmin, s_tmax=s_tmax)
    for i, (sigma, up, after) in enumerate(zip(sigmas[:-1], ups, sigmas[1:], strict=True)):
        denoised, velocity = predict(x, sigma)
        if up > sigma:
            x = lifted(x, sigma, up, s_noise, noise)
        slope = velocity * (sigma / up)
        if i + 2 < len(sigmas):
            second = predict(x + (after - up) * slope, after)[1]
            slope = 0.5 * (slope + second)
            if up > sigma:
                fresh(noise, x)
        x = x + (after - up) * slope
        yield Step(i, after, x, denoised)
