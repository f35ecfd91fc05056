"""Look at a picture of the 'shapes' world and say what is in it, without knowing what was asked for.

Background: the median colour of the border. Things: connected regions that differ from it. Each thing's colour is the
nearest of the palette to its median; its shape the template, over all radii and places near its own, with the largest
soft intersection over union. `tools/check_embedded.py` shows how often this is right on pictures whose contents are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from refdiff.training import shapes
from refdiff.training.shapes import PALETTE, SHAPES, SIZE, Scene

FAR = 40.0  # distance in RGB from the background at which a pixel belongs to a thing
SMALLEST = 20  # pixels; anything smaller is a speck
SPECK_SHARE = 0.12  # of the largest thing's pixels; a smaller region is no thing
SOFT_IOU = 0.75
RADII = np.arange(5.5, 21.0, 0.5)


@dataclass(frozen=True)
class Seen:
    """A thing in a picture: its place in pixels, y downwards, and how well the shape fits."""

    shape: str
    colour: str
    x: float
    y: float
    fit: float


@dataclass(frozen=True)
class Verdict:
    """What is right in a picture: the number of things, all of them with colour and shape, the background, the relation."""

    count: bool
    things: bool
    background: bool
    relation: bool | None


def look(image: np.ndarray) -> tuple[str, list[Seen]]:
    """The background and the things of a picture.  Shapes: [64,64,3] uint8"""
    pixels = image.astype(np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    background = np.median(border, axis=0)
    distance = np.sqrt(((pixels - background) ** 2).sum(axis=-1))
    labels, count = ndimage.label(distance > FAR, structure=np.ones((3, 3)))
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1))
    least = max(SMALLEST, SPECK_SHARE * max(sizes, default=0))
    regions = [labels == k + 1 for k in range(count) if sizes[k] >= least]
    return _nearest(background), [_seen(pixels, background, region) for region in regions]


def judge(image: np.ndarray, scene: Scene) -> Verdict:
    """Compare what is in a picture with what a scene says."""
    background, seen = look(image)
    wanted = sorted((t.colour, t.shape) for t in scene.things)
    right = [s for s in seen if s.fit >= SOFT_IOU]
    things = len(seen) == len(wanted) and sorted((s.colour, s.shape) for s in right) == wanted
    relation = None
    if things and scene.relation and wanted[0] != wanted[1]:
        first = next(s for s in seen if (s.colour, s.shape) == (scene.things[0].colour, scene.things[0].shape))
        second = next(s for s in seen if s is not first)
        relation = _relation(first, second) == scene.relation
    return Verdict(len(seen) == len(wanted), things, background == scene.background, relation)


def _seen(pixels: np.ndarray, background: np.ndarray, region: np.ndarray) -> Seen:
    core = ndimage.binary_erosion(region)
    colour = np.median(pixels[core if core.sum() >= 8 else region], axis=0)
    axis = colour - background
    cover = np.clip(((pixels - background) @ axis) / max(axis @ axis, 1e-9), 0.0, 1.0)
    cover = cover * ndimage.binary_dilation(region, iterations=1)
    rows, columns = np.nonzero(region)
    middle = ((rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2)
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    shape, fit = _best_shape(cover, middle, extent)
    return Seen(shape, _nearest(colour), middle[1], middle[0], fit)


def _best_shape(cover: np.ndarray, middle: tuple[float, float], extent: float) -> tuple[str, float]:
    best = ("", -1.0)
    for shape in SHAPES:
        for radius in RADII[(RADII * 2 > extent * 0.8) & (RADII * 2 < extent * 1.35)]:
            template, centre = _template(shape, float(radius))
            row, column = (round(m - c) for m, c in zip(middle, centre, strict=True))
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    fit = _soft_iou(cover, template, row + dy, column + dx)
                    if fit > best[1]:
                        best = (shape, fit)
    return best


@cache
def _template(shape: str, radius: float) -> tuple[np.ndarray, tuple[float, float]]:
    """A shape in the middle of a picture and the middle of its bounding box, measured from the picture's."""
    template = shapes.coverage(shape, SIZE / 2, SIZE / 2, radius)
    rows, columns = np.nonzero(template > 0.3)
    return template, ((rows.min() + rows.max() + 1) / 2 - SIZE / 2, (columns.min() + columns.max() + 1) / 2 - SIZE / 2)


def _soft_iou(cover: np.ndarray, template: np.ndarray, row: int, column: int) -> float:
    """sum min / sum max with the template's centre at (row, column)."""
    moved = _moved(template, row, column)
    union = np.maximum(cover, moved).sum()
    return float(np.minimum(cover, moved).sum() / union) if union else 0.0


def _moved(template: np.ndarray, row: int, column: int) -> np.ndarray:
    down, right = row - SIZE // 2, column - SIZE // 2
    out = np.zeros_like(template)
    to_rows, from_rows = _overlap(down)
    to_columns, from_columns = _overlap(right)
    out[to_rows, to_columns] = template[from_rows, from_columns]
    return out


def _overlap(shift: int) -> tuple[slice, slice]:
    if shift >= 0:
        return slice(min(shift, SIZE), SIZE), slice(0, max(SIZE - shift, 0))
    return slice(0, max(SIZE + shift, 0)), slice(min(-shift, SIZE), SIZE)


def _nearest(colour: np.ndarray) -> str:
    return min(PALETTE, key=lambda name: float(((np.array(PALETTE[name]) - colour) ** 2).sum()))


def _relation(first: Seen, second: Seen) -> str:
    across, down = second.x - first.x, second.y - first.y
    if abs(down) >= abs(across):
        return "above" if down > 0 else "below"
    return "left" if across > 0 else "right"
