"""Bugs of the U-Net, and of layers that it shares with the other networks."""

from __future__ import annotations

from typing import Any

from refdiff import ops
from refdiff.core.tap import tap
from refdiff.golden.mutants import changes
from refdiff.golden.mutants.kind import Change, Variants, by_site, patched, with_constants
from refdiff.models import clip_text, layers, transformer, unet, vae


def silu_of_time(inside: Any, outside: Any) -> list[Change]:
    """SiLU of the time embedding: `inside` its perceptron, `outside` before the projections of the resnets."""

    def time_embedding(p: Any, config: Any, x: Any, t: Any) -> Any:
        steps = unet.array_module(t).broadcast_to(t, (x.shape[0],))
        sinusoids = unet.timestep_embedding(
            steps, width=config.block_out_channels[0], flip_sin_to_cos=config.flip_sin_to_cos, freq_shift=config.freq_shift,
            max_period=10000.0, dtype=x.dtype,
        )  # fmt: skip
        sinusoids = tap("time_proj", sinusoids)
        return tap(p.path, unet.affine(p.linear_2, inside(unet.affine(p.linear_1, sinusoids))))

    return [(unet, "silu", outside), (unet, "time_embedding", time_embedding)]


def same_norm_everywhere(eps: float, *, only: str) -> list[Change]:
    """GroupNorms with this eps: of the transformers, of the resnets, or of the autoencoder."""
    norm, fused = with_constants(ops.group_norm, eps=eps), with_constants(ops.group_norm_silu, eps=eps)
    found: dict[str, Change] = {
        "transformers": (transformer, "group_norm", norm),
        "resnets": (unet, "group_norm_silu", fused),
        "autoencoder": (vae, "NORM_EPS", eps),
    }
    return [found[only]]


def unmoved_tokens(x: Any) -> Any:
    """[B,C,H,W] read as [B,H*W,C] without moving an axis."""
    batch, channels, height, width = x.shape
    return x.reshape(batch, height * width, channels)


def missing_crop(x: Any, *, height: int, width: int) -> Any:
    """The other side of an upsampled odd size is cut off."""
    return x[:, :, -height:, -width:]


def unchanged(x: Any, *, height: int, width: int) -> Any:
    """No upsampling; what is cut to the skip's size after it is left to do it."""
    return x


VARIANTS: Variants = {
    "temb-flip": {"swapped": patched((unet, "timestep_embedding", changes.swapped_halves))},
    "temb-shift": {"other": patched((unet, "timestep_embedding", changes.shifted))},
    "temb-interleave": {"interleaved": patched((unet, "timestep_embedding", changes.interleaved))},
    "t-int-trunc": {"floor": patched((unet, "timestep_embedding", changes.whole_times))},
    "t-halfprec": {
        "bfloat16": patched((unet, "timestep_embedding", changes.rounded_times)),
        "float16": patched((unet, "timestep_embedding", changes.half_times)),
    },
    "temb-silu": {
        "missing before the projections": patched(*silu_of_time(ops.silu, changes.silu_nowhere)),
        "twice before the projections": patched(*silu_of_time(ops.silu, changes.silu_twice)),
        "missing in the perceptron": patched(*silu_of_time(changes.silu_nowhere, ops.silu)),
    },
    "gn-eps": {
        "1e-5 in the transformers": patched(*same_norm_everywhere(1e-5, only="transformers")),
        "1e-6 in the resnets": patched(*same_norm_everywhere(1e-6, only="resnets")),
        "1e-5 in the autoencoder": patched(*same_norm_everywhere(1e-5, only="autoencoder")),
        "1e-3 everywhere": patched(*changes.group_norms(eps=1e-3)),
        "1e-12 everywhere": patched(*changes.group_norms(eps=1e-12)),
    },
    "gn-layout": {"interleaved": patched(*changes.odd_group_norms("interleaved"))},
    "gn-unbiased": {"unbiased": patched(*changes.odd_group_norms("unbiased"))},
    "gn-eps-outside": {"outside": patched(*changes.odd_group_norms("outside"))},
    "gn-groups": {"half": by_site(changes.half_the_groups)},
    "heads-vs-dim": {
        "width": patched(*changes.attentions(changes.heads_for_width, transformer, clip_text)),
        "interleaved": patched(*changes.attentions(changes.interleaved_heads, transformer, clip_text)),
    },
    "attn-no-scale": {
        "none": patched(*changes.attentions(with_constants(ops.attention, scale=1.0), transformer, vae, clip_text)),
        "all channels": patched(*changes.attentions(changes.scaled_by_channels, transformer, clip_text)),
    },
    "geglu-swap": {"swapped": patched((transformer, "geglu", changes.swapped_geglu))},
    "te-quickgelu-in-geglu": {"quick": patched((transformer, "geglu", changes.quick_geglu))},
    "skip-add": {"order": patched((unet, "concatenate", changes.skip_first))},
    "up-size": {"other side": patched((unet, "crop", missing_crop))},
    "up-mode": {
        "bilinear": patched(
            (unet, "upsample_nearest", changes.bilinear), *changes.convolutions(layers.conv3x3, changes.bilinear)
        ),
        "bilinear to the skip's size": patched(
            (unet, "upsample_nearest", unchanged),
            (unet, "crop", changes.bilinear),
            (unet, "upsample_conv3x3", changes.upsampled(layers.conv3x3, changes.bilinear)),
        ),
    },
    "unet-down-pad": {"one side": patched((unet, "conv2d", changes.one_sided))},
    "proj-linear-conv": {"reshape": patched((transformer, "tokens", unmoved_tokens))},
    "w-square-T": {"this layer": by_site(changes.w_square), "every square layer": by_site(changes.w_all_square)},
    "w-conv-flip": {
        "transposed": by_site(lambda site: changes.convolutions(changes.flipped_kernel, ops.upsample_nearest)),
        "turned": by_site(lambda site: changes.convolutions(changes.rotated_kernel, ops.upsample_nearest)),
    },
    "w-missing": {"bias": by_site(changes.w_missing("bias")), "weight": by_site(changes.w_missing("weight"))},
}
