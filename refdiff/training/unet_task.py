"""Training the U-Net and its text encoder together, on latents that the autoencoder made beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from refdiff.core.params import Params
from refdiff.core.threads import shared_by
from refdiff.models import clip_text, unet, vae
from refdiff.models.clip_text import CLIPTextConfig
from refdiff.models.unet import UNetConfig
from refdiff.models.vae import VAEConfig
from refdiff.training.initial import initial_values
from refdiff.training.loop import step_random
from refdiff.training.losses import diffusion_loss, noised
from refdiff.xp import Array, like


@dataclass(frozen=True)
class LatentSet:
    """Pictures as the U-Net sees them: latents [N,C,h,w] of deviation 1, how much of each latent pixel its things cover
    [N,h,w], token ids [N,T], and the ids of no text [T].
    """

    latents: np.ndarray
    things: np.ndarray
    ids: np.ndarray
    empty: np.ndarray


@dataclass(frozen=True)
class UNetTask:
    """Predict what was asked for in a noisy latent at a random time, given its caption or, for a share of them, none.

    Source: Ho, Jain, Abbeel 2020 (arXiv 2006.11239), algorithm 1; Ho, Salimans 2022 (arXiv 2207.12598), algorithm 1, for the
    captions left out; Rombach et al. 2022 (arXiv 2112.10752), section 3.3, for the text encoder trained with it
    """

    config: UNetConfig
    text_config: CLIPTextConfig
    data: LatentSet
    alphas_cumprod: np.ndarray
    start: Mapping[str, np.ndarray] | None
    seed: int
    batch_size: int
    prediction_type: str
    drop_caption: float
    time_quantiles: tuple[tuple[float, ...], tuple[float, ...]]
    thing_weight: float
    plain_from: int
    snr_cap: float
    least_weight: float

    def initial(self) -> dict[str, np.ndarray]:
        """The weights of another run if there are any, else random ones; the last layer of each branch then starts at zero."""
        if self.start is not None:
            return dict(self.start)
        declared = {"unet": unet.declare(self.config), "text_encoder": clip_text.declare(self.text_config)}
        values = initial_values(declared, seed=self.seed)
        return {key: value * 0 if key.endswith(ZERO_AT_START) else value for key, value in values.items()}

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Latents, noise, times and token ids of one step; the times are spread over the batch.

        `time_quantiles` holds shares of the batch and the times below which they lie, both rising. The loss counts a thing's
        pixels `thing_weight` times, so that shapes are learnt early; from step `plain_from` it counts all alike, for with
        weights its minimum is not the mean of the pictures that a noisy one may have been. Times count as `time_weight` says.
        """
        rng = step_random(self.seed, step)
        thing_weight = self.thing_weight if step < self.plain_from else 1.0
        chosen = rng.integers(len(self.data.latents), size=self.batch_size)
        spread = rng.permutation(self.batch_size) + rng.random(self.batch_size)
        t = np.interp(spread / self.batch_size, *self.time_quantiles).astype(np.int64)
        dropped = rng.random(self.batch_size) < self.drop_caption
        t = np.minimum(t, len(self.alphas_cumprod) - 1)
        x0 = self.data.latents[chosen]
        return {
            "x0": x0,
            "noise": rng.standard_normal(x0.shape, dtype=np.float32),
            "t": t,
            "ids": np.where(dropped[:, None], self.data.empty, self.data.ids[chosen]),
            "weight": (self.time_weight(t) * (1.0 + (thing_weight - 1.0) * self.data.things[chosen, None])).astype(np.float32),
        }

    def time_weight(self, t: np.ndarray) -> np.ndarray:
        """How much a time counts: little where there is so much noise that most of the error cannot be avoided.

        Math: max(min(snr, snr_cap) / (snr + 1), least_weight), of an error in v: snr + 1 is what it weighs the one in x0 by
        Shapes: [B] -> [B,1,1,1]
        Source: Hang et al. 2023 (arXiv 2303.09556), equation 9, which has no least weight
        """
        alphas = self.alphas_cumprod[t].astype(np.float64)
        snr = alphas / (1.0 - alphas)
        return np.maximum(np.minimum(snr, self.snr_cap) / (snr + 1.0), self.least_weight)[:, None, None, None]

    def loss(self, params: Any, batch: Mapping[str, Array]) -> Any:
        """The loss of a batch.  Shapes: -> []"""
        alphas = like(self.alphas_cumprod, batch["x0"])[batch["t"]]
        noisy, target = noised(batch["x0"], batch["noise"], alphas, prediction_type=self.prediction_type)
        return diffusion_loss(params, self.config, self.text_config, noisy, target, batch["t"], batch["ids"], batch["weight"])


# As zero_module in the CompVis code: every residual branch begins as nothing, and the network's output as zero.
ZERO_AT_START = (
    "conv2.weight",
    "conv2.bias",
    "proj_out.weight",
    "proj_out.bias",
    "unet.conv_out.weight",
    "unet.conv_out.bias",
)


def encode_pictures(params: Params, config: VAEConfig, images: np.ndarray, *, batch_size: int) -> np.ndarray:
    """The posterior means of pictures, not yet scaled, two batches at a time.  Shapes: [N,3,H,W] -> [N,L,h,w]"""
    batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]

    def encoded(batch: np.ndarray) -> np.ndarray:
        with shared_by(2):
            return np.ascontiguousarray(vae.encode(params, config, batch)[0])

    with ThreadPoolExecutor(2) as pool:
        means = pool.map(encoded, batches)
        return np.concatenate(list(means))
