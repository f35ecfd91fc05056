"""Networks, trajectories and pictures (L2, L4, L5) of a folder, by from_pretrained and StableDiffusionPipeline."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from refdiff.golden.capture import capture
from tools.upstream.samplers import whole_steps

Torch = Mapping[str, torch.Tensor]


def opened(folder: Path, precision: torch.dtype) -> diffusers.StableDiffusionPipeline:
    """diffusers' pipeline of a folder."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=precision)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def text_encoder(x: Torch, c: Mapping[str, Any], pipe: Any) -> dict[str, torch.Tensor]:
    """The last layer, normalised, and the row of the end of the text; with the rows of added words, where there are any."""
    model = pipe.text_encoder
    if "added" in x:
        model = copy.deepcopy(model)
        table = torch.cat([model.get_input_embeddings().weight, x["added"]])
        model.set_input_embeddings(torch.nn.Embedding.from_pretrained(table))
    made = model(x["ids"])
    return {"hidden": made.last_hidden_state, "pooled": made.pooler_output}


def unet(x: Torch, c: Mapping[str, Any], pipe: Any) -> dict[str, torch.Tensor]:
    """The U-Net."""
    return {"out": pipe.unet(x["x"], x["t"], x["context"]).sample}


def decode(x: Torch, c: Mapping[str, Any], pipe: Any) -> dict[str, torch.Tensor]:
    """The decoder."""
    return {"out": pipe.vae.decode(x["z"]).sample}


def encode(x: Torch, c: Mapping[str, Any], pipe: Any) -> dict[str, torch.Tensor]:
    """The encoder, nothing drawn."""
    made = pipe.vae.encode(x["x"]).latent_dist
    return {"mean": made.mean, "logvar": made.logvar}


def trajectory(x: Torch, c: Mapping[str, Any], pipe: Any) -> dict[str, Any]:
    """The ids, the context, and the latent after every step."""
    seen, _ = drawn(x, c, pipe)
    latents = [seen[name] for name in sorted(seen) if name.startswith("steps/") and name.endswith("/latents")]
    return {
        "ids": seen["tokens/ids"], "context": seen["text_encoder/context"],
        "latents": np.stack(whole_steps(latents, pipe.scheduler)),
    }  # fmt: skip


def image(x: Torch, c: Mapping[str, Any], pipe: Any) -> dict[str, np.ndarray]:
    """The picture.  Shapes: -> [B,H,W,3] uint8"""
    _, pictures = drawn(x, c, pipe)
    return {"image": np.stack([np.asarray(picture) for picture in pictures])}


def drawn(x: Torch, c: Mapping[str, Any], pipe: Any) -> tuple[dict[str, np.ndarray], list]:
    """A run of the pipeline: its tensors and its pictures.  The scheduler is set afterwards, for its constructor changes some."""
    pipe.scheduler = getattr(diffusers, c["scheduler"]["_class_name"]).from_config(dict(c["scheduler"]))
    height, width = (n * pipe.vae_scale_factor for n in x["latents"].shape[2:])
    with capture(unet=pipe.unet, text_encoder=pipe.text_encoder, scheduler=pipe.scheduler) as trace:
        pictures = pipe(
            c["prompt"], negative_prompt=c["negative_prompt"], num_inference_steps=c["steps"], guidance_scale=c["guidance"],
            latents=x["latents"], height=height, width=width, callback_on_step_end=trace.step_end,
        ).images  # fmt: skip
    return dict(trace.tensors), pictures
