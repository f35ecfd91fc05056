"""The three networks as one kind of thing: what a test calls, with which weights and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refdiff.core.params import Declaration, Params, flatten, tree
from refdiff.models import clip_text, unet, vae
from tests.models.examples import CLIPS, UNETS, VAES, normal, random_params, token_ids


@dataclass(frozen=True)
class Network:
    """A configured network: its declaration, its inputs for a dtype, and how it is called with them."""

    declaration: Declaration
    inputs: Callable[[type], tuple]
    run: Callable[..., tuple]
    batch_inputs: tuple[int, ...]  # which inputs have a batch axis

    def weights(self, dtype: type) -> Params:
        """Random read-only weights."""
        return random_params(self.declaration, dtype)


def unet_network(name: str) -> Network:
    """A U-Net with latents of an odd and an even side, and a different time for each image."""
    config = unet.UNetConfig.from_dict(UNETS[name])
    times = np.array([7, 801])
    times.flags.writeable = False

    def inputs(dtype: type) -> tuple:
        return normal(2, config.in_channels, 9, 6, dtype=dtype), times, normal(2, 5, 12, dtype=dtype, seed=2)

    return Network(unet.declare(config), inputs, lambda p, *args: (unet.unet(p, config, *args),), (0, 1, 2))


def encoder_network(name: str) -> Network:
    """An autoencoder's way in."""
    config = vae.VAEConfig.from_dict(VAES[name])

    def run(p: Params, x: np.ndarray) -> tuple:
        return vae.encode(p, config, x)

    declaration = {k: v for k, v in vae.declare(config).items() if k in ("encoder", "quant_conv")}
    return Network(declaration, lambda dtype: (normal(2, 3, 12, 20, dtype=dtype),), run, (0,))


def decoder_network(name: str) -> Network:
    """An autoencoder's way out."""
    config = vae.VAEConfig.from_dict(VAES[name])

    def run(p: Params, z: np.ndarray) -> tuple:
        return (vae.decode(p, config, z),)

    declaration = {k: v for k, v in vae.declare(config).items() if k in ("decoder", "post_quant_conv")}
    return Network(declaration, lambda dtype: (normal(2, config.latent_channels, 3, 5, dtype=dtype),), run, (0,))


def text_network(name: str) -> Network:
    """A text encoder."""
    config = clip_text.CLIPTextConfig.from_dict(CLIPS[name])

    def run(p: Params, ids: np.ndarray) -> tuple:
        return clip_text.clip_text(p, config, ids)

    return Network(clip_text.declare(config), lambda dtype: (token_ids(11),), run, (0,))


NETWORKS = {
    **{f"unet, {name}": unet_network(name) for name in UNETS},
    **{f"vae encoder, {name}": encoder_network(name) for name in VAES},
    **{f"vae decoder, {name}": decoder_network(name) for name in VAES},
    **{f"clip, {name}": text_network(name) for name in CLIPS},
}


def changed(params: Params, key: str, values: np.ndarray) -> Params:
    """The same weights but one."""
    return tree({**flatten(params), key: values})
