"""What stands beside the networks, by torch, transformers and diffusers: prompts, noise, the way from a picture to latents."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders import vae
from PIL import Image

from tools.upstream.samplers import scaled, scheduler_of

Torch = Mapping[str, torch.Tensor]
Constants = Mapping[str, Any]


def tokens(x: Torch, c: Constants, pipe: Any) -> dict[str, Any]:
    """Ids from the start token to the padding.  Shapes: -> [n,T]"""
    tokenizer = copy.deepcopy(pipe.tokenizer)
    tokenizer.pad_token = c["pad"]
    made = tokenizer(c["prompts"], padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    return {"ids": np.array(made.input_ids, np.int64)}


def noise(x: Torch, c: Constants) -> dict[str, torch.Tensor]:
    """Draw after draw of a list of generators, as diffusers' pipelines take one a picture."""
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in c["seeds"]]
    found = {}
    for k, shape in enumerate(c["shapes"]):
        found[f"draw{k}"] = torch.cat([torch.randn((1, *shape[1:]), generator=one) for one in generators])
    return found


def picture(x: Torch, c: Constants) -> dict[str, torch.Tensor]:
    """Levels as the encoder wants them.  Shapes: [B,H,W,3] -> [B,3,H,W]"""
    return {"out": VaeImageProcessor().preprocess([Image.fromarray(one) for one in x["levels"].numpy()])}


def posterior(x: Torch, c: Constants) -> dict[str, torch.Tensor]:
    """A draw by diffusers' distribution with the given noise."""
    said = vae.DiagonalGaussianDistribution(torch.cat([x["mean"], x["logvar"]], dim=1))
    with mock.patch.object(vae, "randn_tensor", lambda shape, **_: x["noise"].reshape(shape)):
        return {"latents": said.sample() * c["scaling_factor"]}


def start(x: Torch, c: Constants) -> dict[str, torch.Tensor]:
    """Latents with the noise of that step, by diffusers' scheduler."""
    scheduler = scheduler_of(c["scheduler"], c["steps"])
    times = scheduler.timesteps[c["start"] : c["start"] + 1].repeat(len(x["x"]))
    return {"latents": scheduler.add_noise(x["x"], x["noise"], times)}


def again(x: Torch, c: Constants) -> dict[str, torch.Tensor]:
    """The last latents of two runs of one scheduler, its times set anew before each."""
    scheduler, found = scheduler_of(c["scheduler"], c["steps"]), {}
    for name in ("first", "second"):
        scheduler.set_timesteps(c["steps"])
        latent = x["x"] * scheduler.init_noise_sigma
        for t, prediction in zip(scheduler.timesteps, x["predictions"], strict=True):
            scaled(scheduler, latent, t)
            latent = scheduler.step(prediction, t, latent).prev_sample
        found[name] = latent
    return found
