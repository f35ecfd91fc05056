"""Look at a picture of the 'shapes' world and say what is in it, without knowing what was asked for.

Background: the median colour of the border. Colours: those of the palette that fill a compact patch somewhere, so that the
mixed pixels along an edge are no colour of their own (between red and yellow they are orange). Things: connected regions of
one such colour; things of different colours may touch. Shape: the one whose template, over all places and radii near the
region's own, has the largest soft intersection over union. Anything else that differs from the background is a thing that
should not be there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from refdiff.training.shapes import PALETTE, RADII, SHAPES, SIZE, Scene, coverage

FAR = (
    40.0  # distance in RGB from the background at which a pixel is no background; the closest colours of the palette are 81 apart
)
PATCH = 16  # pixels that a colour must fill in one piece, counted in blocks of 2x2, to be there at all
SMALLEST = 20  # pixels; the smallest thing of the set has 61
SOFT_IOU = 0.75
EIGHT = np.ones((3, 3), dtype=bool)  # pixels that share a corner are connected


@dataclass(frozen=True)
class Seen:
    """A thing in a picture: its centre and radius in pixels, y downwards, and how well the shape fits, 0 to 1."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float
    fit: float


@dataclass(frozen=True)
class Verdict:
    """What is right in a picture: the number of things, all of them with colour and shape, the background; and, given the
    things, their relation and the sizes that the caption says. None where the question does not arise.
    """

    count: bool
    things: bool
    background: bool
    relation: bool | None
    sizes: bool | None


def judge(image: np.ndarray, scene: Scene) -> Verdict:
    """Compare what is in a picture with what a scene says."""
    background, seen = look(image)
    wanted = [(t.colour, t.shape) for t in scene.things]
    found = [(s.colour, s.shape) for s in seen if s.fit >= SOFT_IOU]
    count = len(seen) == len(wanted)
    things = count and sorted(found) == sorted(wanted)
    relation = sizes = None
    if things and len(set(wanted)) == len(wanted):  # two equal things cannot be told apart
        ordered = [next(s for s in seen if (s.colour, s.shape) == pair) for pair in wanted]
        if scene.relation:
            relation = relation_of(ordered[0], ordered[1]) == scene.relation
        said = [_size(s.radius, len(wanted)) == t.size for s, t in zip(ordered, scene.things, strict=True) if t.size_said]
        sizes = all(said) if said else None
    return Verdict(count, things, background == scene.background, relation, sizes)


def look(image: np.ndarray) -> tuple[str, list[Seen]]:
    """The background and the things of a picture.  Shapes: [64,64,3] uint8"""
    pixels = image.astype(np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    background = np.median(border, axis=0)
    return nearest(background), [_seen(pixels, background, region) for region in _regions(pixels, background)]


def relation_of(first: Seen, second: Seen) -> str:
    """Where the first thing is, seen from the second, along the axis on which they are further apart."""
    across, down = second.x - first.x, second.y - first.y
    if abs(down) >= abs(across):
        return "above" if down > 0 else "below"
    return "left" if across > 0 else "right"


def nearest(colour: np.ndarray) -> str:
    """The name in the palette."""
    return min(PALETTE, key=lambda name: math.dist(PALETTE[name], colour))


def _regions(pixels: np.ndarray, background: np.ndarray) -> list[np.ndarray]:
    """The pixels of each thing, and of each piece of something that is no thing.  Shapes: -> of [64,64] bool"""
    far = _distance(pixels, background) > FAR
    if not far.any():
        return []
    others = [np.array(PALETTE[name], dtype=np.float64) for name in PALETTE if name != nearest(background)]
    classes = np.argmin([_distance(pixels, colour) for colour in [background, *others]], axis=0)
    patches = {k: _patches(far & (classes == k)) for k in range(1, len(others) + 1)}
    present = [k for k, patch in patches.items() if patch.any()]
    # Mixed pixels now go to the colours of their two sides: with half of the one, and half of the other.
    colours = [background, *(others[k - 1] for k in present)]
    classes = np.argmin([_distance(pixels, colour) for colour in colours], axis=0)
    regions = []
    for k, colour in enumerate(present, 1):
        labels, count = ndimage.label(classes == k, EIGHT)
        pieces = [labels == i + 1 for i in range(count)]
        regions += [piece for piece in pieces if piece.sum() >= SMALLEST and (piece & patches[colour]).any()]
    explained = ndimage.binary_dilation(np.logical_or.reduce(regions), EIGHT, iterations=2) if regions else np.zeros_like(far)
    return regions + _patches_of(far & ~explained, SMALLEST)


def _patches(mask: np.ndarray) -> np.ndarray:
    """The compact parts of a mask, large enough to count, as one mask."""
    return np.logical_or.reduce([np.zeros_like(mask), *_patches_of(mask, PATCH)])


def _patches_of(mask: np.ndarray, least: int) -> list[np.ndarray]:
    labels, count = ndimage.label(ndimage.binary_opening(mask, np.ones((2, 2), dtype=bool)), EIGHT)
    pieces = [labels == i + 1 for i in range(count)]
    return [piece for piece in pieces if piece.sum() >= least]


def _seen(pixels: np.ndarray, background: np.ndarray, region: np.ndarray) -> Seen:
    core = ndimage.binary_erosion(region)
    colour = np.median(pixels[core if core.sum() >= 8 else region], axis=0)
    return Seen(colour=nearest(colour), **_best_fit(_cover(pixels, background, colour, region)))


def _cover(pixels: np.ndarray, background: np.ndarray, colour: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How much of each pixel the thing covers, from where its colour stands between background and thing.

    Shapes: -> [64,64]
    """
    axis = colour - background
    share = np.clip((pixels - background) @ axis / max(axis @ axis, 1e-9), 0.0, 1.0)
    mixed = background + share[:, :, None] * axis
    belongs = ndimage.binary_dilation(region, EIGHT) & (_distance(pixels, mixed) < 2 * FAR)  # not to another thing
    return np.where(region | belongs, share, 0.0)


def _best_fit(cover: np.ndarray) -> dict:
    """Shape, centre, radius and fit of the best template: each shape starts with the area and the centre of mass of what is
    seen, and is then moved and scaled in two rounds.
    """
    rows, columns = np.nonzero(cover)
    top, left, bottom, right = rows.min() - 4, columns.min() - 4, rows.max() + 5, columns.max() + 5
    grid_y, grid_x = np.arange(top, bottom) + 0.5, np.arange(left, right) + 0.5
    seen = np.zeros((bottom - top, right - left))
    seen[rows - top, columns - left] = cover[rows, columns]
    area = cover.sum()
    y, x = (seen.sum(axis=1) @ grid_y) / area, (seen.sum(axis=0) @ grid_x) / area
    # What stands outside the picture cannot be seen, and counts neither for nor against a template.
    inside = ((grid_y > 0) & (grid_y < SIZE))[:, None] & ((grid_x > 0) & (grid_x < SIZE))
    best = {"shape": "", "x": x, "y": y, "radius": 0.0, "fit": 0.0}
    for shape in SHAPES:
        unit_area, unit_y = _moments(shape)
        radius = math.sqrt(area / unit_area)
        found = {"x": x, "y": y - unit_y * radius, "radius": radius}
        for step, scale in ((1.0, 0.1), (0.5, 0.05)):
            found = _best_near(shape, found, step, scale, (seen, grid_y, grid_x, inside))
        if found["fit"] > best["fit"]:
            best = {"shape": shape, **found}
    return best


def _best_near(shape: str, around: dict, step: float, scale: float, view: tuple) -> dict:
    """The best of 27 templates: three places along each axis, three radii."""
    seen, grid_y, grid_x, inside = view
    moves, scales = np.array([-step, 0.0, step]), np.array([1.0 - scale, 1.0, 1.0 + scale])
    dy, dx, factor = (a.ravel() for a in np.meshgrid(moves, moves, scales, indexing="ij"))
    y, x, radius = around["y"] + dy, around["x"] + dx, around["radius"] * factor
    at_y, at_x = grid_y[None, :, None] - y[:, None, None], grid_x[None, None, :] - x[:, None, None]
    templates = coverage(shape, at_x, at_y, radius[:, None, None]) * inside
    fits = np.minimum(templates, seen).sum(axis=(1, 2)) / np.maximum(templates, seen).sum(axis=(1, 2))
    k = int(np.argmax(fits))
    return {"x": float(x[k]), "y": float(y[k]), "radius": float(radius[k]), "fit": float(fits[k])}


@cache
def _moments(shape: str) -> tuple[float, float]:
    """The area of a shape of radius 1, and how far its centre of mass lies below its centre."""
    grid = (np.arange(400) + 0.5) / 160 - 1.25
    cover = coverage(shape, 100.0 * grid[None, :], 100.0 * grid[:, None], 100.0)
    return float(cover.sum() / 160**2), float((cover.sum(axis=1) @ grid) / cover.sum())


def _size(radius: float, count: int) -> str:
    return "small" if radius < (RADII["small", count][1] + RADII["large", count][0]) / 2 else "large"


def _distance(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.sqrt(((pixels - colour) ** 2).sum(axis=-1))
