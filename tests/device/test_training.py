"""Training on the simulated device: the host's numbers; only the batch goes over and only the loss comes back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refdiff.core.params import flatten
from refdiff.models import clip_text, unet
from refdiff.training.data import ShapesSet
from refdiff.training.loop import State, step_random, train
from refdiff.training.losses import diffusion_loss
from refdiff.training.optimizer import OptimizerSettings
from refdiff.training.vae_task import VAETask
from refdiff.xp import Array, like, to_host
from tests.device.simulated import SimulatedArray, count_transfers
from tests.device.tiny import TEXT, UNET, VAE, parameters

SETTINGS = OptimizerSettings(
    learning_rate=1e-3, warmup_steps=2, decay_from=0.5, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.01,
    clip_norm=1.0, ema_decay=0.99,
)  # fmt: skip
STEPS = 3


class DiffusionTask:
    """The U-Net and the text encoder together, on noise."""

    def initial(self) -> dict[str, np.ndarray]:
        """Random weights."""
        networks = {"unet": unet.declare(UNET), "text_encoder": clip_text.declare(TEXT)}
        return {f"{name}.{k}": v for name, d in networks.items() for k, v in flatten(parameters(d, seed=2)).items()}

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Latents, noise, times and words."""
        rng = step_random(0, step)
        latents, noise = (rng.standard_normal((4, 4, 4, 6), dtype=np.float32) for _ in range(2))
        ids = rng.integers(50, size=(4, 7))
        return {
            "x0": latents,
            "noise": noise,
            "t": rng.integers(1000, size=4),
            "ids": ids,
            "weight": np.ones(4, np.float32),
        }

    def loss(self, params: Any, batch: Mapping[str, Array]) -> Any:
        """The loss of a batch."""
        return diffusion_loss(
            params, UNET, TEXT, batch["x0"], batch["noise"], batch["t"], batch["ids"],
            alphas_cumprod=like(np.linspace(0.99, 0.01, 1000, dtype=np.float32), batch["x0"]),
            prediction_type="v_prediction", sample_weight=batch["weight"],
        )  # fmt: skip


VAE_TASK = VAETask(
    config=VAE, pictures=ShapesSet(seed=0, two_share=0.5, split="train"), start=None, seed=0, crop=8, crop_batch=4,
    whole_batch=2, whole_from=STEPS, mse_weight=4.0, kl_weight=1e-4, thing_weight=4.0,
)  # fmt: skip
TASKS = {"vae": VAE_TASK, "unet and text": DiffusionTask()}


def run(task: Any, folder: Path, device: str) -> State:
    *_, last = train(task, SETTINGS, steps=STEPS, folder=folder, device=device, save_seconds=1e9)
    return last


@pytest.mark.parametrize("name", TASKS)
def test_trains_to_the_same_numbers(name, tmp_path):
    host = run(TASKS[name], tmp_path / "host", "cpu")
    device = run(TASKS[name], tmp_path / "device", "simulated")
    assert len(device.losses) == STEPS
    np.testing.assert_allclose(device.losses, host.losses, rtol=1e-6)
    for part in ("vector", "m", "v", "average"):
        assert type(getattr(device, part)) is SimulatedArray
        np.testing.assert_allclose(to_host(getattr(device, part)), getattr(host, part), rtol=1e-3, atol=1e-5)


def test_only_the_batch_goes_over_and_only_the_loss_comes_back(tmp_path):
    states = train(VAE_TASK, SETTINGS, steps=STEPS, folder=tmp_path, device="simulated", save_seconds=1e9)
    next(states)
    with count_transfers() as crossed:
        next(states)
    assert (crossed.to_device, crossed.to_host) == (len(VAE_TASK.batch(1)), 1), crossed.events


def test_a_run_on_the_device_resumes_on_the_host(tmp_path):
    states = train(VAE_TASK, SETTINGS, steps=STEPS, folder=tmp_path / "cut", device="simulated", save_seconds=0)
    next(states)
    states.close()
    resumed = run(VAE_TASK, tmp_path / "cut", "cpu")
    whole = run(VAE_TASK, tmp_path / "whole", "cpu")
    np.testing.assert_allclose(resumed.losses, whole.losses, rtol=1e-5)
