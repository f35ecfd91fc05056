"""Stages beside the story of text to image: from a picture back to latents, a sampler run twice, pieces of other models.

A trace has those that it was asked for by name (`extras` of `record`).

| stage | takes | gives |
|---|---|---|
| encode | pixels/image | encode/picture [B,3,H,W], encode/(every layer of the encoder), encode/mean, encode/logvar [B,C,h,w] |
| posterior | encode/mean, encode/logvar | posterior/noise, posterior/latents [B,C,h,w] |
| start | posterior/latents | start/noise, start/latents: those that image to image begins with, half way [B,C,h,w] |
| again | | again/first, again/second [B,C,h,w]: what the sampler makes of one noise, twice, with a network of one line |
| pieces/... | | as golden/pieces.py says |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from refdiff.errors import BadRequest
from refdiff.golden import pieces, stages
from refdiff.golden.stages import Given, Made, Setting, Stage
from refdiff.models import vae
from refdiff.xp import Array, to_host

NAMES = ("encode", "again", "pieces")


def stages_of_extras(names: Sequence[str]) -> list[Stage]:
    """The stages of these groups.  Raises: BadRequest for a group that there is not"""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise BadRequest(f'unknown extra "{unknown[0]}": choose of {", ".join(NAMES)}')
    groups = {
        "encode": [
            Stage("encode", ("pixels/image",), encoder),
            Stage("posterior", ("encode/mean", "encode/logvar"), posterior),
            Stage("start", ("posterior/latents",), start),
        ],
        "again": [Stage("again", (), again)],
        "pieces": [Stage(f"pieces/{name}", (), piece) for name, piece in pieces.PIECES.items()],
    }
    return [stage for name in names for stage in groups[name]]


def encoder(setting: Setting, given: Given) -> Made:
    """The picture back in the autoencoder."""
    part = setting.pipe.vae
    x = picture(given("pixels/image"))
    yield "encode/picture", x
    mean, logvar = vae.encode(part.params, part.config, setting.array(x))
    yield "encode/mean", to_host(mean)
    yield "encode/logvar", to_host(logvar)


def picture(levels: np.ndarray) -> np.ndarray:
    """Levels as the encoder wants them.  Shapes: [B,H,W,3], 0 to 255 -> [B,3,H,W] in [-1,1]  Traps: px-range"""
    return levels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255.0) * np.float32(2.0) - np.float32(1.0)


def posterior(setting: Setting, given: Given) -> Made:
    """A draw from what the encoder says, by the first numbers of each picture's stream."""
    mean, logvar = setting.array(given("encode/mean")), setting.array(given("encode/logvar"))
    drawn = stages.Streams(setting.request.rng, setting.request.seeds).normal(mean.shape)
    yield "posterior/noise", drawn
    sample = vae.posterior_sample(mean, logvar, setting.array(drawn))
    yield "posterior/latents", to_host(sample * setting.pipe.vae.config.scaling_factor)


def start(setting: Setting, given: Given) -> Made:
    """The latents with the noise of the step half way, by the second numbers of each picture's stream."""
    x0, steps = setting.array(given("posterior/latents")), setting.request.steps
    streams = stages.Streams(setting.request.rng, setting.request.seeds)
    streams.normal(x0.shape)  # the posterior's
    drawn = streams.normal(x0.shape)
    yield "start/noise", drawn
    yield "start/latents", to_host(setting.sampler.add_noise(x0, setting.array(drawn), steps, steps // 2))


def again(setting: Setting, given: Given) -> Made:
    """One sampler twice on the same noise; both must be equal."""
    sampler, request = setting.sampler, setting.request

    def network(x: Array, t: float) -> Array:
        return x * (0.2 + 0.5 * float(t) / 1000.0)

    for name in ("first", "second"):
        streams = stages.Streams(request.rng, request.seeds)
        x = setting.array(streams.normal(request.latent_shape))
        yield f"again/{name}", to_host(sampler.sample(network, x, request.steps, noise=streams))
