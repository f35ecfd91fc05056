"""A prompt to a picture by diffusers on PyTorch, from the start of the process: what `refdiff generate` is measured beside."""

from __future__ import annotations

import sys
from pathlib import Path

import diffusers
import torch


def main() -> None:
    """Arguments: prompt, model, steps, size, where the picture goes."""
    prompt, model, steps, size, out = sys.argv[1:]
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(Path(model), torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    side = int(size)
    pipe(prompt, num_inference_steps=int(steps), width=side, height=side, generator=generator).images[0].save(out)


if __name__ == "__main__":
    main()
