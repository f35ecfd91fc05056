"""Pictures with captions for training: the built-in set and a folder of the user's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from refdiff.errors import BadRequest
from refdiff.training import shapes


class Pictures(Protocol):
    """Where training takes its pictures from."""

    def batch(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """`count` random pictures [B,3,H,W] in [-1,1], where their things are [B,H,W] bool, and the captions."""
        ...

    def words(self) -> list[str]:
        """Every word that a caption can hold, in a fixed order."""
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

    def words(self) -> list[str]:
        """Every word that a caption can hold, in a fixed order."""
        return shapes.all_words()


@dataclass(frozen=True)
class FolderSet:
    """A folder of images, each with its caption in a text file of the same name (`cat.png`, `cat.txt`)."""

    images: np.ndarray  # [N,3,size,size]
    captions: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, *, size: int) -> FolderSet:
        """Read every image, cut to a square around its middle and scaled to `size` pixels.

        Raises: BadRequest for a folder without images, an image without a caption or that cannot be read
        """
        if not folder.is_dir():
            raise BadRequest(f"{folder} is not a folder of images")
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise BadRequest(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        captions = tuple(_caption_of(path) for path in files)
        return cls(to_model([_square(path, size) for path in files]), captions)

    def batch(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """`count` random pictures [B,3,size,size] in [-1,1], every pixel counted as part of a thing, and the captions."""
        chosen = rng.integers(len(self.images), size=count)
        images = self.images[chosen]
        return images, np.ones((count, *images.shape[2:]), dtype=bool), [self.captions[i] for i in chosen]

    def words(self) -> list[str]:
        """The words of all captions that are letters alone, in alphabetical order."""
        return sorted({word for caption in self.captions for word in re.findall(r"[a-z]+", caption.lower())})


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def _caption_of(image: Path) -> str:
    path = image.with_suffix(".txt")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{image} has no caption: write it in {path}") from error


def _square(path: Path, size: int) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), method=Image.Resampling.LANCZOS))
    except (OSError, UnidentifiedImageError) as error:
        raise BadRequest(f"{path} cannot be read as an image: {error}") from error


def to_model(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures as the networks take them.  Shapes: B times [H,W,3] uint8 -> [B,3,H,W] float32 in [-1,1]"""
    return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1.0)
