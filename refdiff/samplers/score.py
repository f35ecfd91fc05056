"""The reverse diffusion of a variance-exploding SDE, each of its steps after some of Langevin's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.diffusion.noise import Stream
from refdiff.samplers.step import Predict, Step, fresh
from refdiff.xp import Array, array_module


def predictor_corrector(
    predict: Predict,
    x: Array,
    sigmas: Sequence[float],
    *,
    widths: Sequence[float],
    snr: float,
    correct_steps: int,
    noise: Stream | None,
) -> Iterator[Step]:
    """Each step first corrects x at its sigma, then goes down; the last does without the noise on its way.

    Math: with the score g = predict(x, s)[1]: `correct_steps` times `langevin`, then x' = x + w^2 g + w noise
    Shapes: x and the results [B,...], sigmas [n+1], widths [n]: w
    Source: Song et al. 2021 (arXiv 2011.13456), algorithms 2 and 4
    """
    last = len(sigmas) - 2
    for i, (sigma, width) in enumerate(zip(sigmas[:-1], widths, strict=True)):
        for _ in range(correct_steps):
            x = langevin(x, predict(x, sigma)[1], fresh(noise, x), snr=snr)
        denoised, score = predict(x, sigma)
        x = x + width**2 * score
        if i < last:
            x = x + width * fresh(noise, x)
        yield Step(i, sigmas[i + 1], x, denoised)


def langevin(x: Array, score: Array, noise: Array, *, snr: float) -> Array:
    """A step along the score and fresh noise z, as long as their lengths say, on average over the batch.

    Math: x + e g + sqrt(2 e) z, e = 2 (snr |z| / |g|)^2
    Shapes: [B,...], [B,...], [B,...] -> [B,...]
    """
    xp = array_module(x)
    length, of_noise = (xp.sqrt((v.reshape(len(v), -1) ** 2).sum(axis=1)).mean() for v in (score, noise))
    share = snr * of_noise / length
    return x + 2.0 * share**2 * score + 2.0 * share * noise
