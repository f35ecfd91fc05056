"""Every block agrees with upstream's on the same weights and inputs: taken out of whole models, each fed afresh."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from refdiff.core.primitive import MODES, mode
from refdiff.models import clip_text, transformer, unet, vae
from tests.models.examples import CLIPS, UNETS, VAES, normal, random_params
from tests.parity import upstream
from tests.parity.upstream import BLOCK_BOUND, Measure, sinusoids_for, tensor

both = pytest.mark.parametrize("dtype", BLOCK_BOUND)
every_mode = pytest.mark.parametrize("kernels", MODES)


@cache
def unet_pair(name: str, dtype: type):
    """Our configuration and weights, and diffusers' U-Net with them."""
    config = unet.UNetConfig.from_dict(UNETS[name])
    params = random_params(unet.declare(config), dtype)
    return config, params, upstream.unet(UNETS[name], params)


@cache
def vae_pair(name: str, dtype: type):
    """Our configuration and weights, and diffusers' autoencoder with them."""
    config = vae.VAEConfig.from_dict(VAES[name])
    params = random_params(vae.declare(config), dtype)
    return config, params, upstream.vae(VAES[name], params)


def at(model: torch.nn.Module, path: str) -> torch.nn.Module:
    """The part of a model at a path of parameters."""
    return model.get_submodule(path)


def ours_at(params, path: str):
    """The same of ours."""
    for name in path.split("."):
        params = params[int(name)] if name.isdigit() else getattr(params, name)
    return params


class Inputs:
    """Fresh inputs of the sizes that a U-Net's blocks take."""

    def __init__(self, dtype: type):
        self.dtype = dtype
        self.temb = normal(2, 32, dtype=dtype, seed=11)
        self.context = normal(2, 7, 12, dtype=dtype, seed=12)

    def image(self, channels: int, height: int = 9, width: int = 6, seed: int = 13) -> np.ndarray:
        """A feature map whose values are so small that the eps of a normalisation can be seen."""
        values = normal(2, channels, height, width, dtype=self.dtype, seed=seed) * self.dtype(0.05)
        values.flags.writeable = False
        return values

    def tokens(self, width: int) -> np.ndarray:
        """A row of tokens."""
        return normal(2, 10, width, dtype=self.dtype, seed=14)


# name: (path, our call, upstream's call), both given the parameters or the module, the configuration and the inputs
UNET_BLOCKS: dict[str, tuple[str, Callable, Callable]] = {
    "resnet": (
        "mid_block.resnets.0",
        lambda p, c, i: unet.resnet_block(p, c, i.image(16), i.temb),
        lambda m, i: m(tensor(i.image(16)), tensor(i.temb)),
    ),
    "resnet with a shortcut": (
        "up_blocks.1.resnets.0",
        lambda p, c, i: unet.resnet_block(p, c, i.image(24), i.temb),
        lambda m, i: m(tensor(i.image(24)), tensor(i.temb)),
    ),
    "self-attention": (
        "mid_block.attentions.0.transformer_blocks.0.attn1",
        lambda p, c, i: transformer.projected_attention(p, i.tokens(16), i.tokens(16), heads=2),
        lambda m, i: m(tensor(i.tokens(16))),
    ),
    "cross-attention": (
        "mid_block.attentions.0.transformer_blocks.0.attn2",
        lambda p, c, i: transformer.projected_attention(p, i.tokens(16), i.context, heads=2),
        lambda m, i: m(tensor(i.tokens(16)), tensor(i.context)),
    ),
    "transformer block": (
        "down_blocks.0.attentions.1.transformer_blocks.0",
        lambda p, c, i: transformer.transformer_block(p, i.tokens(8), i.context, heads=2),
        lambda m, i: m(tensor(i.tokens(8)), encoder_hidden_states=tensor(i.context)),
    ),
    "spatial transformer": (
        "down_blocks.0.attentions.0",
        lambda p, c, i: transformer.spatial_transformer(p, i.image(8), i.context, heads=2, groups=4),
        lambda m, i: m(tensor(i.image(8)), encoder_hidden_states=tensor(i.context)).sample,
    ),
    "down block with attention": (
        "down_blocks.0",
        lambda p, c, i: _flat(unet.down_block(p, c, i.image(8), i.temb, i.context, heads=2)),
        lambda m, i: _flat(m(tensor(i.image(8)), tensor(i.temb), encoder_hidden_states=tensor(i.context))),
    ),
    "down block": (
        "down_blocks.1",
        lambda p, c, i: _flat(unet.down_block(p, c, i.image(8), i.temb, i.context, heads=2)),
        lambda m, i: _flat(m(tensor(i.image(8)), tensor(i.temb))),
    ),
    "mid block": (
        "mid_block",
        lambda p, c, i: unet.mid_block(p, c, i.image(16), i.temb, i.context, heads=2),
        lambda m, i: m(tensor(i.image(16)), tensor(i.temb), encoder_hidden_states=tensor(i.context)),
    ),
    "up block": (
        "up_blocks.0",
        lambda p, c, i: unet.up_block(
            p, c, i.image(16, 5, 3), i.temb, i.context, skips=_skips(i, [8, 16, 16]), size=(9, 6), heads=2
        ),
        lambda m, i: m(
            tensor(i.image(16, 5, 3)), tuple(map(tensor, _skips(i, [8, 16, 16]))), tensor(i.temb), upsample_size=(9, 6)
        ),
    ),
    "up block with attention": (
        "up_blocks.1",
        lambda p, c, i: unet.up_block(
            p, c, i.image(16, 5, 3), i.temb, i.context, skips=_skips(i, [8, 8, 8]), size=(5, 3), heads=2
        ),
        lambda m, i: m(
            tensor(i.image(16, 5, 3)),
            tuple(map(tensor, _skips(i, [8, 8, 8]))),
            tensor(i.temb),
            encoder_hidden_states=tensor(i.context),
        ),
    ),
}


def _skips(inputs: Inputs, channels: list[int]) -> list[np.ndarray]:
    return [inputs.image(n, 5, 3, seed=20 + i) for i, n in enumerate(channels)]


def _flat(result: tuple) -> list:
    x, skips = result
    return [x, *skips]


def compare(measure: Measure, label: str, got, want, dtype: type) -> None:
    """One array, or several: each within the bound of a block."""
    got, want = (list(r) if isinstance(r, list | tuple) else [r] for r in (got, want))
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        measure(label if len(got) == 1 else f"{label}, result {i}", a, b, BLOCK_BOUND[dtype])


@both
@every_mode
@pytest.mark.parametrize("name", UNET_BLOCKS)
def test_a_block_of_the_unet(name, kernels, dtype, measure):
    path, ours, theirs = UNET_BLOCKS[name]
    config, params, model = unet_pair("two levels", dtype)
    inputs = Inputs(dtype)
    with mode(kernels):
        got = ours(ours_at(params, path), config, inputs)
    compare(measure, f"U-Net {name}, {np.dtype(dtype).name}, {kernels}", got, theirs(at(model, path), inputs), dtype)


@both
@pytest.mark.parametrize("name", ["two levels", "every level attends"])
def test_the_time_embedding(name, dtype, measure):
    config, params, model = unet_pair(name, dtype)
    t = np.array([3, 977])
    got = unet.time_embedding(params.time_embedding, config, Inputs(dtype).image(4), t)
    with sinusoids_for(dtype):
        want = model.time_embedding(model.time_proj(tensor(t)).to(tensor(np.zeros(1, dtype)).dtype))
    compare(measure, f"U-Net time embedding of {name}, {np.dtype(dtype).name}", got, want, dtype)


VAE_BLOCKS: dict[str, tuple[str, Callable, Callable]] = {
    "resnet with a shortcut": (
        "encoder.down_blocks.1.resnets.0",
        lambda p, c, i: vae.resnet_block(p, c, i.image(8)),
        lambda m, i: m(tensor(i.image(8)), None),
    ),
    "resnet": (
        "decoder.up_blocks.0.resnets.1",
        lambda p, c, i: vae.resnet_block(p, c, i.image(16)),
        lambda m, i: m(tensor(i.image(16)), None),
    ),
    "attention": (
        "decoder.mid_block.attentions.0",
        lambda p, c, i: vae.attention_block(p, c, i.image(16)),
        lambda m, i: m(tensor(i.image(16))),
    ),
    "mid block": (
        "encoder.mid_block",
        lambda p, c, i: vae.mid_block(p, c, i.image(16)),
        lambda m, i: m(tensor(i.image(16))),
    ),
    "encoder": (
        "encoder",
        lambda p, c, i: vae.encoder(p, c, i.image(3, 12, 20)),
        lambda m, i: m(tensor(i.image(3, 12, 20))),
    ),
    "encoder of an odd size": (
        "encoder",
        lambda p, c, i: vae.encoder(p, c, i.image(3, 13, 19)),
        lambda m, i: m(tensor(i.image(3, 13, 19))),
    ),
    "decoder": (
        "decoder",
        lambda p, c, i: vae.decoder(p, c, i.image(4, 5, 7)),
        lambda m, i: m(tensor(i.image(4, 5, 7))),
    ),
}


@both
@every_mode
@pytest.mark.parametrize("name", VAE_BLOCKS)
def test_a_block_of_the_autoencoder(name, kernels, dtype, measure):
    path, ours, theirs = VAE_BLOCKS[name]
    config, params, model = vae_pair("two levels", dtype)
    inputs = Inputs(dtype)
    with mode(kernels):
        got = ours(ours_at(params, path), config, inputs)
    compare(measure, f"VAE {name}, {np.dtype(dtype).name}, {kernels}", got, theirs(at(model, path), inputs), dtype)


@both
@every_mode
@pytest.mark.parametrize("name", ["quick gelu", "gelu"])
def test_a_layer_of_the_text_encoder(name, kernels, dtype, measure):
    config = clip_text.CLIPTextConfig.from_dict(CLIPS[name])
    params = random_params(clip_text.declare(config), dtype)
    layer = upstream.clip_text(CLIPS[name], params).encoder.layers[1]
    x = normal(2, 9, config.hidden_size, dtype=dtype)
    with mode(kernels):
        got = clip_text.encoder_layer(params.text_model.encoder.layers[1], config, x)
    mask = torch.full((9, 9), float("-inf"), dtype=tensor(x).dtype).triu(1)[None, None]
    want = layer(tensor(x), attention_mask=mask)
    compare(measure, f"CLIP layer, {name}, {np.dtype(dtype).name}, {kernels}", got, want, dtype)
