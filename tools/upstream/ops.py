"""Ops (L0), guidance and pixels, by torch and by the functions that diffusers and transformers have of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.embeddings import get_timestep_embedding
from transformers.activations import QuickGELUActivation

Torch = Mapping[str, torch.Tensor]
Constants = Mapping[str, Any]


def op(x: Torch, c: Constants) -> dict[str, torch.Tensor]:
    """The op of that name."""
    return {"out": OPS[c["op"]](x, c)}


def conv2d(x: Torch, c: Constants) -> torch.Tensor:
    """torch pads the width first; the cases name the height first."""
    top, bottom, left, right = c["padding"]
    return F.conv2d(F.pad(x["x"], (left, right, top, bottom)), x["weight"], x["bias"], stride=c["stride"])


def attention(x: Torch, c: Constants) -> torch.Tensor:
    """Shapes: q [B,T,D], k, v [B,S,D] -> [B,T,D]"""
    q, k, v = (x[name].unflatten(-1, (c["heads"], -1)).transpose(1, 2) for name in "qkv")
    out = F.scaled_dot_product_attention(q, k, v, is_causal=c["causal"], scale=c["scale"])
    return out.transpose(1, 2).flatten(2)


def geglu(x: Torch, c: Constants) -> torch.Tensor:
    """As diffusers' GEGLU after its linear layer."""
    value, gate = x["x"].chunk(2, dim=-1)
    return value * F.gelu(gate)


def timestep_embedding(x: Torch, c: Constants) -> torch.Tensor:
    """diffusers' function, which computes in float32 alone."""
    return get_timestep_embedding(
        x["t"], c["width"], flip_sin_to_cos=c["flip_sin_to_cos"], downscale_freq_shift=c["freq_shift"],
        max_period=int(c["max_period"]),
    )  # fmt: skip


OPS: Mapping[str, Callable[[Torch, Constants], torch.Tensor]] = {
    "linear": lambda x, c: F.linear(x["x"], x["weight"], x["bias"]),
    "conv2d": conv2d,
    "group_norm": lambda x, c: F.group_norm(x["x"], c["groups"], x["weight"], x["bias"], eps=c["eps"]),
    "layer_norm": lambda x, c: F.layer_norm(x["x"], x["x"].shape[-1:], x["weight"], x["bias"], eps=c["eps"]),
    "silu": lambda x, c: F.silu(x["x"]),
    "gelu": lambda x, c: F.gelu(x["x"]),
    "quick_gelu": lambda x, c: QuickGELUActivation()(x["x"]),
    "geglu": geglu,
    "softmax": lambda x, c: F.softmax(x["x"], dim=-1),
    "attention": attention,
    "upsample_nearest": lambda x, c: F.interpolate(x["x"], size=(c["height"], c["width"]), mode="nearest"),
    "timestep_embedding": timestep_embedding,
}


def guidance(x: Torch, c: Constants) -> dict[str, torch.Tensor]:
    """Classifier-free guidance by diffusers' guider, at the first of one step."""
    guider = ClassifierFreeGuidance(guidance_scale=c["scale"])
    guider.set_state(step=0, num_inference_steps=1, timestep=torch.tensor(0))
    return {"out": guider.forward(x["conditional"], x["unconditional"]).pred}


def pixels(x: Torch, c: Constants) -> dict[str, np.ndarray]:
    """Whole numbers from -1 to 1.  Shapes: x [B,3,H,W] -> [B,H,W,3] uint8"""
    return {"out": np.stack([np.asarray(picture) for picture in VaeImageProcessor().postprocess(x["x"], output_type="pil")])}
