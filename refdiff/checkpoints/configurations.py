"""The configurations of the synthetic checkpoints, in the words of the config.json files that they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLIP_VOCABULARY = 49408

# Stable Diffusion 1.5 as it was published. Its eos_token_id is the known slip of CLIP's first release (49407 is true).
SD15_TEXT_ENCODER = {
    "architectures": ["CLIPTextModel"], "model_type": "clip_text_model",
    "vocab_size": CLIP_VOCABULARY, "max_position_embeddings": 77, "hidden_size": 768, "intermediate_size": 3072,
    "num_hidden_layers": 12, "num_attention_heads": 12, "projection_dim": 768, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
SD15_UNET = {
    "_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4, "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 768,
    "attention_head_dim": 8, "norm_num_groups": 32, "norm_eps": 1e-5, "act_fn": "silu", "center_input_sample": False,
    "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "mid_block_scale_factor": 1,
}  # fmt: skip
SD15_VAE = {
    "_class_name": "AutoencoderKL", "sample_size": 512, "in_channels": 3, "out_channels": 3, "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "act_fn": "silu",
    "scaling_factor": 0.18215,
}  # fmt: skip
SCHEDULER_CLASS = "DDIMScheduler"
SCHEDULER = {
    "_class_name": SCHEDULER_CLASS, "num_train_timesteps": 1000, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "beta_end": 0.012, "trained_betas": None, "prediction_type": "epsilon",
    "timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False,
    "thresholding": False, "rescale_betas_zero_snr": False,
}  # fmt: skip

# The same structure, small: heads differ from head widths, levels from one another, groups hold two channels or more.
TINY_TEXT_ENCODER = {
    **SD15_TEXT_ENCODER, "hidden_size": 24, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "projection_dim": 24, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
}  # fmt: skip
TINY_UNET = {
    **SD15_UNET, "sample_size": 16, "block_out_channels": [16, 32, 48], "cross_attention_dim": 24,
    "attention_head_dim": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"], "norm_num_groups": 8,
}  # fmt: skip
TINY_VAE = {
    **SD15_VAE, "sample_size": 64, "block_out_channels": [16, 24, 32], "norm_num_groups": 8,
    "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
}  # fmt: skip

# kind -> component -> config.json; the scheduler is the same for both
KINDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "sd15": {"text_encoder": SD15_TEXT_ENCODER, "unet": SD15_UNET, "vae": SD15_VAE},
    "tiny": {"text_encoder": TINY_TEXT_ENCODER, "unet": TINY_UNET, "vae": TINY_VAE},
}
