"""The built-in set 'shapes': captioned scenes of one or two solid shapes, drawn from a seed.

Scene number k of a seed is the same whoever asks for it and in whatever batch: its random numbers come from (seed, k) alone.
A caption reads `a [small|large] COLOUR SHAPE [above|below|to the left of|... a [small|large] COLOUR SHAPE]
[on a BACKGROUND background]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

SIZE = 64
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (40, 80, 220), "yellow": (245, 215, 40),
    "orange": (245, 135, 25), "purple": (140, 50, 180), "cyan": (50, 205, 220), "pink": (245, 130, 190),
}  # fmt: skip
GREYS = {"white": (245, 245, 245), "black": (15, 15, 15), "gray": (150, 150, 150)}
PALETTE = {**COLOURS, **GREYS}
HELD_OUT = frozenset({("green", "star"), ("blue", "triangle"), ("orange", "ring"), ("purple", "square")})
ALL_PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
PAIRS = {
    "train": tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT),
    "heldout": tuple(pair for pair in ALL_PAIRS if pair in HELD_OUT),
}
RADII = {("small", 1): (7.5, 10.0), ("large", 1): (15.0, 19.0), ("small", 2): (6.8, 8.6), ("large", 2): (11.0, 12.5)}
RELATIONS = {
    "above": ("above",), "below": ("below",), "left": ("to the left of", "left of"), "right": ("to the right of", "right of"),
}  # fmt: skip
INVERSE = {"above": "below", "below": "above", "left": "right", "right": "left"}

T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """One shape: its centre and radius in pixels, y downwards, and whether the caption says its size."""

    shape: str
    colour: str
    size: str
    size_said: bool
    x: float
    y: float
    radius: float

    @property
    def words(self) -> str:
        """The part of the caption that describes it."""
        return f"a {self.size} {self.colour} {self.shape}" if self.size_said else f"a {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A background and one or two things; `relation` holds between the first and the second ("" for one thing)."""

    things: tuple[Thing, ...]
    relation: str
    background: str
    caption: str


def scene(seed: int, index: int, *, two_share: float, split: str) -> Scene:
    """Scene number `index` of a seed. `two_share` is the probability of two things; `split` is "train", without the pairs
    of HELD_OUT, or "heldout", where the first thing is one of them.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, index]))
    count = 2 if rng.random() < two_share else 1
    pairs = [_choice(rng, PAIRS[split if i == 0 else "train"]) for i in range(count)]
    background = _background(rng, used={colour for colour, _ in pairs})
    centres, relation = _layout(rng, count)
    things = []
    for (colour, shape), (x, y) in zip(pairs, centres, strict=True):
        size = "small" if rng.random() < 0.5 else "large"
        low, high = RADII[(size, count)]
        radius = rng.uniform(low, high)
        if count == 1:
            room = SIZE / 2 - radius - 2
            x, y = SIZE / 2 + rng.uniform(-room, room), SIZE / 2 + rng.uniform(-room, room)
        things.append(Thing(shape, colour, size, rng.random() < 0.6, x, y, radius))
    caption = _caption(rng, things, relation, background)
    return Scene(tuple(things), relation, background, caption)


def render(scene: Scene) -> np.ndarray:
    """The picture of a scene, edges smoothed over one pixel.  Shapes: -> [64,64,3] uint8"""
    return draw(scene)[0]


def foreground(scene: Scene) -> np.ndarray:
    """The pixels that a thing touches.  Shapes: -> [64,64] bool"""
    return draw(scene)[1]


def draw(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The picture of a scene and the pixels that a thing touches.  Shapes: -> [64,64,3] uint8, [64,64] bool"""
    image = np.empty((SIZE, SIZE, 3))
    image[:] = PALETTE[scene.background]
    touched = np.zeros((SIZE, SIZE), dtype=bool)
    for thing in scene.things:
        place = _box(thing.x, thing.y, thing.radius)
        rows, columns = _GRID[place[0]], _GRID[place[1]]
        cover = coverage(thing.shape, columns - thing.x, rows[:, None] - thing.y, thing.radius)
        touched[place] |= cover > 0
        cover = cover[:, :, None]
        image[place] = image[place] * (1.0 - cover) + np.array(PALETTE[thing.colour]) * cover
    return np.round(image).astype(np.uint8), touched


def coverage(shape: str, x: np.ndarray, y: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
    """How much a shape around the origin covers of the pixels with their centres at x, y (downwards), 0 to 1, from the
    signed distance to its edge.  Shapes: any that broadcast, in pixels
    """
    return np.clip(0.5 - _DISTANCES[shape](x / radius, y / radius) * radius, 0.0, 1.0)


def all_words() -> list[str]:
    """Every word that a caption can hold."""
    grammar = "a on background small large above below to the left right of".split()
    return [*grammar, *PALETTE, *SHAPES]


def _choice(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _background(rng: np.random.Generator, *, used: set[str]) -> str:
    u = rng.random()
    for name, edge in (("white", 0.45), ("black", 0.57), ("gray", 0.69)):
        if u < edge:
            return name
    return _choice(rng, [colour for colour in COLOURS if colour not in used])


def _layout(rng: np.random.Generator, count: int) -> tuple[list[tuple[float, float]], str]:
    """Centres for each thing and the relation of the first to the second; one thing is placed later."""
    if count == 1:
        return [(0.0, 0.0)], ""
    near, far = (SIZE / 4 + rng.uniform(-2, 2) for _ in range(2))
    off = SIZE / 2 + rng.uniform(-4, 4), SIZE / 2 + rng.uniform(-4, 4)
    relation = _choice(rng, tuple(RELATIONS))
    low, high = near, SIZE - far
    first, second = (low, high) if relation in ("above", "left") else (high, low)
    if relation in ("above", "below"):
        return [(off[0], first), (off[1], second)], relation
    return [(first, off[0]), (second, off[1])], relation


def _caption(rng: np.random.Generator, things: list[Thing], relation: str, background: str) -> str:
    text = things[0].words
    if relation:
        text += f" {_choice(rng, RELATIONS[relation])} {things[1].words}"
    said = rng.random() < (0.15 if background == "white" else 1.0)  # a white background is usually not mentioned
    return f"{text} on a {background} background" if said else text


_GRID = np.arange(SIZE) + 0.5  # the centres of the pixels
_REACH = 2.0  # pixels that the smoothed tip of a star or triangle may stand out of its circle, and some to spare


def _box(x: float, y: float, radius: float) -> tuple[slice, slice]:
    low = (max(math.floor(c - radius - _REACH), 0) for c in (y, x))
    high = (min(math.ceil(c + radius + _REACH), SIZE) for c in (y, x))
    top, left = (slice(a, b) for a, b in zip(low, high, strict=True))
    return top, left


# Signed distances to the edge of each shape of radius 1 at the origin, negative inside; x right, y down.
def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1.0


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.86


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pointing up, corners on the circle: the largest distance to its three sides."""
    sides = [
        x * math.cos(a) + y * math.sin(a) for a in (math.pi / 2, math.pi / 2 + 2 * math.pi / 3, math.pi / 2 - 2 * math.pi / 3)
    ]
    return np.maximum.reduce(sides) - 0.5


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five points, one up: by symmetry the distance to one side in one tenth of the plane."""
    inner = 0.45
    angle = np.abs((np.arctan2(x, -y) + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5)
    radius = np.hypot(x, y)
    u, v = radius * np.cos(angle), radius * np.sin(angle)  # u towards the tip
    du, dv = inner * math.cos(math.pi / 5) - 1.0, inner * math.sin(math.pi / 5)  # from the tip to the notch
    return ((u - 1.0) * dv - v * du) / math.hypot(du, dv)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.76) - 0.24


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(a - 0.32, b - 1.0), np.maximum(a - 1.0, b - 0.32))


_DISTANCES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
}
