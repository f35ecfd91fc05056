"""Bugs on the way from a picture to latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refdiff import ops
from refdiff.golden import extras
from refdiff.golden.mutants.kind import Variant, Variants, patched
from refdiff.golden.mutants.loop import sampling
from refdiff.models import vae
from refdiff.samplers import Sampler


def drawn_as(sample: Callable[[Any, Any, Any], Any]) -> Variant:
    """Another draw from (mean, logvar, noise)."""
    return patched((vae, "posterior_sample", sample))


class Moved(Sampler):
    """A sampler that adds the noise of another step than is asked for."""

    by = 0

    def add_noise(self, x0: Any, noise: Any, steps: int, start: int) -> Any:
        """Of the step that many later; its latents are told as those of step `start`."""
        return super().add_noise(x0, noise, steps, min(max(start + self.by, 0), steps - 1))


def noised_at(by: int) -> Variant:
    """Noise of a later step, or of an earlier one."""
    kind = type("Moved", (Moved,), {"by": by})
    return sampling(lambda sampler: kind(**vars(sampler)))


def halved(levels: np.ndarray) -> np.ndarray:
    """In [0,1]."""
    return levels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255.0)


def turned(levels: np.ndarray) -> np.ndarray:
    """Blue first."""
    return RIGHT_PICTURE(levels[..., ::-1])


RIGHT_PICTURE = extras.picture

VARIANTS: Variants = {
    "vae-sample-mode": {
        "mean": drawn_as(lambda mean, logvar, noise: mean),
        "no root": drawn_as(lambda mean, logvar, noise: mean + ops.exp(logvar) * noise),
        "logarithm": drawn_as(lambda mean, logvar, noise: mean + logvar * noise),
    },
    "img2img-t": {"one later": noised_at(1), "one earlier": noised_at(-1)},
    "px-range": {"0 to 1": patched((extras, "picture", halved)), "blue first": patched((extras, "picture", turned))},
}
