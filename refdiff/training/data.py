"""Pictures with captions for training: the built-in set and a folder of the user's own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
        images, things = zip(*(shapes.draw(scene) for scene in scenes), strict=True)
        return to_model(images), np.stack(things), [scene.caption for scene in scenes]

    def words(self) -> list[str]:
        """Every word that a caption can hold, in a fixed order."""
        return shapes.all_words()


@dataclass(frozen=True)
class FolderSet:
    """A folder of images with captions.

    The caption of `cat.png` stands in `cat.txt`, or for all images in one file, metadata.jsonl or captions.jsonl, with a
    line such as {"file_name": "cat.png", "text": "a black cat"} for each.
    """

    images: np.ndarray  # [N,3,size,size]
    captions: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path, *, size: int) -> FolderSet:
        """Read every image, cut to a square around its middle and scaled to `size` pixels.

        Raises: BadRequest for a folder without images, an image without a caption or that cannot be read
        """
        if not folder.is_dir():
            raise BadRequest(f"{folder} is not a folder of images")
        pairs = _listed(folder) or [(path, _caption_of(path)) for path in _image_files(folder)]
        if not pairs:
            raise BadRequest(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        return cls(to_model([_square(path, size) for path, _ in pairs]), tuple(caption for _, caption in pairs))

    def batch(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """`count` random pictures [B,3,size,size] in [-1,1], every pixel counted as part of a thing, and the captions."""
        chosen = rng.integers(len(self.images), size=count)
        images = self.images[chosen]
        return images, np.ones((count, *images.shape[2:]), dtype=bool), [self.captions[i] for i in chosen]

    def words(self) -> list[str]:
        """The words of all captions that are letters alone, in alphabetical order."""
        return sorted({word for caption in self.captions for word in re.findall(r"[a-z]+", caption.lower())})


IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LISTS = ("metadata.jsonl", "captions.jsonl")


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _listed(folder: Path) -> list[tuple[Path, str]]:
    """Images and captions from a list in the folder, in its order; nothing without a list."""
    lists = [folder / name for name in LISTS if (folder / name).exists()]
    if len(lists) > 1:
        raise BadRequest(f"{folder} holds both {' and '.join(LISTS)}: keep one")
    pairs = [_entry(path, i, line) for path in lists for i, line in enumerate(_read(path).split("\n"), 1) if line.strip()]
    forgotten = sorted(set(_image_files(folder)) - {path for path, _ in pairs})
    if lists and forgotten:
        raise BadRequest(f"{lists[0]} has no line for {forgotten[0].name}: add one, or move the image out of the folder")
    return pairs


def _entry(path: Path, number: int, line: str) -> tuple[Path, str]:
    try:
        entry = json.loads(line)
        name, text = entry["file_name"], entry["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f'{path} line {number} is not of the form {{"file_name": "cat.png", "text": "a black cat"}}') from error
    if not isinstance(name, str) or not isinstance(text, str):
        raise BadRequest(f"{path} line {number}: file_name and text must be strings")
    image = path.parent / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not image.is_file():
        raise BadRequest(f"{path} line {number} names {name}, which is not a file in the folder")
    return image, text.strip()


def _caption_of(image: Path) -> str:
    path = image.with_suffix(".txt")
    if not path.is_file():
        raise BadRequest(f"{image} has no caption: write it in {path.name} beside it, or in {LISTS[0]}")
    return _read(path).strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} cannot be read as UTF-8 text: {error}") from error


def _square(path: Path, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would cut their values off at 255
                raise BadRequest(f"{path} has more than 8 bits a channel: save it with 8")
            upright = ImageOps.exif_transpose(image)
            return np.asarray(ImageOps.fit(_on_white(upright), (size, size), method=Image.Resampling.LANCZOS))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRequest(f"{path} cannot be read as an image: {error}") from error


def _on_white(image: Any) -> Any:
    """Without transparency: what stands behind transparent pixels in a file is of no meaning, often black."""
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def to_model(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures as the networks take them.  Shapes: B times [H,W,3] uint8 -> [B,3,H,W] float32 in [-1,1]"""
    return np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1.0)
