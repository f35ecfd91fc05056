"""PyTorch's side: diffusers' models, eager, as from_pretrained gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers

from refdiff.training.losses import noised
from refdiff.training.optimizer import ema_share, learning_rate
from tools.bench.inputs import TIME, unet_inputs, vae_inputs
from tools.bench.training import SETTINGS, STEPS, unet_task

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def prepare(work: str, model: Path, size: int, dtype: str) -> Callable[[], np.ndarray]:
    """A function that does the work once."""
    kind = KINDS[dtype]
    if work == "train":
        return training(model, size)
    if work == "vae":
        network = diffusers.AutoencoderKL.from_pretrained(model / "vae", torch_dtype=kind)
        latents = torch.from_numpy(vae_inputs(size)).to(kind)

        def decode() -> np.ndarray:
            with torch.inference_mode():
                return network.decode(latents).sample.float().numpy()

        return decode
    network = diffusers.UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=kind)
    latents, context = (torch.from_numpy(a).to(kind) for a in unet_inputs(size))

    def step() -> np.ndarray:
        with torch.inference_mode():
            return network(latents, TIME, encoder_hidden_states=context).sample.float().numpy()

    return step


def training(model: Path, batch_size: int) -> Callable[[], np.ndarray]:
    """A function that makes the next step, as refdiff does it, with autograd and AdamW, and gives the losses so far."""
    task = unet_task(model, batch_size)
    network = diffusers.UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32).train()
    text = transformers.CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32).train()
    weights = [*network.parameters(), *text.parameters()]
    average = [w.detach().clone() for w in weights]
    betas = (SETTINGS.beta1, SETTINGS.beta2)
    optimizer = torch.optim.AdamW(weights, lr=1.0, betas=betas, eps=SETTINGS.eps, weight_decay=SETTINGS.weight_decay)
    losses: list[float] = []

    def step() -> np.ndarray:
        count = len(losses) + 1
        batch = task.batch(count)
        noisy, target = noised(batch["x0"], batch["noise"], task.alphas_cumprod[batch["t"]], prediction_type=task.prediction_type)
        noisy, target, t, ids, weight = (torch.from_numpy(a) for a in (noisy, target, batch["t"], batch["ids"], batch["weight"]))
        prediction = network(noisy, t, encoder_hidden_states=text(ids).last_hidden_state).sample
        loss = ((prediction - target) ** 2 * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, SETTINGS.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(count, STEPS, SETTINGS)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, ema_share(count, decay=SETTINGS.ema_decay))
        losses.append(loss.item())
        return np.array(losses)

    return step
