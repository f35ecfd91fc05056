"""The inputs of every program, the same numbers for each."""

from __future__ import annotations

import numpy as np

TIME = 501
TOKENS, WIDTH = 77, 768  # of Stable Diffusion 1.x


def unet_inputs(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The latents and the context of one guided step.  Shapes: [2,4,size/8,size/8], [2,77,768]"""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((1, 4, size // 8, size // 8))
    return np.repeat(latents, 2, axis=0).astype(np.float32), rng.standard_normal((2, TOKENS, WIDTH)).astype(np.float32)


def vae_inputs(size: int) -> np.ndarray:
    """Latents to decode.  Shapes: [1,4,size/8,size/8]"""
    return np.random.default_rng(1).standard_normal((1, 4, size // 8, size // 8)).astype(np.float32)
