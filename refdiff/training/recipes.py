"""How the embedded model is made: sizes and settings, each with the number of steps as its only freedom."""

from __future__ import annotations

from typing import Any

from refdiff.models.clip_text import CLIPTextConfig
from refdiff.models.unet import UNetConfig
from refdiff.models.vae import VAEConfig
from refdiff.training.optimizer import OptimizerSettings

VAE = VAEConfig(
    in_channels=3, out_channels=3, block_out_channels=(16, 32, 64), layers_per_block=1, latent_channels=4,
    norm_num_groups=8, scaling_factor=1.0, sample_size=64,
)  # fmt: skip
VAE_BATCH: dict[str, Any] = {"crop": 32, "crop_batch": 32, "whole_batch": 16}
VAE_LOSS: dict[str, Any] = {"mse_weight": 4.0, "kl_weight": 1e-4, "thing_weight": 4.0}
VAE_WHOLE_FROM = 0.8  # the share of the steps after which whole pictures follow crops
VAE_OPTIMIZER = OptimizerSettings(
    learning_rate=2e-3, warmup_steps=50, decay_from=0.3, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0,
    clip_norm=1.0, ema_decay=0.995,
)  # fmt: skip
DECODER: dict[str, Any] = {"batch_size": 16, "mse_weight": 4.0, "thing_weight": 8.0}  # afterwards, the encoder as it is
DECODER_OPTIMIZER = OptimizerSettings(
    learning_rate=1e-3, warmup_steps=50, decay_from=0.3, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0,
    clip_norm=1.0, ema_decay=0.995,
)  # fmt: skip
DECODER_TWO_SHARE = 0.8

PROMPT_TOKENS = 24  # the longest prompt, its two end marks included


def text_config(vocabulary: int) -> CLIPTextConfig:
    """The text encoder for a vocabulary of that size."""
    return CLIPTextConfig(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=PROMPT_TOKENS, layer_norm_eps=1e-5, hidden_act="quick_gelu", eos_token_id=vocabulary - 1,
    )  # fmt: skip


UNET = UNetConfig(
    in_channels=4, out_channels=4, block_out_channels=(32, 64, 128),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1, attention_head_dim=4, cross_attention_dim=128, norm_num_groups=8, norm_eps=1e-5,
    flip_sin_to_cos=True, freq_shift=0, sample_size=16,
)  # fmt: skip
PREDICTION_TYPE = "v_prediction"
BETAS: dict[str, Any] = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000}
UNET_BATCH: dict[str, Any] = {
    "batch_size": 32, "drop_caption": 0.1, "thing_weight": 5.0,
    "time_quantiles": ((0.0, 0.05, 0.6, 0.9, 1.0), (0.0, 60.0, 400.0, 700.0, 1000.0)), "snr_cap": 5.0, "least_weight": 0.1,
}  # fmt: skip
UNET_PLAIN_FROM = 0.8  # the share of the steps after which the loss counts all pixels alike
UNET_OPTIMIZER = OptimizerSettings(
    learning_rate=1e-3, warmup_steps=100, decay_from=0.5, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0,
    clip_norm=1.0, ema_decay=0.999,
)  # fmt: skip
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler", **BETAS, "clip_sample": False, "set_alpha_to_one": True, "steps_offset": 1,
    "prediction_type": PREDICTION_TYPE, "timestep_spacing": "trailing",
}  # fmt: skip
LATENT_COUNT = 40000  # pictures encoded for the U-Net
VAE_TWO_SHARE, TWO_SHARE = 0.5, 0.7  # of the pictures that the autoencoder and the U-Net see hold two things
# For drawing with it.
DEFAULTS = {"steps": 20, "guidance": 3.0, "eta": 1.0, "example": "a large red circle on a yellow background"}
