"""Bugs of single formulas of models beyond Stable Diffusion 1.x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refdiff.golden import pieces
from refdiff.golden.mutants.kind import Change, Site, Variant, Variants, by_site

Wrap = Callable[[Any], Any]  # the right formula -> another


def instead(name: str, wrap: Wrap) -> Variant:
    """A variant of a formula, told by the right one."""

    def make(site: Site) -> list[Change]:
        return [(pieces, name, wrap(getattr(pieces, name)))]

    return by_site(make)


def second_by(change: Callable[[np.ndarray], np.ndarray]) -> Variant:
    """The second encoder's features otherwise."""
    return instead("side_by_side", lambda right: lambda first, second: right(first, change(second)))


def sizes_by(change: Callable[[np.ndarray], np.ndarray]) -> Variant:
    """The six numbers otherwise."""
    return instead("told", lambda right: lambda sizes, pooled: right(change(sizes), pooled))


def joining(share: Callable[[int], np.ndarray], *, count: Callable[[int], int]) -> Variant:
    """Other weights over the overlap, or fewer tiles than there are."""

    def joined(tiles: np.ndarray, *, overlap: int) -> np.ndarray:
        row, weights = tiles[0], share(overlap)
        for k, tile in enumerate(tiles[1:], start=1):
            shown = tile if k < count(len(tiles)) else 0.0 * tile
            fade = row[..., -overlap:] * (1.0 - weights) + shown[..., :overlap] * weights
            row = np.concatenate([row[..., :-overlap], fade, shown[..., overlap:]], axis=-1)
        return row

    return instead("joined", lambda right: joined)


def both_encoded(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The empty text encoded where zeros are meant."""
    return np.concatenate([first, second], axis=-1)


def strength(factor: Callable[[float, int], float]) -> Variant:
    """A LoRA's product times factor(alpha, rank)."""

    def merged(weight: Any, down: Any, up: Any, *, alpha: float) -> Any:
        return weight + factor(alpha, len(down)) * (up @ down)

    return instead("merged", lambda right: merged)


VARIANTS: Variants = {
    "te-proj-T": {"transposed": instead("projection", lambda right: lambda pooled, weight: right(pooled, weight.T))},
    "te2-dropped": {
        "zeros": second_by(lambda second: 0.0 * second),
        "another prompt": second_by(lambda second: np.concatenate([second[:1], second[:1]])),
        "first in the second's place": instead("side_by_side", lambda right: lambda first, second: right(second, first)),
    },
    "uncond-zeros": {"encoded where zeros are meant": instead("side_by_side", lambda right: both_encoded)},
    "sdxl-time-ids": {
        "widths first": sizes_by(lambda sizes: sizes.reshape(-1, 3, 2)[..., ::-1].reshape(sizes.shape)),
        "zeros": sizes_by(lambda sizes: 0 * sizes),
        "the prompt's for both": sizes_by(lambda sizes: sizes[[1, 1]]),
        "crop first": sizes_by(lambda sizes: sizes[:, [2, 3, 0, 1, 4, 5]]),
    },
    "cfg-pooled-swap": {"pooled": instead("told", lambda right: lambda sizes, pooled: right(sizes, pooled[::-1]))},
    "lora-alpha": {
        "no alpha": strength(lambda alpha, rank: 1.0),
        "twice": strength(lambda alpha, rank: (alpha / rank) ** 2),
        "no rank": strength(lambda alpha, rank: alpha),
        "left out": strength(lambda alpha, rank: 0.0),
    },
    "cn-range": {
        "-1 to 1": instead("hinted", lambda right: lambda levels: 2.0 * right(levels) - 1.0),
        "0 to 255": instead("hinted", lambda right: lambda levels: 255.0 * right(levels)),
        "blue first": instead("hinted", lambda right: lambda levels: right(levels[..., ::-1])),
    },
    "cn-unscaled": {"unscaled": instead("scaled", lambda right: lambda latents, sigma: latents)},
    "vae-tiles": {
        "no fade": joining(np.ones, count=lambda n: n),
        "faded the wrong way round": joining(lambda overlap: 1.0 - np.arange(overlap) / overlap, count=lambda n: n),
        "half of both": joining(lambda overlap: np.full(overlap, 0.5), count=lambda n: n),
        "last tile left out": joining(lambda overlap: np.arange(overlap) / overlap, count=lambda n: n - 1),
    },
}
