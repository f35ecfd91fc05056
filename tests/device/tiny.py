"""Small networks with all the parts: two levels, heads that are not head width, gains that are not 1."""

from __future__ import annotations

import numpy as np

from refdiff.core.params import Declaration, Params, flatten_declaration, tree
from refdiff.models.clip_text import CLIPTextConfig
from refdiff.models.unet import UNetConfig
from refdiff.models.vae import VAEConfig

CONTEXT = 12

UNET = UNetConfig.from_dict(
    {
        "_class_name": "UNet2DConditionModel",
        "in_channels": 4,
        "out_channels": 4,
        "sample_size": 8,
        "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": CONTEXT,
        "norm_num_groups": 4,
    }
)
VAE = VAEConfig.from_dict(
    {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
)
TEXT = CLIPTextConfig.from_dict(
    {
        "vocab_size": 50,
        "hidden_size": CONTEXT,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "max_position_embeddings": 7,
        "layer_norm_eps": 1e-5,
        "hidden_act": "quick_gelu",
        "eos_token_id": 49,
    }
)


def parameters(declaration: Declaration, seed: int, dtype: str = "float32") -> Params:
    """Normal numbers of a healthy size for every declared parameter, nothing 0 and nothing 1."""
    rng = np.random.default_rng(seed)
    flat = {}
    for key, leaf in flatten_declaration(declaration).items():
        scale = max(leaf.fan_in, 1) ** -0.5 if leaf.init == "weight" else 0.3
        flat[key] = (rng.standard_normal(leaf.shape) * scale + (leaf.init == "gain")).astype(dtype)
    return tree(flat)
