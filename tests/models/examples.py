"""Small configurations of each network, and weights for them, for tests.

Two levels or more, heads different from the width of a head, groups of several channels, nothing square: smaller
examples hide bugs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from refdiff.core.params import Declaration, Leaf, Params, flatten_declaration, tree

CROSS_DOWN, DOWN, CROSS_UP, UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"

_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 16],
    "down_block_types": [CROSS_DOWN, DOWN],
    "up_block_types": [UP, CROSS_UP],
    "layers_per_block": 2,
    "attention_head_dim": 2,
    "cross_attention_dim": 12,
    "norm_num_groups": 4,
    "norm_eps": 1e-5,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "sample_size": 8,
}
UNETS: dict[str, dict[str, Any]] = {
    "two levels": _UNET,
    "a list of heads": {
        **_UNET,
        "block_out_channels": [8, 12, 24],
        "down_block_types": [CROSS_DOWN, CROSS_DOWN, DOWN],
        "up_block_types": [UP, CROSS_UP, CROSS_UP],
        "layers_per_block": 1,
        "attention_head_dim": [4, 6, 3],
        "out_channels": 3,
        "norm_eps": 1e-3,
    },
    "every level attends": {
        **_UNET,
        "down_block_types": [CROSS_DOWN, CROSS_DOWN],
        "up_block_types": [CROSS_UP, CROSS_UP],
        "layers_per_block": 1,
        "in_channels": 9,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "four levels": {
        **_UNET,
        "block_out_channels": [8, 16, 24, 24],
        "down_block_types": [CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN],
        "up_block_types": [UP, CROSS_UP, CROSS_UP, CROSS_UP],
        "attention_head_dim": 8,
        "norm_num_groups": 2,
    },
}

_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "scaling_factor": 0.18215,
    "sample_size": 32,
}
VAES: dict[str, dict[str, Any]] = {
    "two levels": _VAE,
    "three levels": {
        **_VAE,
        "block_out_channels": [6, 12, 12],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "layers_per_block": 2,
        "latent_channels": 3,
        "norm_num_groups": 3,
    },
}

_CLIP = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "max_position_embeddings": 11,
    "layer_norm_eps": 1e-5,
    "hidden_act": "quick_gelu",
    "eos_token_id": 49,
}
CLIPS: dict[str, dict[str, Any]] = {
    "quick gelu": _CLIP,
    "gelu": {**_CLIP, "hidden_act": "gelu", "num_attention_heads": 6, "num_hidden_layers": 2, "layer_norm_eps": 1e-3},
    "the first release": {**_CLIP, "eos_token_id": 2},
}
_SPREAD = {"weight": 1.0, "bias": 0.1, "gain": 0.3, "offset": 0.3, "embedding": 0.5}


def random_params(declaration: Declaration, dtype: type, seed: int = 0) -> Params:
    """Weights that keep the size of what flows through them, read-only."""
    random = np.random.default_rng(seed)
    return tree({key: _random_leaf(leaf, random, dtype) for key, leaf in flatten_declaration(declaration).items()})


def _random_leaf(leaf: Leaf, random: np.random.Generator, dtype: type) -> np.ndarray:
    values = random.standard_normal(leaf.shape) * _SPREAD[leaf.init]
    values = values / np.sqrt(leaf.fan_in) if leaf.init == "weight" else values
    values = values + (leaf.init == "gain")
    values = values.astype(dtype)
    values.flags.writeable = False
    return values


def normal(*shape: int, dtype: type = np.float32, seed: int = 1) -> np.ndarray:
    """Standard normals, read-only."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    values.flags.writeable = False
    return values


def token_ids(length: int = 9) -> np.ndarray:
    """Two texts for CLIPS that end at different places, the second with a repeated end token, read-only."""
    ids = np.random.default_rng(3).integers(3, 48, (2, length))
    ids[:, 0] = 48
    ids[0, 5:] = 49
    ids[1, -1] = 49
    ids.flags.writeable = False
    return ids
