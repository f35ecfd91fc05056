"""The U-Net of Stable Diffusion 1.x: a noisy latent, a time and a text to the network's prediction.

Source: Rombach et al. 2022 (arXiv 2112.10752), section 3.3; diffusers unet_2d_condition.py, UNet2DConditionModel.
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
from refdiff.models.layers import affine, conv1x1, conv3x3, conv_params, linear_params, norm_params, upsample_conv3x3
from refdiff.models.transformer import spatial_transformer, spatial_transformer_params
from refdiff.ops import add, concatenate, conv2d, crop, group_norm_silu, silu, timestep_embedding, upsample_nearest
from refdiff.xp import Array, array_module


@dataclass(frozen=True)
class UNetConfig:
    """What config.json of a U-Net says. `attention_head_dim` is the number of heads, in spite of its name."""

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    layers_per_block: int
    attention_head_dim: int | tuple[int, ...]
    cross_attention_dim: int
    norm_num_groups: int
    norm_eps: float
    flip_sin_to_cos: bool
    freq_shift: float
    sample_size: int

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UNetConfig:
        """Read config.json.  Raises: BadRequest for an option that is unknown, not supported or inconsistent."""
        config = read_config(cls, {**_UPSTREAM_DEFAULTS, **data}, renamed={}, fixed=_FIXED, ignored=_IGNORED)
        _check(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The contents of config.json."""
        return {"_class_name": "UNet2DConditionModel", **dataclasses.asdict(self)}

    @property
    def heads(self) -> tuple[int, ...]:
        """The number of heads of each level.  Traps: heads-vs-dim"""
        given = self.attention_head_dim
        return (given,) * len(self.block_out_channels) if isinstance(given, int) else given


# Options that old config.json files leave out, with the values that upstream then takes.
_UPSTREAM_DEFAULTS = {
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "layers_per_block": 2,
}
_FIXED: dict[str, tuple] = {
    "act_fn": ("silu", "swish"), "center_input_sample": (False,), "downsample_padding": (1,), "mid_block_scale_factor": (1, 1.0),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",), "only_cross_attention": (False,), "dual_cross_attention": (False,),
    "use_linear_projection": (False,), "class_embed_type": (None,), "num_class_embeds": (None,), "upcast_attention": (False,),
    "resnet_time_scale_shift": ("default",), "addition_embed_type": (None,), "addition_time_embed_dim": (None,),
    "attention_type": ("default",), "class_embeddings_concat": (False,), "conv_in_kernel": (3,), "conv_out_kernel": (3,),
    "cross_attention_norm": (None,), "dropout": (0, 0.0), "encoder_hid_dim": (None,), "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None,), "num_attention_heads": (None,), "projection_class_embeddings_input_dim": (None,),
    "resnet_out_scale_factor": (1, 1.0), "resnet_skip_time_act": (False,), "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,), "time_embedding_act_fn": (None,), "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",), "timestep_post_act": (None,), "transformer_layers_per_block": (1,),
}  # fmt: skip
_IGNORED = frozenset({"addition_embed_type_num_heads"})
_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}  # whether a block of that type attends
_UP = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}


def unet(params: Params, config: UNetConfig, x: Array, t: Array, context: Array) -> Array:
    """Predict the noise (or what the model was trained for) in `x` at time `t`, given the text `context`.

    Shapes: [B,C,H,W], [] or [B], [B,T,D] -> [B,C,H,W]; any H and W
    Traps: temb-flip, temb-shift, temb-silu, skip-add, up-size, unet-down-pad, gn-eps
    """
    p = params
    temb = time_embedding(p.time_embedding, config, x, t)
    x = conv3x3(p.conv_in, x)

    skips = [x]
    for block, heads in zip(p.down_blocks, config.heads, strict=True):
        x, block_skips = down_block(block, config, x, temb, context, heads=heads)
        skips += block_skips

    x = mid_block(p.mid_block, config, x, temb, context, heads=config.heads[-1])

    for block, heads in zip(p.up_blocks, config.heads[::-1], strict=True):
        own, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
        size = skips[-1].shape[2:] if skips else x.shape[2:]
        x = up_block(block, config, x, temb, context, skips=own, size=size, heads=heads)

    x = group_norm_silu(x, p.conv_norm_out.weight, p.conv_norm_out.bias, groups=config.norm_num_groups, eps=config.norm_eps)
    return conv3x3(p.conv_out, x)


def declare(config: UNetConfig) -> Declaration:
    """Every parameter of the U-Net."""
    channels, layers = config.block_out_channels, config.layers_per_block
    temb, context = 4 * channels[0], config.cross_attention_dim
    last = len(channels) - 1
    down, up = [], []
    skips = [channels[0]]
    for i, kind in enumerate(config.down_block_types):
        ins = [channels[max(i - 1, 0)]] + [channels[i]] * (layers - 1)
        skips += [channels[i]] * (layers + (i < last))
        down.append(block_params(ins, channels[i], temb, context if _DOWN[kind] else None, "downsamplers" if i < last else None))
    width = channels[-1]
    for i, kind in enumerate(config.up_block_types):
        out = channels[last - i]
        ins = [skips.pop() + (width if j == 0 else out) for j in range(layers + 1)]
        up.append(block_params(ins, out, temb, context if _UP[kind] else None, "upsamplers" if i < last else None))
        width = out
    return {
        "conv_in": conv_params(config.in_channels, channels[0], kernel=3),
        "time_embedding": {
            "linear_1": linear_params(channels[0], temb, bias=True),
            "linear_2": linear_params(temb, temb, bias=True),
        },
        "down_blocks": numbered(down),
        "up_blocks": numbered(up),
        "mid_block": mid_block_params(channels[-1], temb, context),
        "conv_norm_out": norm_params(channels[0]),
        "conv_out": conv_params(channels[0], config.out_channels, kernel=3),
    }


@unit
def time_embedding(p: Params, config: UNetConfig, x: Array, t: Array) -> Array:
    """The time as a vector for every image of the batch.

    Math: linear(silu(linear(sinusoids(t))))
    Shapes: [] or [B] -> [B,E]
    """
    xp = array_module(t)
    steps = xp.broadcast_to(t, (x.shape[0],))
    sinusoids = timestep_embedding(
        steps,
        width=config.block_out_channels[0],
        flip_sin_to_cos=config.flip_sin_to_cos,
        freq_shift=config.freq_shift,
        max_period=10000.0,
        dtype=x.dtype,
    )
    sinusoids = tap("time_proj", sinusoids)
    return affine(p.linear_2, silu(affine(p.linear_1, sinusoids)))


def block_params(ins: list[int], out: int, temb: int, context: int | None, resampler: str | None) -> Declaration:
    """The parameters of `down_block` and `up_block`: a resnet for each entry of `ins`, attentions if there is a context."""
    block: dict[str, Any] = {"resnets": numbered([resnet_params(i, out, temb) for i in ins])}
    if context is not None:
        block["attentions"] = numbered([spatial_transformer_params(out, context) for _ in ins])
    if resampler is not None:
        block[resampler] = numbered([{"conv": conv_params(out, out, kernel=3)}])
    return block


def down_block(p: Params, config: UNetConfig, x: Array, temb: Array, context: Array, *, heads: int) -> tuple[Array, list[Array]]:
    """Resnets, each followed by a transformer where the block attends, then a step down in size.

    Shapes: [B,C,H,W], [B,E], [B,T,D] -> [B,C',ceil(H/2),ceil(W/2)], and every value on the way, for the up path
    """
    skips = []
    for i, resnet in enumerate(p.resnets):
        x = resnet_block(resnet, config, x, temb)
        if "attentions" in p:
            x = spatial_transformer(p.attentions[i], x, context, heads=heads, groups=config.norm_num_groups)
        skips.append(x)
    if "downsamplers" in p:
        conv = p.downsamplers[0].conv
        x = conv2d(x, conv.weight, conv.bias, stride=2, padding=(1, 1, 1, 1))  # [B,C',H,W] -> [B,C',ceil(H/2),ceil(W/2)]
        x = tap(p.downsamplers[0].path, tap(conv.path, x))
        skips.append(x)
    return tap(p.path, x), skips


def mid_block_params(width: int, temb: int, context: int) -> Declaration:
    """The parameters of `mid_block`."""
    resnets = numbered([resnet_params(width, width, temb), resnet_params(width, width, temb)])
    return {"attentions": numbered([spatial_transformer_params(width, context)]), "resnets": resnets}


@unit
def mid_block(p: Params, config: UNetConfig, x: Array, temb: Array, context: Array, *, heads: int) -> Array:
    """Resnet, transformer, resnet at the smallest size.  Shapes: [B,C,H,W], [B,E], [B,T,D] -> [B,C,H,W]"""
    x = resnet_block(p.resnets[0], config, x, temb)
    x = spatial_transformer(p.attentions[0], x, context, heads=heads, groups=config.norm_num_groups)
    return resnet_block(p.resnets[1], config, x, temb)


@unit
def up_block(
    p: Params, config: UNetConfig, x: Array, temb: Array, context: Array, *, skips: list[Array], size: tuple, heads: int
) -> Array:
    """Resnets that each take one value of the down path beside the stream, then a step up to `size`.

    Shapes: [B,C,H,W], [B,E], [B,T,D], skips [B,.,H,W] -> [B,C',*size]
    """
    for i, resnet in enumerate(p.resnets):
        x = concatenate([x, skips[-1 - i]], axis=1)  # [B,C,H,W] -> [B,C+C_skip,H,W]
        x = resnet_block(resnet, config, x, temb)
        if "attentions" in p:
            x = spatial_transformer(p.attentions[i], x, context, heads=heads, groups=config.norm_num_groups)
    if "upsamplers" in p:
        conv = p.upsamplers[0].conv
        height, width = 2 * x.shape[2], 2 * x.shape[3]
        if size == (height, width):
            x = upsample_conv3x3(conv, x)  # [B,C',H,W] -> [B,C',2H,2W]
        else:  # the down path halved an odd size
            x = crop(upsample_nearest(x, height=height, width=width), height=size[0], width=size[1])
            x = conv3x3(conv, x)
        x = tap(p.upsamplers[0].path, x)
    return x


def resnet_params(channels_in: int, channels_out: int, temb: int) -> Declaration:
    """The parameters of `resnet_block`; the shortcut exists only where the number of channels changes."""
    block = {
        "norm1": norm_params(channels_in),
        "conv1": conv_params(channels_in, channels_out, kernel=3),
        "time_emb_proj": linear_params(temb, channels_out, bias=True),
        "norm2": norm_params(channels_out),
        "conv2": conv_params(channels_out, channels_out, kernel=3),
    }
    return block if channels_in == channels_out else {**block, "conv_shortcut": conv_params(channels_in, channels_out, kernel=1)}


@unit
def resnet_block(p: Params, config: UNetConfig, x: Array, temb: Array) -> Array:
    """Two normalised convolutions with the time added between them, beside a shortcut.

    Shapes: [B,C,H,W], [B,E] -> [B,C',H,W]
    Traps: gn-eps, temb-silu
    """
    groups, eps = config.norm_num_groups, config.norm_eps
    h = group_norm_silu(x, p.norm1.weight, p.norm1.bias, groups=groups, eps=eps)
    h = conv3x3(p.conv1, h)
    h = add(h, affine(p.time_emb_proj, silu(temb)).reshape(h.shape[0], h.shape[1], 1, 1))
    h = group_norm_silu(h, p.norm2.weight, p.norm2.bias, groups=groups, eps=eps)
    h = conv3x3(p.conv2, h)
    if "conv_shortcut" in p:
        x = conv1x1(p.conv_shortcut, x)  # [B,C,H,W] -> [B,C',H,W]
    return add(x, h)


def _check(config: UNetConfig) -> None:
    levels = len(config.block_out_channels)
    for name, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
        kinds = getattr(config, name)
        if len(kinds) != levels:
            raise BadRequest(f"UNetConfig: option {name} names {len(kinds)} blocks, but block_out_channels has {levels}")
        for kind in kinds:
            if kind not in known:
                raise BadRequest(f"UNetConfig: option {name} holds {kind!r}; known are {', '.join(known)}")
    if len(config.heads) != levels:
        raise BadRequest(
            f"UNetConfig: option attention_head_dim = {config.attention_head_dim} needs one entry for each of {levels} levels"
        )
    for width, heads in zip(config.block_out_channels, config.heads, strict=True):
        if width % config.norm_num_groups:
            raise BadRequest(f"UNetConfig: {width} channels cannot be split into norm_num_groups = {config.norm_num_groups}")
        if width % heads:
            raise BadRequest(f"UNetConfig: {width} channels cannot be split into {heads} attention heads")
    if config.block_out_channels[0] % 2:
        raise BadRequest(f"UNetConfig: block_out_channels starts with {config.block_out_channels[0]}, which must be even")


register(Architecture("UNet2DConditionModel", UNetConfig.from_dict, UNetConfig.to_dict, declare))
