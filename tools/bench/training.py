"""What every program trains: the embedded U-Net and its text encoder, as `refdiff train unet` does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from refdiff.checkpoints import open_component
from refdiff.core.params import flatten
from refdiff.diffusion.schedule import alphas_cumprod
from refdiff.training import recipes
from refdiff.training.unet_task import LatentSet, UNetTask

SETTINGS = recipes.UNET_OPTIMIZER
STEPS = 10000  # of the run whose first steps are measured
COUNT = 512  # pictures


def unet_task(model: Path, batch_size: int) -> UNetTask:
    """The task with the model's own weights, on random latents and captions."""
    config, unet = open_component(model, "unet")
    text_config, text = open_component(model, "text_encoder")
    start = {f"unet.{key}": np.asarray(value, np.float32) for key, value in flatten(unet).items()}
    start.update({f"text_encoder.{key}": np.asarray(value, np.float32) for key, value in flatten(text).items()})
    rng = np.random.default_rng(2)
    side, tokens = config.sample_size, text_config.max_position_embeddings
    ids = rng.integers(text_config.eos_token_id, size=(COUNT, tokens))
    ids[:, -1] = text_config.eos_token_id
    data = LatentSet(
        latents=rng.standard_normal((COUNT, config.in_channels, side, side), dtype=np.float32),
        things=rng.random((COUNT, side, side), dtype=np.float32),
        ids=ids,
        empty=np.full(tokens, text_config.eos_token_id),
    )
    betas = recipes.BETAS
    alphas = alphas_cumprod(
        schedule=betas["beta_schedule"], beta_start=betas["beta_start"], beta_end=betas["beta_end"],
        count=betas["num_train_timesteps"], table="float32-torch",
    )  # fmt: skip
    return UNetTask(
        config, text_config, data, alphas, start, 0,
        prediction_type=recipes.PREDICTION_TYPE, plain_from=STEPS, **{**recipes.UNET_BATCH, "batch_size": batch_size},
    )  # fmt: skip
