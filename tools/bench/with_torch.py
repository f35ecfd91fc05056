"""PyTorch's side: diffusers' models, eager, as from_pretrained gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import torch

from tools.bench.inputs import TIME, unet_inputs, vae_inputs

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def prepare(work: str, model: Path, size: int, dtype: str) -> Callable[[], np.ndarray]:
    """A function that does the work once."""
    kind = KINDS[dtype]
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
