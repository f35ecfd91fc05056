"""Training the autoencoder: reconstruct pictures, with more weight on the things in them than on the background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.core.params import tree
from refdiff.models import vae
from refdiff.models.vae import VAEConfig
from refdiff.training.data import Pictures
from refdiff.training.initial import initial_values
from refdiff.training.loop import step_random
from refdiff.training.losses import pixel_loss, vae_loss
from refdiff.xp import Array, like

DECODER = ("decoder.", "post_quant_conv.")  # what the names of its parameters begin with


@dataclass(frozen=True)
class VAETask:
    """Crops of `crop` pixels around the things until `whole_from`, then whole pictures.

    Source: the loss as in Rombach et al. 2022 (arXiv 2112.10752), section 3.1, without its adversary
    """

    config: VAEConfig
    pictures: Pictures
    start: Mapping[str, np.ndarray] | None
    seed: int
    crop: int
    crop_batch: int
    whole_batch: int
    whole_from: int
    mse_weight: float
    kl_weight: float
    thing_weight: float

    def initial(self) -> dict[str, np.ndarray]:
        """The weights of another run if there are any, else random ones."""
        return dict(self.start) if self.start is not None else initial_values(vae.declare(self.config), seed=self.seed)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Pictures, the weight of each pixel, and the noise of the posterior's sample."""
        rng = step_random(self.seed, step)
        whole = step > self.whole_from
        count = self.whole_batch if whole else self.crop_batch
        images, things, _ = self.pictures.batch(rng, count)
        if not whole:
            images, things = _crops(rng, images, things, self.crop)
        small = (count, self.config.latent_channels, *(n // self.config.downscale for n in images.shape[2:]))
        weight = np.where(things, self.thing_weight, 1.0).astype(np.float32)
        noise = rng.standard_normal(small, dtype=np.float32)
        return {"images": images, "pixel_weight": weight[:, None], "noise": noise}

    def loss(self, params: Any, batch: Mapping[str, Array]) -> Any:
        """The loss of a batch.  Shapes: -> []"""
        return vae_loss(
            params, self.config, batch["images"], batch["noise"], batch["pixel_weight"],
            mse_weight=self.mse_weight, kl_weight=self.kl_weight,
        )  # fmt: skip


@dataclass(frozen=True)
class DecoderTask:
    """The decoder alone, on the latents that the encoder of `start` gives whole pictures: their posterior's means.

    What is trained on these latents stays right, for the encoder is left as it is.
    """

    config: VAEConfig
    pictures: Pictures
    start: Mapping[str, np.ndarray]
    seed: int
    batch_size: int
    mse_weight: float
    thing_weight: float

    def initial(self) -> dict[str, np.ndarray]:
        """The decoder's weights of `start`."""
        return {key: value for key, value in self.start.items() if key.startswith(DECODER)}

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Pictures, and the weight of each pixel."""
        images, things, _ = self.pictures.batch(step_random(self.seed, step), self.batch_size)
        weight = np.where(things, self.thing_weight, 1.0).astype(np.float32)
        return {"images": images, "pixel_weight": weight[:, None]}

    def loss(self, params: Any, batch: Mapping[str, Array]) -> Any:
        """The loss of a batch.  Shapes: -> []"""
        images = batch["images"]
        encoder = {key: like(value, images) for key, value in self.start.items() if not key.startswith(DECODER)}
        latents, _ = vae.encode(tree(encoder), self.config, images)
        pictures = vae.decode(params, self.config, latents)
        return pixel_loss(pictures, images, batch["pixel_weight"], mse_weight=self.mse_weight)


def _crops(rng: np.random.Generator, images: np.ndarray, things: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A square of each picture around one pixel of its things.  Shapes: [B,3,H,W], [B,H,W] -> [B,3,size,size], [B,size,size]"""
    rows, columns = images.shape[2:]
    cut_images, cut_things = [], []
    for image, thing in zip(images, things, strict=True):
        places = np.argwhere(thing)
        row, column = places[rng.integers(len(places))] if len(places) else (rows // 2, columns // 2)
        top = int(np.clip(row - size // 2 + rng.integers(-size // 4, size // 4 + 1), 0, rows - size))
        left = int(np.clip(column - size // 2 + rng.integers(-size // 4, size // 4 + 1), 0, columns - size))
        cut_images.append(image[:, top : top + size, left : left + size])
        cut_things.append(thing[top : top + size, left : left + size])
    return np.stack(cut_images), np.stack(cut_things)
