"""Pictures with captions for training: the built-in set and a folder of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from refdiff.training import shapes


class Pictures(Protocol):
    """Where training takes its pictures from."""

    def batch(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """`count` random pictures [B,3,H,W] in [-1,1], where their things are [B,H,W] bool, and the captions."""
        ...


@dataclass(frozen=True)
class ShapesSet:
    """The built-in set: an endless supply of scenes, numbered by random 62-bit integers."""

    seed: int
    two_share: float
    split: str

    def batch(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """`count` random pictures [B,3,64,64] in [-1,1], where their things are [B,64,64] bool, and the captions."""
        return self.scenes([int(i) for i in rng.integers(1 << 62, size=count)])

    def scenes(self, indices: list[int]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """The scenes of those numbers, as `batch` gives them."""
        scenes = [shapes.scene(self.seed, index, two_share=self.two_share, split=self.split) for index in indices]
        images = to_model([shapes.render(scene) for scene in scenes])
        return images, np.stack([shapes.foreground(scene) for scene in scenes]), [scene.caption for scene in scenes]


def to_model(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures as the networks take them.  Shapes: B times [H,W,3] uint8 -> [B,3,H,W] float32 in [-1,1]"""
    return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1.0)
