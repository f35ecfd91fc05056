"""Ways to break diffusers' own modules at run time, each a bug that ports have had, by its id."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from diffusers import DDIMScheduler
from diffusers.models import activations, embeddings, upsampling
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn
from transformers.models.clip import modeling_clip


@dataclass(frozen=True)
class Bug:
    """The id that the tool must name, and how the pipeline is broken; what it patches, it enters on the stack."""

    id: str
    make: Callable[[Any, ExitStack], Any]

    @contextmanager
    def broken(self, pipe: Any) -> Iterator[None]:
        """The pipeline with the bug; its networks stay broken."""
        with ExitStack() as stack, torch.no_grad():
            self.make(pipe, stack)
            yield


def every(network: nn.Module, kind: type, where: str = "") -> list[Any]:
    """The modules of a kind whose path holds `where`."""
    return [m for name, m in network.named_modules() if isinstance(m, kind) and where in name]


def put(modules: list[Any], **values: Any) -> None:
    """Set attributes."""
    assert modules
    for module in modules:
        for name, value in values.items():
            assert hasattr(module, name)
            setattr(module, name, value)


def half_the_groups(pipe: Any, stack: ExitStack) -> None:
    for norm in every(pipe.unet, nn.GroupNorm):
        norm.num_groups //= 2


def unscaled_attention(pipe: Any, stack: ExitStack) -> None:
    pipe.unet.set_attn_processor(AttnProcessor())
    put(every(pipe.unet, Attention), scale=1.0)


def width_for_heads(pipe: Any, stack: ExitStack) -> None:
    for attention in every(pipe.unet, Attention):
        attention.heads = attention.inner_dim // attention.heads


def swapped_geglu(pipe: Any, stack: ExitStack) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.proj(x).chunk(2, dim=-1)
        return value * self.gelu(gate)

    stack.enter_context(mock.patch.object(activations.GEGLU, "forward", forward))


def tanh_geglu(pipe: Any, stack: ExitStack) -> None:
    gelu = nn.GELU(approximate="tanh")
    stack.enter_context(mock.patch.object(activations.GEGLU, "gelu", lambda self, gate: gelu(gate)))


def rounded_time(pipe: Any, stack: ExitStack) -> None:
    forward = embeddings.Timesteps.forward
    rounded = lambda self, t: forward(self, t.to(torch.bfloat16).float())  # noqa: E731
    stack.enter_context(mock.patch.object(embeddings.Timesteps, "forward", rounded))


def transposed_kernels(pipe: Any, stack: ExitStack) -> None:
    for conv in every(pipe.unet, nn.Conv2d):
        conv.weight.copy_(conv.weight.transpose(-1, -2).clone())


def transposed_square(pipe: Any, stack: ExitStack) -> None:
    weight = pipe.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_v").weight
    weight.copy_(weight.T.clone())


def swapped_keys(pipe: Any, stack: ExitStack) -> None:
    (attention,) = every(pipe.vae, Attention, "decoder")
    attention.to_q, attention.to_k = attention.to_k, attention.to_q


def bilinear(pipe: Any, stack: ExitStack) -> None:
    original = upsampling.F.interpolate

    def interpolate(x: torch.Tensor, *, mode: str, **size: Any) -> torch.Tensor:
        return original(x, mode="bilinear", **size)

    stack.enter_context(mock.patch.object(upsampling.F, "interpolate", interpolate))


def skips_first(pipe: Any, stack: ExitStack) -> None:
    original = torch.cat

    def cat(parts: Any, dim: int = 0) -> torch.Tensor:
        return original(parts[::-1] if dim == 1 and parts[0].ndim == 4 else parts, dim=dim)

    stack.enter_context(mock.patch.object(torch, "cat", cat))


def no_mask(pipe: Any, stack: ExitStack) -> None:
    pipe.text_encoder.set_attn_implementation("eager")
    stack.enter_context(mock.patch.object(modeling_clip, "create_causal_mask", lambda **_: None))


def later_positions(pipe: Any, stack: ExitStack) -> None:
    ids = pipe.text_encoder.get_submodule("embeddings").position_ids
    ids.copy_(torch.clamp(ids + 1, max=ids.shape[1] - 1))


def no_quant_conv(pipe: Any, stack: ExitStack) -> None:
    pipe.vae.post_quant_conv = nn.Identity()


def no_final_norm(pipe: Any, stack: ExitStack) -> None:
    pipe.text_encoder.final_layer_norm = nn.Identity()


def scheduler(**changed: Any) -> Callable[[Any, ExitStack], None]:
    def make(pipe: Any, stack: ExitStack) -> None:
        pipe.scheduler = DDIMScheduler.from_config(dict(pipe.scheduler.config), **changed)

    return make


BUGS = {
    "GroupNorm of the transformers with the resnets' eps": Bug(
        "gn-eps", lambda pipe, _: put(every(pipe.unet, nn.GroupNorm, "attentions"), eps=1e-5)
    ),
    "GroupNorm of the autoencoder with the U-Net's eps": Bug(
        "gn-eps", lambda pipe, _: put(every(pipe.vae, nn.GroupNorm), eps=1e-5)
    ),
    "GroupNorm with half the groups": Bug("gn-groups", half_the_groups),
    "LayerNorm of the text encoder with Keras's eps": Bug(
        "ln-eps", lambda pipe, _: put(every(pipe.text_encoder, nn.LayerNorm), eps=1e-3)
    ),
    "scores are not scaled": Bug("attn-no-scale", unscaled_attention),
    "as many heads as a head is wide": Bug("heads-vs-dim", width_for_heads),
    "gate and value swapped": Bug("geglu-swap", swapped_geglu),
    "gate by tanh": Bug("gelu-tanh", tanh_geglu),
    "sines before cosines": Bug("temb-flip", lambda pipe, _: put([pipe.unet.time_proj], flip_sin_to_cos=False)),
    "frequencies shifted": Bug("temb-shift", lambda pipe, _: put([pipe.unet.time_proj], downscale_freq_shift=1)),
    "time in bfloat16": Bug("t-halfprec", rounded_time),
    "no SiLU before the time's projection": Bug(
        "temb-silu", lambda pipe, _: put([m for m in pipe.unet.modules() if hasattr(m, "skip_time_act")], skip_time_act=True)
    ),
    "kernels transposed": Bug("w-conv-flip", transposed_kernels),
    "one square weight transposed": Bug("w-square-T", transposed_square),
    "one bias missing": Bug("w-missing", lambda pipe, _: pipe.unet.down_blocks[1].resnets[0].conv1.bias.zero_()),
    "steps up between pixels": Bug("up-mode", bilinear),
    "skips before the stream": Bug("skip-add", skips_first),
    "GELU for QuickGELU": Bug(
        "te-gelu-for-quickgelu",
        lambda pipe, _: put([layer.mlp for layer in pipe.text_encoder.encoder.layers], activation_fn=nn.GELU()),
    ),
    "no causal mask": Bug("te-no-causal", no_mask),
    "positions from 1": Bug("te-position-offset", later_positions),
    "no last LayerNorm": Bug("te-final-ln-on/off", no_final_norm),
    "SDXL's factor": Bug("vae-scale", lambda pipe, _: pipe.vae.register_to_config(scaling_factor=0.13025)),
    "no post_quant_conv": Bug("vae-quant-conv", no_quant_conv),
    "keys for queries": Bug("vae-attn-keys", swapped_keys),
}
