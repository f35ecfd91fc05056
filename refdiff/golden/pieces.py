"""Single formulas of models beyond Stable Diffusion 1.x, with inputs of their own, so that a port of those can be compared too.

Every piece is a stage pieces/NAME that gives its inputs, the same in every trace, and then what follows from them.

| piece | inputs | results |
|---|---|---|
| projection | pooled [2,D], weight [D,D] | projected [2,D]: the pooled vector of SDXL's second text encoder |
| two_encoders | first [2,T,D], second [2,T,D'] | context [2,T,D+D'], the negative rows zeros as SDXL wants them for no text |
| time_ids | sizes [2,6], pooled [2,D] | vector [2,D+6W]: what SDXL's U-Net is told besides the time |
| lora | weight [O,I], down [r,I], up [O,r], alpha | merged [O,I] |
| hint | levels [1,H,W,3], latents [1,4,h,w], sigma | picture [1,3,H,W], input [1,4,h,w]: what a ControlNet sees |
| tiles | tiles [n,C,h,w], overlap | joined [C,h,W]: tiles of a row, each faded into the next |
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np

from refdiff import ops
from refdiff.golden.stages import Given, Made, Setting

WIDTH = 16  # of the sines of one number; SDXL's is 256
SIZES = np.array([[768, 1024, 0, 0, 960, 1024], [768, 1024, 16, 48, 960, 1024]])  # of the negative prompt, of the prompt
ALPHA, OVERLAP, SIGMA = 3.0, 4, 2.5


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normals that belong to a name, the same everywhere.  Shapes: -> shape, float32"""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape, dtype=np.float32)


def projection(pooled: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x W^T.  Shapes: [2,D], [D,D] as [out,in] -> [2,D]  Traps: te-proj-T"""
    return pooled @ weight.T


def side_by_side(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Features of both encoders, row 0 of no text.  Shapes: [2,T,D], [2,T,D'] -> [2,T,D+D']  Traps: te2-dropped, uncond-zeros"""
    both = np.concatenate([first, second], axis=-1)
    return np.concatenate([0 * both[:1], both[1:]])


def told(sizes: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """The pooled text, then the sines of each of the six numbers, cosines first.

    Shapes: sizes [2,6]: height and width of the original, top and left of the crop, height and width meant; [2,D] -> [2,D+6W]
    Source: Podell et al. 2023 (arXiv 2307.01952), section 2.2
    Traps: sdxl-time-ids, cfg-pooled-swap
    """
    sines = ops.timestep_embedding(
        sizes.reshape(-1).astype(pooled.dtype), width=WIDTH, flip_sin_to_cos=True, freq_shift=0.0, max_period=10000.0,
        dtype=pooled.dtype,
    )  # fmt: skip
    return np.concatenate([pooled, sines.reshape(len(pooled), -1)], axis=1)


def merged(weight: np.ndarray, down: np.ndarray, up: np.ndarray, *, alpha: float) -> np.ndarray:
    """W + alpha / r up down.

    Shapes: [O,I], [r,I], [O,r] -> [O,I]
    Source: Hu et al. 2021 (arXiv 2106.09685), section 4.1
    Traps: lora-alpha
    """
    return weight + (alpha / len(down)) * (up @ down)


def hinted(levels: np.ndarray) -> np.ndarray:
    """Levels as a ControlNet wants them.  Shapes: [1,H,W,3] red first, 0 to 255 -> [1,3,H,W] in [0,1]  Traps: cn-range"""
    return levels.transpose(0, 3, 1, 2) / 255.0


def scaled(latents: np.ndarray, sigma: float) -> np.ndarray:
    """x0 + sigma noise at unit variance.  Shapes: [1,4,h,w] -> [1,4,h,w]  Traps: cn-unscaled"""
    return latents / np.sqrt(sigma * sigma + 1.0)


def joined(tiles: np.ndarray, *, overlap: int) -> np.ndarray:
    """Tiles of a row as one, each faded into the next over the overlap: weight k / overlap at its place k of it.

    Shapes: [n,C,h,w] -> [C,h,n w - (n - 1) overlap]
    Source: diffusers autoencoder_kl.py, blend_h
    Traps: vae-tiles
    """
    share = np.arange(overlap) / overlap
    row = tiles[0]
    for tile in tiles[1:]:
        fade = row[..., -overlap:] * (1.0 - share) + tile[..., :overlap] * share
        row = np.concatenate([row[..., :-overlap], fade, tile[..., overlap:]], axis=-1)
    return row


def projection_piece(setting: Setting, given: Given) -> Made:
    """The projection of the pooled vector."""
    pooled, weight = inputs(setting, {"pooled": (2, 8), "weight": (8, 8)})
    yield from shown("projection", {"pooled": pooled, "weight": weight})
    yield "pieces/projection/projected", projection(pooled, weight)


def two_encoders_piece(setting: Setting, given: Given) -> Made:
    """Two encoders' features."""
    first, second = inputs(setting, {"first": (2, 5, 6), "second": (2, 5, 8)})
    yield from shown("two_encoders", {"first": first, "second": second})
    yield "pieces/two_encoders/context", side_by_side(first, second)


def time_ids_piece(setting: Setting, given: Given) -> Made:
    """Sizes and pooled text."""
    (pooled,) = inputs(setting, {"pooled": (2, 8)})
    yield from shown("time_ids", {"sizes": SIZES, "pooled": pooled})
    yield "pieces/time_ids/vector", told(SIZES, pooled)


def lora_piece(setting: Setting, given: Given) -> Made:
    """A LoRA merged."""
    weight, down, up = inputs(setting, {"weight": (6, 5), "down": (2, 5), "up": (6, 2)})
    yield from shown("lora", {"weight": weight, "down": down, "up": up, "alpha": np.array(ALPHA)})
    yield "pieces/lora/merged", merged(weight, down, up, alpha=ALPHA)


def hint_piece(setting: Setting, given: Given) -> Made:
    """What a ControlNet sees."""
    colours, latents = inputs(setting, {"colours": (1, 8, 8, 3), "latents": (1, 4, 2, 2)})
    levels = (np.abs(colours) * 90.0).clip(0, 255).astype(np.uint8)
    yield from shown("hint", {"levels": levels, "latents": latents, "sigma": np.array(SIGMA)})
    yield "pieces/hint/picture", hinted(levels.astype(latents.dtype))
    yield "pieces/hint/input", scaled(latents, SIGMA)


def tiles_piece(setting: Setting, given: Given) -> Made:
    """Three tiles of a row."""
    (tiles,) = inputs(setting, {"tiles": (3, 3, 8, 12)})
    yield from shown("tiles", {"tiles": tiles, "overlap": np.array(OVERLAP)})
    yield "pieces/tiles/joined", joined(tiles, overlap=OVERLAP).astype(tiles.dtype)


def inputs(setting: Setting, shapes: Mapping[str, tuple[int, ...]]) -> tuple[np.ndarray, ...]:
    """Numbers of these shapes in the setting's precision."""
    return tuple(numbers(name, shape).astype(setting.pipe.precision) for name, shape in shapes.items())


def shown(piece: str, given: Mapping[str, np.ndarray]) -> Made:
    """The inputs under their names."""
    for name, x in given.items():
        yield f"pieces/{piece}/{name}", x


PIECES: Mapping[str, Callable[[Setting, Given], Made]] = {
    "projection": projection_piece, "two_encoders": two_encoders_piece, "time_ids": time_ids_piece, "lora": lora_piece,
    "hint": hint_piece, "tiles": tiles_piece,
}  # fmt: skip
