"""The built-in set: captions tell the truth about the pictures, and the pictures are what they are said to be."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from refdiff.training import shapes
from refdiff.training.data import ShapesSet, to_model
from refdiff.training.shapes import COLOURS, GREYS, HELD_OUT, INVERSE, PALETTE, RADII, SHAPES, SIZE, Scene, Thing

COUNT = 2000
TWO_SHARE = 0.7
A_THING = rf"a (?:(small|large) )?({'|'.join(PALETTE)}) ({'|'.join(SHAPES)})"
PLACES = {
    "above": "above", "below": "below", "to the left of": "left", "left of": "left", "to the right of": "right",
    "right of": "right",
}  # fmt: skip
CAPTION = re.compile(rf"{A_THING}(?: ({'|'.join(PLACES)}) {A_THING})?(?: on a ({'|'.join(PALETTE)}) background)?")


@cache
def scenes(split: str) -> list[Scene]:
    return [shapes.scene(90_001, k, two_share=TWO_SHARE, split=split) for k in range(COUNT)]


def relation_holds(relation: str, first: Thing, second: Thing) -> bool:
    """In the picture's own axes: x to the right, y downwards; and clearly so, further along this axis than across it."""
    right, down = first.x - second.x, first.y - second.y
    along = {"above": -down, "below": down, "left": -right, "right": right}[relation]
    return along > 0 and along >= abs(right if relation in ("above", "below") else down)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_captions_are_read_as_what_the_scene_holds(split):
    for scene in scenes(split):
        read = CAPTION.fullmatch(scene.caption)
        assert read, scene.caption
        size, colour, shape, place, second_size, second_colour, second_shape, background = read.groups()
        said = [(size, colour, shape), (second_size, second_colour, second_shape)][: len(scene.things)]
        assert said == [(t.size if t.size_said else None, t.colour, t.shape) for t in scene.things]
        assert (place is None) == (len(scene.things) == 1) == (scene.relation == "")
        assert background == scene.background if background else scene.background == "white"


def test_the_relation_that_a_caption_names_is_that_of_the_things_it_names():
    seen = Counter()
    for scene in scenes("train"):
        _, colour, shape, place, _, second_colour, second_shape, _ = CAPTION.fullmatch(scene.caption).groups()
        if place is None or (colour, shape) == (second_colour, second_shape):
            continue
        (first,) = [t for t in scene.things if (t.colour, t.shape) == (colour, shape)]
        (second,) = [t for t in scene.things if (t.colour, t.shape) == (second_colour, second_shape)]
        relation = PLACES[place]
        assert relation_holds(relation, first, second), scene
        assert relation_holds(INVERSE[relation], second, first), scene
        assert sum(relation_holds(other, first, second) for other in INVERSE) == 1
        seen[place] += 1
    assert set(seen) == set(PLACES) and min(seen.values()) > 50


def test_size_words_are_those_of_the_radii():
    for scene in scenes("train"):
        for thing in scene.things:
            low, high = RADII[thing.size, len(scene.things)]
            assert low <= thing.radius <= high
    for count in (1, 2):
        assert RADII["small", count][1] < 0.8 * RADII["large", count][0]


def test_held_out_pairs_are_never_trained_on():
    drawn = {(t.colour, t.shape) for scene in scenes("train") for t in scene.things}
    assert drawn == {(colour, shape) for colour in COLOURS for shape in SHAPES} - HELD_OUT
    assert len(HELD_OUT) == 4 and len({c for c, _ in HELD_OUT}) == len({s for _, s in HELD_OUT}) == 4
    held_out = scenes("heldout")
    assert {(s.things[0].colour, s.things[0].shape) for s in held_out} == HELD_OUT
    assert not {(s.things[1].colour, s.things[1].shape) for s in held_out if s.relation} & HELD_OUT


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_background_has_no_things_colour(split):
    for scene in scenes(split):
        assert scene.background not in {t.colour for t in scene.things}
        assert all(t.colour in COLOURS for t in scene.things)
    assert {scene.background for scene in scenes(split)} == set(PALETTE)


def within(found: int, count: int, share: float) -> bool:
    """Whether a binomial count lies within 4.5 deviations: a right grammar fails one such test in 150,000."""
    return abs(found - count * share) <= 4.5 * math.sqrt(count * share * (1 - share))


def test_statistics_of_the_grammar():
    drawn = scenes("train")
    things = [t for scene in drawn for t in scene.things]
    assert within(sum(bool(scene.relation) for scene in drawn), COUNT, TWO_SHARE)
    assert within(sum(t.size_said for t in things), len(things), 0.6)
    assert within(sum(t.size == "small" for t in things), len(things), 0.5)
    relations = Counter(scene.relation for scene in drawn if scene.relation)
    assert all(within(relations[r], sum(relations.values()), 0.25) for r in INVERSE)
    pairs = Counter((t.colour, t.shape) for t in things)
    assert all(within(n, len(things), 1 / 44) for n in pairs.values())
    backgrounds = Counter(scene.background for scene in drawn)
    shares = {"white": 0.45, "black": 0.12, "gray": 0.12}
    assert all(within(backgrounds[name], COUNT, share) for name, share in shares.items())
    assert within(sum(backgrounds[name] for name in COLOURS), COUNT, 0.31)
    white = [scene for scene in drawn if scene.background == "white"]
    assert within(sum("background" in scene.caption for scene in white), len(white), 0.15)
    assert all("background" in scene.caption for scene in drawn if scene.background != "white")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_of_two_things_at_its_ends(share):
    drawn = [shapes.scene(3, k, two_share=share, split="train") for k in range(200)]
    assert {len(scene.things) for scene in drawn} == {1 + int(share)}


def test_a_scene_is_the_same_in_any_batch():
    pictures = ShapesSet(seed=11, two_share=0.5, split="train")
    images, things, captions = pictures.scenes([5, 9, 2**61 + 1, 2])
    for place, index in ((0, 5), (1, 9), (2, 2**61 + 1), (3, 2)):
        image, thing, (caption,) = pictures.scenes([index])
        np.testing.assert_array_equal(image[0], images[place])
        np.testing.assert_array_equal(thing[0], things[place])
        assert caption == captions[place]
    other, _, _ = ShapesSet(seed=12, two_share=0.5, split="train").scenes([5])
    assert (other[0] != images[0]).any()


def test_a_batch_follows_its_random_numbers():
    pictures = ShapesSet(seed=11, two_share=0.5, split="train")
    images, things, captions = pictures.batch(np.random.default_rng(1), 6)
    again = pictures.batch(np.random.default_rng(1), 6)
    np.testing.assert_array_equal(images, again[0])
    assert captions == again[2] and len(set(captions)) == 6
    assert (images.shape, images.dtype, things.shape, things.dtype) == ((6, 3, 64, 64), np.float32, (6, 64, 64), bool)
    assert captions != pictures.batch(np.random.default_rng(2), 6)[2]
    assert images.min() >= -1.0 and images.max() <= 1.0


def test_pixels_as_the_networks_take_them():
    picture = np.zeros((2, 3, 3), dtype=np.uint8)
    picture[0, 1] = (255, 0, 51)
    x = to_model([picture, picture])
    assert (x.shape, x.dtype) == ((2, 3, 2, 3), np.float32)
    np.testing.assert_allclose(x[1, :, 0, 1], [1.0, -1.0, -0.6], atol=1e-6)
    assert (x[0, :, 1] == -1.0).all()


def test_every_word_is_taught():
    words = ShapesSet(seed=0, two_share=0.5, split="train").words()
    assert len(set(words)) == len(words)
    assert {word for scene in scenes("train") + scenes("heldout") for word in scene.caption.split()} == set(words)


POLYGONS = {
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(math.sin(a), -math.cos(a)) for a in (0.0, 2 * math.pi / 3, 4 * math.pi / 3)],
    "star": [(r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k, r in enumerate([1.0, 0.45] * 5)],
    "cross": [
        (-0.32, -1), (0.32, -1), (0.32, -0.32), (1, -0.32), (1, 0.32), (0.32, 0.32), (0.32, 1), (-0.32, 1), (-0.32, 0.32),
        (-1, 0.32), (-1, -0.32), (-0.32, -0.32),
    ],
}  # fmt: skip


def inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in a shape of radius 1, from its corners, by counting the edges to the right of each point."""
    if shape in ("circle", "ring"):
        distance = np.sqrt(x * x + y * y)
        return (distance <= 1.0) & (distance >= (0.52 if shape == "ring" else 0.0))
    corners = POLYGONS[shape]
    crossings = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=int)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 != y2:
            spans = (y >= min(y1, y2)) & (y < max(y1, y2))
            crossings += spans & (x1 + (y - y1) * (x2 - x1) / (y2 - y1) > x)
    return crossings % 2 == 1


@pytest.mark.parametrize("radius", [6.8, 17.3])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_covers_what_its_corners_enclose(shape, radius):
    """Measured: a pixel is at most 0.33 off, at a tip of the star; a picture 0.0007 in the mean; an area 1.5 %."""
    centre, fine = (31.7, 32.4), 16
    points = (np.arange(SIZE * fine) + 0.5) / fine
    counted = inside(shape, (points[None, :] - centre[0]) / radius, (points[:, None] - centre[1]) / radius)
    exact = counted.reshape(SIZE, fine, SIZE, fine).mean(axis=(1, 3))
    grid = np.arange(SIZE) + 0.5
    cover = shapes.coverage(shape, grid[None, :] - centre[0], grid[:, None] - centre[1], radius)
    assert cover.min() >= 0.0 and cover.max() == 1.0
    assert np.abs(cover - exact).max() < 0.4
    assert np.abs(cover - exact).mean() < 0.001
    assert cover.sum() == pytest.approx(exact.sum(), rel=0.02)


def one(shape: str, **changes) -> Scene:
    thing = Thing(shape, "red", "large", True, **{"x": 30.25, "y": 33.5, "radius": 16.0, **changes})
    return Scene((thing,), "", "cyan", "")


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_are_mixtures_of_the_two_colours(shape):
    scene = one(shape)
    image, touched = shapes.draw(scene)
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
    ground, ink = np.array(PALETTE["cyan"], dtype=float), np.array(PALETTE["red"], dtype=float)
    share = (image - ground) @ (ink - ground) / ((ink - ground) @ (ink - ground))
    assert np.abs(ground + share[..., None] * (ink - ground) - image).max() <= 1.0
    edge = (share > 0.02) & (share < 0.98)
    assert edge.sum() >= 20
    assert share.min() >= 0.0 and share.max() <= 1.0 and (share == 1.0).sum() > 100
    np.testing.assert_array_equal(touched | (share == 0.0), True)
    np.testing.assert_array_equal(share[~touched], 0.0)
    grid = np.arange(SIZE) + 0.5
    np.testing.assert_array_equal(touched, shapes.coverage(shape, grid - 30.25, grid[:, None] - 33.5, 16.0) > 0)
    np.testing.assert_array_equal(shapes.render(scene), image)
    np.testing.assert_array_equal(shapes.foreground(scene), touched)


def test_things_neither_touch_each_other_nor_leave_the_picture():
    for scene in scenes("train")[:300]:
        masks = [shapes.foreground(Scene((thing,), "", scene.background, "")) for thing in scene.things]
        assert np.sum(masks, axis=0).max() == 1, scene.caption
        border = np.concatenate([edge for mask in masks for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1])])
        assert not border.any(), scene.caption


def test_colours_are_far_apart():
    names = list(PALETTE)
    distances = [math.dist(PALETTE[a], PALETTE[b]) for i, a in enumerate(names) for b in names[:i]]
    assert min(distances) > 80
    assert not set(COLOURS) & set(GREYS)
