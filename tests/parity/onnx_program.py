"""Stable Diffusion in ONNX Runtime: diffusers' networks exported, and a program over the files that knows nothing of refdiff."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from diffusers import StableDiffusionPipeline

FILES = {"unet": "unet.onnx", "text_encoder": "text_encoder.onnx", "vae": "vae_decoder.onnx"}


def export(pipe: StableDiffusionPipeline, folder: Path, size: tuple[int, int], *, dynamo: bool) -> None:
    """Write the networks as ONNX, for one picture of that size with guidance."""
    latents, width = (pipe.unet.config.in_channels, *size), pipe.unet.config.cross_attention_dim
    text = torch.zeros(2, 77, width)
    given: dict[str, tuple[Any, tuple, list[str]]] = {
        "unet": (pipe.unet, (torch.zeros(2, *latents), torch.tensor(5), text), ["sample", "timestep", "encoder_hidden_states"]),
        "text_encoder": (pipe.text_encoder, (torch.zeros(1, 77, dtype=torch.int64),), ["input_ids"]),
        "vae": (pipe.vae, (torch.zeros(1, *latents),), ["latent_sample"]),
    }
    pipe.vae.forward = pipe.vae.decode
    for name, (model, inputs, names) in given.items():
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, inputs, str(folder / FILES[name]), input_names=names, dynamo=dynamo)


class Program:
    """A port: three sessions, and a loop."""

    def __init__(self, folder: Path, pipe: StableDiffusionPipeline) -> None:
        self.tokenizer, self.scheduler, self.scaling = pipe.tokenizer, pipe.scheduler, pipe.vae.config.scaling_factor
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # more of them wait in loops, and slow each other down
        self.sessions = {name: onnxruntime.InferenceSession(folder / file, options) for name, file in FILES.items()}

    def encoded(self, text: str) -> np.ndarray:
        """The text's context."""
        asked = {"padding": "max_length", "max_length": 77, "truncation": True, "return_tensors": "np"}
        ids = self.tokenizer(text, **asked).input_ids.astype(np.int64)
        session = self.sessions["text_encoder"]
        return session.run([session.get_outputs()[0].name], {"input_ids": ids})[0]

    def draw(self, noise: np.ndarray, prompt: str, negative_prompt: str, *, steps: int, guidance: float) -> np.ndarray:
        """A picture [1,3,H,W], by the scheduler's steps without noise."""
        context = np.concatenate([self.encoded(prompt), self.encoded(negative_prompt)][::-1])
        self.scheduler.set_timesteps(steps)
        x = torch.from_numpy(noise.astype(np.float32)) * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            both = np.concatenate([self.scheduler.scale_model_input(x, t).numpy()] * 2)
            feed = {"sample": both, "timestep": np.array(t), "encoder_hidden_states": context}
            unconditional, conditional = np.split(self.sessions["unet"].run(None, feed)[0], 2)
            guided = unconditional + np.float32(guidance) * (conditional - unconditional)
            x = self.scheduler.step(torch.from_numpy(guided), t, x).prev_sample
        return self.sessions["vae"].run(None, {"latent_sample": x.numpy() / np.float32(self.scaling)})[0]
