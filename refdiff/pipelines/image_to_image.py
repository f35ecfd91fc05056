"""From a picture and a prompt to another picture: its latent, some noise, and the rest of the loop.

Source: Meng et al. 2021 (arXiv 2108.01073); diffusers pipeline_stable_diffusion_img2img.py for the conventions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refdiff.models.vae import encode, posterior_sample
from refdiff.pipelines.request import Request, Streams
from refdiff.pipelines.text_to_image import Pipeline, denoising, sampler_of
from refdiff.samplers import Step
from refdiff.xp import Array, to_device


def image_to_image(pipe: Pipeline, request: Request) -> Iterator[Step]:
    """The story: the picture becomes a latent, gets the noise of a step part way, and goes the rest of the way.

    Each picture's stream gives the normals of its posterior first, then those of its noise, as upstream's.
    Shapes: latents [B,C,h,w] with h = height / f, w = width / f
    Traps: img2img-t, vae-scale
    """
    sampler, streams = sampler_of(pipe, request), Streams(request.rng, request.seeds)
    start = sampler.start_of(request.strength, request.steps, convention=request.strength_as)
    x0 = latents_of(pipe, request, streams)
    noise = on_device(pipe, streams.normal(request.latent_shape))
    x = sampler.add_noise(x0, noise, request.steps, start)
    yield from denoising(pipe, request, sampler, x, streams, start=start)


def latents_of(pipe: Pipeline, request: Request, streams: Streams) -> Array:
    """The pictures' latents, a draw from the posterior of each.  Shapes: [B,3,H,W] -> [B,C,h,w]"""
    assert request.picture is not None  # the caller has looked
    mean, logvar = encode(pipe.vae.params, pipe.vae.config, on_device(pipe, request.picture))
    drawn = posterior_sample(mean, logvar, on_device(pipe, streams.normal(request.latent_shape)))
    return drawn * pipe.vae.config.scaling_factor


def on_device(pipe: Pipeline, values: np.ndarray) -> Array:
    """The same in the pipeline's precision, where it computes."""
    return to_device(values.astype(pipe.precision), pipe.device)
