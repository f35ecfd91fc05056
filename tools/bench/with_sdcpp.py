"""stable-diffusion.cpp's side, by its Python package: a whole picture of one guided step, of which it tells the step's seconds.

The weights are what its file has, so it is given the folder in float16; the picture cannot be compared, for it begins with noise
of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from stable_diffusion_cpp import StableDiffusion

GUIDANCE = 7.5


def prepare(work: str, model: Path, size: int, dtype: str) -> Callable[[], tuple[np.ndarray, float]]:
    """A function that does the work once, and tells the seconds of the part that counts.

    Raises: ValueError for anything but the U-Net, whose seconds alone it tells
    """
    if work != "unet":
        raise ValueError("stable-diffusion.cpp tells the seconds of the U-Net alone")
    pipeline = StableDiffusion(model_path=str(model), n_threads=os.cpu_count() or 1, verbose=False)

    def draw() -> tuple[np.ndarray, float]:
        told: list[float] = []
        picture = pipeline.generate_image(
            prompt="a photograph of an astronaut riding a horse", width=size, height=size, cfg_scale=GUIDANCE, sample_steps=1,
            sample_method="euler", progress_callback=lambda step, steps, seconds: told.append(seconds),
        )[0]  # fmt: skip
        return np.asarray(picture), told[-1]

    return draw
