"""Bugs between the autoencoder and the levels of a picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdiff.golden.mutants.kind import Variant, Variants, patched
from refdiff.pipelines import text_to_image


def levels_by(shares: Callable[[np.ndarray], np.ndarray], whole: Callable[[np.ndarray], np.ndarray]) -> Variant:
    """A variant with another way from [-1,1] to shares of the full level, and from there to whole levels."""

    def levels(x: np.ndarray) -> np.ndarray:
        return whole(shares(x)).transpose(0, 2, 3, 1)

    return patched((text_to_image, "levels", levels))


def right(x: np.ndarray) -> np.ndarray:
    """As it should be: shifted, then limited."""
    return np.clip(x / 2 + 0.5, 0.0, 1.0)


def rounded(x: np.ndarray) -> np.ndarray:
    """To the nearest level, half to even."""
    return np.round(x * 255.0).astype(np.uint8)


def wrapped(x: np.ndarray) -> np.ndarray:
    """To the nearest level, beyond the last from the first on."""
    return (np.round(x * 255.0).astype(np.int64) & 255).astype(np.uint8)


VARIANTS: Variants = {
    "px-trunc": {
        "cut off": levels_by(right, lambda x: (x * 255.0).astype(np.uint8)),
        "cut off of 256": levels_by(right, lambda x: np.minimum(x * 256.0, 255.0).astype(np.uint8)),
    },
    "px-range": {
        "no limits": levels_by(lambda x: x / 2 + 0.5, wrapped),
        "limits first": levels_by(lambda x: np.clip(x, 0.0, 1.0) / 2 + 0.5, rounded),
        "not shifted": levels_by(lambda x: np.clip(x, 0.0, 1.0), rounded),
        "half after the sum": levels_by(lambda x: np.clip((x + 0.5) / 2, 0.0, 1.0), rounded),
    },
}
