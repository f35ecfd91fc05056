"""Do the parts of a model go together?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from refdiff.checkpoints.component import component_folder, open_config
from refdiff.errors import BadRequest
from refdiff.models.clip_text import CLIPTextConfig
from refdiff.models.unet import UNetConfig
from refdiff.models.vae import VAEConfig
from refdiff.text import Tokenizer

CONFIGS: Mapping[str, type] = {"text_encoder": CLIPTextConfig, "unet": UNetConfig, "vae": VAEConfig}


def check_folder(folder: Path) -> None:
    """Hold the parts of a model folder against one another, by their configurations alone.

    Raises: BadRequest as `check_parts`, and for a configuration or a tokenizer that cannot be read
    """
    configs = {name: open_config(component_folder(folder, name))[1] for name in CONFIGS}
    check_parts(folder, configs, Tokenizer.from_folder(folder / "tokenizer"))


def check_parts(folder: Path, configs: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Hold the parts of a model against one another.

    Raises: BadRequest for a part of another class than its name says, or parts that do not go together
    """
    for name, kind in CONFIGS.items():
        if type(configs[name]) is not kind:
            raise BadRequest(f"{folder / name} holds a network of another class: put one in it whose config is a {kind.__name__}")
    text, unet, vae = configs["text_encoder"], configs["unet"], configs["vae"]
    pairs = (
        ("unet", "in_channels", unet.in_channels, "the autoencoder's latents have", vae.latent_channels),
        ("unet", "out_channels", unet.out_channels, "the autoencoder's latents have", vae.latent_channels),
        ("unet", "cross_attention_dim", unet.cross_attention_dim, "the text encoder's vectors have", text.hidden_size),
    )
    for name, option, value, other, needed in pairs:
        if value != needed:
            raise BadRequest(f"{folder / name}: {option} is {value}, but {other} {needed}: the parts are of different models")
    for what, value, most in (
        ("tokens", tokenizer.vocab_size, text.vocab_size),
        ("places", tokenizer.max_length, text.max_position_embeddings),
    ):
        if value > most:
            raise BadRequest(
                f"{folder / 'tokenizer'} has {value} {what}, but the text encoder {most}: the parts are of different models"
            )
