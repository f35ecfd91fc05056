"""Training on the simulated device: the host's numbers; only the batch goes over and only the loss comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refdiff.core.params import flatten
from refdiff.models import clip_text, unet
from refdiff.models.clip_text import CLIPTextConfig
from refdiff.models.unet import UNetConfig
from refdiff.models.vae import VAEConfig
from refdiff.training.data import ShapesSet
from refdiff.training.loop import State, train
from refdiff.training.optimizer import OptimizerSettings
from refdiff.training.unet_task import LatentSet, UNetTask
from refdiff.training.vae_task import VAETask
from refdiff.xp import to_host
from tests.device.simulated import SimulatedArray, count_transfers
from tests.models.examples import CLIPS, UNETS, VAES, normal, random_params

TEXT = CLIPTextConfig.from_dict(CLIPS["quick gelu"])
UNET = UNetConfig.from_dict({**UNETS["two levels"], "layers_per_block": 1, "cross_attention_dim": TEXT.hidden_size})
VAE = VAEConfig.from_dict(VAES["two levels"])
SETTINGS = OptimizerSettings(
    learning_rate=1e-3, warmup_steps=2, decay_from=0.5, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.01,
    clip_norm=1.0, ema_decay=0.99,
)  # fmt: skip
STEPS = 3

VAE_TASK = VAETask(
    config=VAE, pictures=ShapesSet(seed=0, two_share=0.5, split="train"), start=None, seed=0, crop=8, crop_batch=4,
    whole_batch=2, whole_from=STEPS, mse_weight=4.0, kl_weight=1e-4, thing_weight=4.0,
)  # fmt: skip
NETWORKS = {"unet": unet.declare(UNET), "text_encoder": clip_text.declare(TEXT)}
IDS = np.random.default_rng(0).integers(50, size=(6, 7))
UNET_TASK = UNetTask(
    config=UNET, text_config=TEXT,
    data=LatentSet(normal(6, 4, 4, 6), np.abs(normal(6, 4, 6)), IDS, np.full(7, 49)),
    alphas_cumprod=np.linspace(0.99, 0.01, 1000, dtype=np.float32), seed=0,
    start=flatten(random_params(NETWORKS, np.float32)), batch_size=4, prediction_type="v_prediction", drop_caption=0.25,
    time_quantiles=((0.0, 0.5, 1.0), (0.0, 700.0, 1000.0)), thing_weight=3.0, plain_from=STEPS, snr_cap=5.0, least_weight=0.1,
)  # fmt: skip
TASKS = {"vae": VAE_TASK, "unet and text": UNET_TASK}


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


@pytest.mark.parametrize(("name", "tables"), [("vae", 0), ("unet and text", 2)])  # the schedule's, for each half batch
def test_only_the_batch_goes_over_and_only_the_loss_comes_back(name, tables, tmp_path):
    states = train(TASKS[name], SETTINGS, steps=STEPS, folder=tmp_path, device="simulated", save_seconds=1e9)
    next(states)
    with count_transfers() as crossed:
        next(states)
    assert (crossed.to_device, crossed.to_host) == (len(TASKS[name].batch(1)) + tables, 1), crossed.events


def test_a_run_on_the_device_resumes_on_the_host(tmp_path):
    states = train(VAE_TASK, SETTINGS, steps=STEPS, folder=tmp_path / "cut", device="simulated", save_seconds=0)
    next(states)
    states.close()
    resumed = run(VAE_TASK, tmp_path / "cut", "cpu")
    whole = run(VAE_TASK, tmp_path / "whole", "cpu")
    np.testing.assert_allclose(resumed.losses, whole.losses, rtol=1e-5)
