"""What cannot be drawn is refused before anything is computed, in one line that says how to mend it."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.errors import BadRequest
from refdiff.pipelines import text_to_image as story
from refdiff.pipelines.request import LATER, OPTIONS, Streams, make_request

IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)
BAD = {
    "width off the grid": ({"width": 30}, "width 30 is not on this model's grid: choose a multiple of 4, such as 28 or 32"),
    "width zero": ({"width": 0}, "width 0 is not on this model's grid: choose a multiple of 4, such as 4 or 8"),
    "height negative": ({"height": -16}, "height -16 is not on this model's grid: choose a multiple of 4, such as 4 or 8"),
    "height a fraction": ({"height": 16.5}, "height 16.5 is not on this model's grid"),
    "height a word": ({"height": "16"}, "height 16 is not on this model's grid"),
    "no steps": ({"steps": 0}, "0 steps cannot be made: choose a whole number from 1 on"),
    "negative steps": ({"steps": -2}, "-2 steps cannot be made"),
    "half a step": ({"steps": 2.5}, "2.5 steps cannot be made"),
    "a flag for steps": ({"steps": True}, "True steps cannot be made"),
    "more steps than times": ({"steps": 1001}, "1001"),
    "unknown sampler": ({"sampler": "magic"}, 'unknown sampler "magic": `refdiff samplers` lists all'),
    "guidance a word": ({"guidance": "much"}, "guidance 'much' is not a number"),
    "guidance nan": ({"guidance": float("nan")}, "guidance nan is not a number"),
    "guidance infinite": ({"guidance": float("inf")}, "guidance inf is not a number"),
    "unknown stream": ({"rng": "dice"}, 'unknown random stream "dice": choose one of '),
    "negative seed": ({"seed": -1}, "the seed -1 is not a whole number from 0 to 2**64-1"),
    "too large a seed": ({"seed": 2**64}, "is not a whole number from 0 to 2**64-1"),
    "too many seeds": ({"seed": [1, 2]}, "2 seeds for 1 prompts: give one, or one a prompt"),
    "a seed of words": ({"seed": ["one"]}, "the seed ['one'] is not a whole number, nor a list of one a picture"),
    "a seed that is a word": ({"seed": "1"}, "the seed '1' is not a whole number"),
    "half a seed": ({"seed": 1.5}, "the seed 1.5 is not a whole number"),
    "a flag for a seed": ({"seed": True}, "the seed True is not a whole number"),
    "latents that are not numbers": ({"latents": np.full((1, 4, 4, 6), np.nan)}, "the latents hold values that are no finite"),
    "latents of another shape": (
        {"latents": np.zeros((1, 4, 8, 8))}, "latents of the shape [1, 4, 8, 8] do not fit: this request needs [1, 4, 4, 6]"
    ),
    "eta too large": ({"sampler": "ddim", "eta": 1.5}, "eta"),
    "eta for a sampler that draws nothing": ({"sampler": "euler", "eta": 0.5}, "eta"),
    "unknown option": ({"scale": 7.5}, "unknown option scale: known are steps, sampler, guidance"),
    "a mask": ({"mask": object()}, "option mask: drawing inside a mask is not built yet"),
    "no image": ({"image": object()}, "is no image: give a PIL image, a path, or uint8 [H,W,3]"),
    "no file of an image": ({"image": "nowhere.png"}, "the image nowhere.png cannot be read"),
    "an image of fractions": ({"image": np.zeros((8, 8, 3))}, "an image of float64 [8, 8, 3]: give a PIL image, a path, or"),
    "too many images": ({"image": [IMAGE, IMAGE]}, "2 images for 1 prompts: give one, or one a prompt"),
    "strength alone": ({"strength": 0.5}, "strength says how much of an image to change: give an image too"),
    "two beginnings": ({"image": IMAGE, "latents": np.zeros((1, 4, 4, 6))}, "latents and an image are two beginnings"),
    "strength above 1": ({"image": IMAGE, "strength": 1.5}, "strength 1.5 is not a number from 0 to 1"),
    "strength of no step": ({"image": IMAGE, "strength": 0.1}, "strength 0.1 of 1 steps leaves no step to make"),
    "another way to count": ({"image": IMAGE, "strength_as": "mine"}, 'unknown convention of strength "mine"'),
}  # fmt: skip
BASE = {"steps": 1, "width": 24, "height": 16}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_drawn_is_refused(name, tiny, monkeypatch):
    options, message = BAD[name]
    monkeypatch.setattr(story, "unet", lambda *args: pytest.fail("the network was called"))
    with pytest.raises(BadRequest) as raised:
        tiny("a cat", **{**BASE, **options})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("prompt", [[], None, 3, ["a cat", 3]], ids=str)
def test_what_is_no_prompt_is_refused(prompt, tiny):
    with pytest.raises(BadRequest, match="there is no prompt: give one, or a list of at least one, each of them a text"):
        tiny(prompt, **BASE)


@pytest.mark.parametrize("negative", [None, ["rain"]], ids=str)
def test_what_is_no_negative_prompt_is_refused(negative, tiny):
    with pytest.raises(BadRequest, match="the negative prompt .* is not a text"):
        tiny("a cat", negative, **BASE)


def test_numbers_of_numpy_are_numbers(tiny):
    plain = {"seed": 3, "steps": 2, "width": 24, "height": 16, "guidance": 2.0}
    request = make_request(tiny, "a cat", "", {name: np.array(value)[()] for name, value in plain.items()})
    assert request == make_request(tiny, "a cat", "", plain)
    assert make_request(tiny, ["a", "b"], "", {"seed": np.array([3, 9])}).seeds == (3, 9)
    assert {type(n) for n in (*request.seeds, request.steps, request.width)} == {int}  # a recipe is written as JSON


def test_half_of_a_character_is_refused(tiny):
    with pytest.raises(BadRequest, match="half of a character"):
        tiny("a cat \ud83d", **BASE)


@pytest.mark.parametrize("name", [*OPTIONS, *LATER])
def test_nothing_given_is_as_left_out(name, tiny):
    left_out, given = (make_request(tiny, "a cat", "", options) for options in ({}, {name: None}))
    assert given == left_out


def test_what_is_left_out_is_filled_in(tiny):
    request = make_request(tiny, ["a cat", "a dog"], "rain", {})
    assert (request.prompts, request.negative) == (("a cat", "a dog"), ("rain", "rain"))
    assert (request.steps, request.guidance, request.seeds, request.rng) == (20, 7.5, (0, 1), "torch")
    assert (request.width, request.height, request.latent_shape) == (64, 64, (2, 4, 16, 16))
    assert request.sampler is request.latents is request.eta is None


def test_each_picture_has_a_stream_of_its_own():
    both, second = Streams("torch", [7, 8]), Streams("torch", [8])
    for shape in ((4, 2, 3), (4, 2, 3), (1, 1, 1)):
        np.testing.assert_array_equal(both.normal((2, *shape))[1:], second.normal((1, *shape)))
    assert len({Streams("numpy", [seed]).normal((1, 4)).tobytes() for seed in range(20)}) == 20
