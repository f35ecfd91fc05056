"""Blocks (L1) by the modules of diffusers and transformers, with the weights of the case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D, CrossAttnUpBlock2D
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from refdiff.golden.cases import TEXT_CONFIG

Torch = Mapping[str, torch.Tensor]
Made = dict[str, torch.Tensor]
HEADS, GROUPS, TIME, CONTEXT = 4, 4, 32, 12  # of the cases
UNET = {
    "num_layers": 1,
    "resnet_eps": 1e-5,
    "resnet_groups": GROUPS,
    "num_attention_heads": HEADS,
    "cross_attention_dim": CONTEXT,
}


def block(x: Torch, c: Mapping[str, Any]) -> Made:
    """The block of that name."""
    return BLOCKS[c["block"]](x, c)


def loaded(module: torch.nn.Module, x: Torch) -> torch.nn.Module:
    """The module with the weights of the case: none missing, none left over."""
    weights = {name.removeprefix("weights/"): value for name, value in x.items() if name.startswith("weights/")}
    module = module.to(next(iter(weights.values())).dtype).eval().requires_grad_(False)
    module.load_state_dict(weights, strict=True)
    return module


def resnet(x: Torch, c: Mapping[str, Any]) -> Made:
    """A residual block, of the U-Net where there is a time, else of the autoencoder."""
    outputs, inputs = x["weights/conv1.weight"].shape[:2]
    timed = "temb" in x
    module = ResnetBlock2D(
        in_channels=inputs, out_channels=outputs, temb_channels=TIME if timed else None, groups=GROUPS,
        eps=1e-5 if timed else 1e-6, non_linearity="silu",
    )  # fmt: skip
    return {"out": loaded(module, x)(x["x"], x.get("temb"))}


def transformer(x: Torch, c: Mapping[str, Any]) -> Made:
    """The spatial transformer."""
    channels = x["x"].shape[1]
    module = Transformer2DModel(HEADS, channels // HEADS, channels, norm_num_groups=GROUPS, cross_attention_dim=CONTEXT)
    return {"out": loaded(module, x)(x["x"], encoder_hidden_states=x["context"]).sample}


def down(x: Torch, c: Mapping[str, Any]) -> Made:
    """A block of the way down, and what it keeps for the way up."""
    channels = x["x"].shape[1]
    module = loaded(CrossAttnDownBlock2D(channels, channels, TIME, **UNET), x)
    out, skips = module(x["x"], x["temb"], encoder_hidden_states=x["context"])
    return {"out": out, **{f"skip{i}": skip for i, skip in enumerate(skips)}}


def up(x: Torch, c: Mapping[str, Any]) -> Made:
    """A block of the way up."""
    channels = x["x"].shape[1]
    module = loaded(CrossAttnUpBlock2D(channels, channels, channels, TIME, **UNET), x)
    size = tuple(c["size"])
    return {"out": module(x["x"], (x["skip"],), x["temb"], encoder_hidden_states=x["context"], upsample_size=size)}


def time(x: Torch, c: Mapping[str, Any]) -> Made:
    """The embedding of the time; the sinusoids are computed in float32 alone."""
    outputs, inputs = x["weights/linear_1.weight"].shape
    sinusoids = Timesteps(inputs, flip_sin_to_cos=True, downscale_freq_shift=0)(x["t"])
    return {"out": loaded(TimestepEmbedding(inputs, outputs), x)(sinusoids.to(x["t"].dtype))}


def text_layer(x: Torch, c: Mapping[str, Any]) -> Made:
    """A layer of the text encoder, each token seeing those before it."""
    tokens = x["x"].shape[1]
    told = {**TEXT_CONFIG, "hidden_act": c.get("hidden_act", TEXT_CONFIG["hidden_act"])}
    config = CLIPTextConfig(**told, bos_token_id=1, pad_token_id=1, attn_implementation="sdpa")
    mask = torch.full((tokens, tokens), -torch.inf, dtype=x["x"].dtype).triu(1)
    return {"out": loaded(CLIPEncoderLayer(config), x)(x["x"], mask[None, None])}


def vae_attention(x: Torch, c: Mapping[str, Any]) -> Made:
    """The attention in the middle of the autoencoder, as its middle block makes it."""
    channels = x["x"].shape[1]
    module = Attention(
        channels, heads=1, dim_head=channels, eps=1e-6, norm_num_groups=GROUPS, residual_connection=True, bias=True,
        upcast_softmax=True, _from_deprecated_attn_block=True,
    )  # fmt: skip
    return {"out": loaded(module, x)(x["x"])}


BLOCKS: Mapping[str, Callable[[Torch, Mapping[str, Any]], Made]] = {
    "resnet": resnet, "vae-resnet": resnet, "transformer": transformer, "down": down, "up": up, "time": time, "text": text_layer,
    "vae-attention": vae_attention,
}  # fmt: skip
