"""DDIM backwards: from a picture to the noise that leads to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refdiff.samplers.step import Predict, Step, restated
from refdiff.xp import Array


def inversion(predict: Predict, x: Array, sigmas: Sequence[float], *, targets: Sequence[float]) -> Iterator[Step]:
    """Each step goes along the predicted noise to a larger sigma, where the network is asked already.

    Math: x' = D + r e, with the denoised latent D and the noise e that the network sees in x, and the step's end r
    Shapes: x and the results [B,...], sigmas [n+1] rising, targets [n] as in ddim
    Source: Song, Meng, Ermon 2020 (arXiv 2010.02502), section 4.3; Dhariwal, Nichol 2021 (arXiv 2105.05233), appendix F
    """
    for i, (sigma, target) in enumerate(zip(sigmas, targets, strict=False)):
        denoised, noise = predict(x, sigma)
        x = restated(denoised + target * noise, target, sigmas[i + 1])
        yield Step(i, sigmas[i + 1], x, denoised)
