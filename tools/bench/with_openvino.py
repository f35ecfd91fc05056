"""OpenVINO's side: diffusers' models, converted and compiled for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import openvino
import torch

from tools.bench.inputs import TIME, unet_inputs, vae_inputs

PRECISION = {"float32": "f32", "bfloat16": "bf16"}


class Step(torch.nn.Module):
    """A U-Net that returns a tensor."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, latents: torch.Tensor, time: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Shapes: [B,4,h,w], [], [B,77,768] -> [B,4,h,w]"""
        return self.network(latents, time, encoder_hidden_states=context, return_dict=False)[0]


class Decode(torch.nn.Module):
    """A decoder that returns a tensor."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Shapes: [B,4,h,w] -> [B,3,8h,8w]"""
        return self.network.decode(latents, return_dict=False)[0]


def prepare(work: str, model: Path, size: int, dtype: str) -> Callable[[], np.ndarray]:
    """A function that does the work once."""
    if work == "vae":
        module: torch.nn.Module = Decode(diffusers.AutoencoderKL.from_pretrained(model / "vae"))
        inputs: tuple = (vae_inputs(size),)
    else:
        module = Step(diffusers.UNet2DConditionModel.from_pretrained(model / "unet"))
        latents, context = unet_inputs(size)
        inputs = (latents, np.array(TIME), context)
    with torch.inference_mode():
        converted = openvino.convert_model(module, example_input=tuple(torch.from_numpy(np.asarray(a)) for a in inputs))
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": PRECISION[dtype]})
    return lambda: compiled(inputs)[0]
