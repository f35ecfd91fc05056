"""The variational autoencoder of Stable Diffusion: pixels to latents and back.

Source: Rombach et al. 2022 (arXiv 2112.10752), section 3.1 and appendix G; diffusers autoencoder_kl.py, AutoencoderKL.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refdiff.core.architecture import Architecture, register
from refdiff.core.params import Declaration, Params, numbered
from refdiff.core.tap import tap, unit
from refdiff.errors import BadRequest
from refdiff.models.config import read_config
from refdiff.models.layers import (
    affine,
    conv1x1,
    conv3x3,
    conv_params,
    linear_params,
    norm_params,
    pixels,
    tokens,
    upsample_conv3x3,
)
from refdiff.ops import add, attention, clip, conv2d, exp, group_norm, group_norm_silu, split
from refdiff.xp import Array

NORM_EPS = 1e-6  # of every GroupNorm in the autoencoder


@dataclass(frozen=True)
class VAEConfig:
    """What config.json of an autoencoder says."""

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_num_groups: int
    scaling_factor: float
    sample_size: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VAEConfig:
        """Read config.json.  Raises: BadRequest for an option that is unknown, not supported or inconsistent."""
        data = {**_UPSTREAM_DEFAULTS, **data}
        _check_block_types(data)
        config = read_config(
            cls,
            data,
            renamed={},
            fixed=_FIXED,
            ignored=frozenset({"down_block_types", "up_block_types", "force_upcast"}),
        )
        for width in config.block_out_channels:
            if width % config.norm_num_groups:
                raise BadRequest(f"VAEConfig: {width} channels cannot be split into norm_num_groups = {config.norm_num_groups}")
        if config.scaling_factor == 0:
            raise BadRequest("VAEConfig: option scaling_factor = 0 would make every latent 0")
        return config

    def to_dict(self) -> dict[str, Any]:
        """The contents of config.json."""
        levels = len(self.block_out_channels)
        types = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
        return {"_class_name": "AutoencoderKL", **types, **dataclasses.asdict(self)}

    @property
    def downscale(self) -> int:
        """Pixels a latent pixel, along each side."""
        return 2 ** (len(self.block_out_channels) - 1)


# Options that old config.json files leave out, with the values that upstream then takes.
_UPSTREAM_DEFAULTS = {"scaling_factor": 0.18215, "sample_size": 512, "norm_num_groups": 32}
_FIXED: dict[str, tuple] = {
    "act_fn": ("silu",), "shift_factor": (None,), "latents_mean": (None,), "latents_std": (None,),
    "use_quant_conv": (True,), "use_post_quant_conv": (True,), "mid_block_add_attention": (True,),
}  # fmt: skip


def encode(params: Params, config: VAEConfig, x: Array) -> tuple[Array, Array]:
    """The posterior of the latents of an image: its mean and the logarithm of its variance, limited to [-30, 20].

    Shapes: [B,3,H,W] in [-1,1] -> [B,L,H/f,W/f] twice; not yet multiplied by scaling_factor
    Traps: vae-pad, vae-quant-conv, vae-sample-mode, vae-scale
    """
    h = encoder(params.encoder, config, x)
    h = conv1x1(params.quant_conv, h)
    mean, logvar = split(h, 2, axis=1)
    return mean, clip(logvar, low=-30.0, high=20.0)


def posterior_sample(mean: Array, logvar: Array, noise: Array) -> Array:
    """A draw from the posterior; the mode is `mean` itself.

    Math: z = mean + e^(logvar / 2) noise
    Shapes: [B,L,h,w] three times -> [B,L,h,w]
    Source: Kingma, Welling 2013 (arXiv 1312.6114), section 2.4
    Traps: vae-sample-mode
    """
    return mean + exp(logvar * 0.5) * noise


def decode(params: Params, config: VAEConfig, z: Array) -> Array:
    """The image of a latent that has been divided by scaling_factor.

    Shapes: [B,L,h,w] -> [B,3,H,W], about [-1,1], not limited
    Traps: vae-scale, vae-quant-conv
    """
    return decoder(params.decoder, config, conv1x1(params.post_quant_conv, z))


def declare(config: VAEConfig) -> Declaration:
    """Every parameter of the autoencoder."""
    latent = config.latent_channels
    return {
        "encoder": encoder_params(config),
        "decoder": decoder_params(config),
        "quant_conv": conv_params(2 * latent, 2 * latent, kernel=1),
        "post_quant_conv": conv_params(latent, latent, kernel=1),
    }


def encoder(p: Params, config: VAEConfig, x: Array) -> Array:
    """Shapes: [B,3,H,W] -> [B,2L,H/f,W/f]"""
    x = conv3x3(p.conv_in, x)
    for block in p.down_blocks:
        for resnet in block.resnets:
            x = resnet_block(resnet, config, x)
        if "downsamplers" in block:
            conv = block.downsamplers[0].conv
            x = conv2d(x, conv.weight, conv.bias, stride=2, padding=(0, 1, 0, 1))  # [B,C,H,W] -> [B,C,H/2,W/2]
            x = tap(block.downsamplers[0].path, tap(conv.path, x))
        x = tap(block.path, x)
    x = mid_block(p.mid_block, config, x)
    x = group_norm_silu(x, p.conv_norm_out.weight, p.conv_norm_out.bias, groups=config.norm_num_groups, eps=NORM_EPS)
    return conv3x3(p.conv_out, x)


def encoder_params(config: VAEConfig) -> Declaration:
    """The parameters of `encoder`."""
    channels, layers = config.block_out_channels, config.layers_per_block
    blocks = []
    for i, out in enumerate(channels):
        ins = [channels[max(i - 1, 0)]] + [out] * (layers - 1)
        blocks.append(block_params(ins, out, "downsamplers" if i < len(channels) - 1 else None))
    return {
        "conv_in": conv_params(config.in_channels, channels[0], kernel=3),
        "down_blocks": numbered(blocks),
        "mid_block": mid_block_params(channels[-1]),
        "conv_norm_out": norm_params(channels[-1]),
        "conv_out": conv_params(channels[-1], 2 * config.latent_channels, kernel=3),
    }


def decoder(p: Params, config: VAEConfig, z: Array) -> Array:
    """Shapes: [B,L,h,w] -> [B,3,H,W]"""
    x = conv3x3(p.conv_in, z)
    x = mid_block(p.mid_block, config, x)
    for block in p.up_blocks:
        for resnet in block.resnets:
            x = resnet_block(resnet, config, x)
        if "upsamplers" in block:
            x = tap(block.upsamplers[0].path, upsample_conv3x3(block.upsamplers[0].conv, x))  # [B,C,H,W] -> [B,C,2H,2W]
        x = tap(block.path, x)
    x = group_norm_silu(x, p.conv_norm_out.weight, p.conv_norm_out.bias, groups=config.norm_num_groups, eps=NORM_EPS)
    return conv3x3(p.conv_out, x)


def decoder_params(config: VAEConfig) -> Declaration:
    """The parameters of `decoder`."""
    channels, layers = config.block_out_channels[::-1], config.layers_per_block + 1
    blocks = []
    for i, out in enumerate(channels):
        ins = [channels[max(i - 1, 0)]] + [out] * (layers - 1)
        blocks.append(block_params(ins, out, "upsamplers" if i < len(channels) - 1 else None))
    return {
        "conv_in": conv_params(config.latent_channels, channels[0], kernel=3),
        "up_blocks": numbered(blocks),
        "mid_block": mid_block_params(channels[0]),
        "conv_norm_out": norm_params(channels[-1]),
        "conv_out": conv_params(channels[-1], config.out_channels, kernel=3),
    }


def block_params(ins: list[int], out: int, resampler: str | None) -> Declaration:
    """A resnet for each entry of `ins`, and the convolution of the change of size if there is one."""
    resnets = {"resnets": numbered([resnet_params(i, out) for i in ins])}
    return resnets if resampler is None else {**resnets, resampler: numbered([{"conv": conv_params(out, out, kernel=3)}])}


@unit
def mid_block(p: Params, config: VAEConfig, x: Array) -> Array:
    """Resnet, attention, resnet at the smallest size.  Shapes: [B,C,h,w] -> [B,C,h,w]"""
    x = resnet_block(p.resnets[0], config, x)
    x = attention_block(p.attentions[0], config, x)
    return resnet_block(p.resnets[1], config, x)


def mid_block_params(width: int) -> Declaration:
    """The parameters of `mid_block`."""
    resnets = numbered([resnet_params(width, width), resnet_params(width, width)])
    return {"attentions": numbered([attention_block_params(width)]), "resnets": resnets}


@unit
def attention_block(p: Params, config: VAEConfig, x: Array) -> Array:
    """Pixels attend to each other with one head as wide as the channels, added to the input.

    Shapes: [B,C,h,w] -> [B,C,h,w]
    Traps: vae-attn-keys, attn-no-scale
    """
    _, channels, height, width = x.shape
    h = group_norm(x, p.group_norm.weight, p.group_norm.bias, groups=config.norm_num_groups, eps=NORM_EPS)
    h = tokens(tap(p.group_norm.path, h))  # [B,C,h,w] -> [B,h*w,C]
    h = attention(affine(p.to_q, h), affine(p.to_k, h), affine(p.to_v, h), heads=1, scale=channels**-0.5, causal=False)
    return add(x, pixels(affine(p.to_out[0], h), height, width))


def attention_block_params(width: int) -> Declaration:
    """The parameters of `attention_block`."""
    projections = {name: linear_params(width, width, bias=True) for name in ("to_q", "to_k", "to_v")}
    return {
        "group_norm": norm_params(width),
        **projections,
        "to_out": numbered([linear_params(width, width, bias=True)]),
    }


@unit
def resnet_block(p: Params, config: VAEConfig, x: Array) -> Array:
    """Two normalised convolutions beside a shortcut.

    Shapes: [B,C,H,W] -> [B,C',H,W]
    Traps: gn-eps (1e-6 here, 1e-5 in the U-Net)
    """
    h = group_norm_silu(x, p.norm1.weight, p.norm1.bias, groups=config.norm_num_groups, eps=NORM_EPS)
    h = conv3x3(p.conv1, h)
    h = group_norm_silu(h, p.norm2.weight, p.norm2.bias, groups=config.norm_num_groups, eps=NORM_EPS)
    h = conv3x3(p.conv2, h)
    if "conv_shortcut" in p:
        x = conv1x1(p.conv_shortcut, x)  # [B,C,H,W] -> [B,C',H,W]
    return add(x, h)


def resnet_params(channels_in: int, channels_out: int) -> Declaration:
    """The parameters of `resnet_block`; the shortcut exists only where the number of channels changes."""
    block = {
        "norm1": norm_params(channels_in),
        "conv1": conv_params(channels_in, channels_out, kernel=3),
        "norm2": norm_params(channels_out),
        "conv2": conv_params(channels_out, channels_out, kernel=3),
    }
    return block if channels_in == channels_out else {**block, "conv_shortcut": conv_params(channels_in, channels_out, kernel=1)}


def _check_block_types(data: Mapping[str, Any]) -> None:
    for name, known in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        for kind in data.get(name, ()):
            if kind != known:
                raise BadRequest(f"VAEConfig: option {name} holds {kind!r}; only {known} is supported")
        if name in data and len(data[name]) != len(data.get("block_out_channels", ())):
            raise BadRequest(f"VAEConfig: option {name} and block_out_channels differ in length")


register(Architecture("AutoencoderKL", VAEConfig.from_dict, VAEConfig.to_dict, declare))
