"""Trainings of a second for tests: tiny networks, tiny pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refdiff.models import vae
from refdiff.models.clip_text import CLIPTextConfig
from refdiff.models.unet import UNetConfig
from refdiff.models.vae import VAEConfig
from refdiff.training.initial import initial_values
from refdiff.training.loop import State, train
from refdiff.training.optimizer import OptimizerSettings
from refdiff.training.unet_task import LatentSet, UNetTask
from refdiff.training.vae_task import DecoderTask, VAETask
from tests.models.examples import CLIPS, UNETS, VAES, normal

SETTINGS = OptimizerSettings(
    learning_rate=3e-3, warmup_steps=2, decay_from=0.5, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.01,
    clip_norm=1.0, ema_decay=0.99,
)  # fmt: skip
VAE = VAEConfig.from_dict({**VAES["two levels"], "block_out_channels": [4, 8], "norm_num_groups": 2, "sample_size": 8})
TEXT = CLIPTextConfig.from_dict({**CLIPS["quick gelu"], "num_hidden_layers": 1})
UNET = UNetConfig.from_dict({**UNETS["two levels"], "layers_per_block": 1, "cross_attention_dim": TEXT.hidden_size})
PARTS = ("vector", "m", "v", "average")


class Blocks:
    """Pictures for training without drawing: 16x16, a block of one colour on a grey ground."""

    def batch(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """As the built-in set's."""
        images = np.full((count, 3, 16, 16), 0.3, dtype=np.float32)
        things = np.zeros((count, 16, 16), dtype=bool)
        captions = []
        for image, thing in zip(images, things, strict=True):
            top, left, colour = rng.integers(8), rng.integers(8), rng.integers(3)
            thing[top : top + 6, left : left + 6] = True
            image[:, thing] = -0.8
            image[colour, thing] = 0.9
            captions.append(f"a {'red green blue'.split()[colour]} square")
        return images, things, captions

    def words(self) -> list[str]:
        """As the built-in set's."""
        return "a square red green blue".split()


VAE_TASK = VAETask(
    config=VAE, pictures=Blocks(), start=None, seed=7, crop=8, crop_batch=4, whole_batch=3, whole_from=3,
    mse_weight=4.0, kl_weight=1e-4, thing_weight=4.0,
)  # fmt: skip

DECODER_TASK = DecoderTask(
    config=VAE, pictures=Blocks(), start=initial_values(vae.declare(VAE), seed=3), seed=7, batch_size=3, mse_weight=4.0,
    thing_weight=4.0,
)  # fmt: skip

COUNT, TOKENS = 6, 7
LATENTS = LatentSet(
    latents=normal(COUNT, 4, 4, 6), things=np.abs(np.tanh(normal(COUNT, 4, 6, seed=2))),
    ids=np.arange(COUNT)[:, None] * TOKENS + np.arange(TOKENS), empty=np.full(TOKENS, 49),
)  # fmt: skip
UNET_TASK = UNetTask(
    config=UNET, text_config=TEXT, data=LATENTS, alphas_cumprod=np.linspace(0.99, 0.01, 1000, dtype=np.float32),
    start=None, seed=7, batch_size=5, prediction_type="v_prediction", drop_caption=0.25,
    time_quantiles=((0.0, 0.2, 0.9, 1.0), (0.0, 100.0, 700.0, 1000.0)), thing_weight=3.0, plain_from=4,
    snr_cap=5.0, least_weight=1.0,
)  # fmt: skip
TASKS: dict[str, Any] = {"vae": VAE_TASK, "decoder": DECODER_TASK, "unet and text": UNET_TASK}


def go_on(task: Any, folder: Path, *, steps: int, save_seconds: float, settings: OptimizerSettings = SETTINGS) -> Iterator[State]:
    """The states of a training on the CPU."""
    return train(task, settings, steps=steps, folder=folder, device="cpu", save_seconds=save_seconds)


def last(task: Any, folder: Path, *, steps: int) -> State:
    """The state at the end of a training that is not stopped (again)."""
    *_, state = go_on(task, folder, steps=steps, save_seconds=1e9)
    return state


def same_bits(state: State, other: State) -> None:
    """Fail unless two states are one and the same."""
    assert (state.step, state.losses) == (other.step, other.losses)
    for part in PARTS:
        a, b = getattr(state, part), getattr(other, part)
        assert a.dtype == b.dtype == np.float32
        assert a.tobytes() == b.tobytes(), f"{part} differs by up to {np.abs(a - b).max()}"


def with_start(task: Any, start: Mapping[str, np.ndarray]) -> Any:
    """The same task from given weights."""
    return replace(task, start=start)
