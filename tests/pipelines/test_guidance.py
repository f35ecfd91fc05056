"""How guidance runs through a whole picture: what the network is asked, step by step, and what the recipe says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refdiff
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.errors import BadRequest
from refdiff.pipelines import text_to_image as story
from refdiff.pipelines.text_to_image import Pipeline
from refdiff.text import Tokenizer

OPTIONS = {"steps": 4, "seed": 4, "width": 24, "height": 16}
PROMPTS = ["a red circle", "a photograph of a cat"]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder: Path = tmp_path_factory.mktemp("guidance") / "tiny"
    write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return refdiff.load(folder, kernels="spec")


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many latents each call of the network is given."""
    calls: list[int] = []
    unet = story.unet
    monkeypatch.setattr(story, "unet", lambda params, config, x, *rest: (calls.append(len(x)), unet(params, config, x, *rest))[1])
    return calls


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"guidance": 5.0}, [4, 4, 4, 4]),
        ({"guidance": 1.0}, [2, 2, 2, 2]),
        ({"guidance": 0.0}, [2, 2, 2, 2]),
        ({"guidance": 0.0, "guidance_rescale": 0.5}, [4, 4, 4, 4]),
        ({"guidance": [5.0, 1.0, 0.0, 3.0]}, [4, 2, 2, 4]),
        ({"guidance": 5.0, "guidance_interval": (0.5, 1.0)}, [2, 2, 4, 2]),
        ({"guidance": [5.0, 1.0, 5.0, 1.0, ], "sampler": "pndm"}, [4, 4, 2, 4, 2]),
    ],
    ids=str,
)  # fmt: skip
def test_a_branch_that_has_no_part_is_not_computed(pipe, asked, options, counts):
    pipe(PROMPTS, "blurry", **{"sampler": "ddim", **OPTIONS, **options})
    assert asked == counts


def test_scale_0_is_the_negative_prompt_alone(pipe):
    zero = pipe(PROMPTS, "blurry", guidance=0.0, **OPTIONS).latents
    np.testing.assert_allclose(zero, pipe(["blurry"] * 2, "", guidance=1.0, **OPTIONS).latents, rtol=0, atol=1e-6)
    nearly = pipe(PROMPTS, "blurry", guidance=1e-9, **OPTIONS).latents
    np.testing.assert_allclose(zero, nearly, rtol=0, atol=1e-4 * np.abs(zero).max())


def test_one_scale_is_as_many_equal_ones(pipe):
    one, many = (pipe(PROMPTS, guidance=scale, **OPTIONS).latents for scale in (5.0, [5.0] * 4))
    np.testing.assert_array_equal(one, many)


def test_an_interval_is_the_scales_that_it_leaves(pipe):
    interval = pipe(PROMPTS, guidance=5.0, guidance_interval=(0.5, 1.0), sampler="ddim", **OPTIONS).latents
    scales = pipe(PROMPTS, guidance=[1.0, 1.0, 5.0, 1.0], sampler="ddim", **OPTIONS).latents
    np.testing.assert_array_equal(interval, scales)


def test_rescaling_changes_the_picture_by_its_share(pipe):
    none, half, whole = (pipe(PROMPTS, guidance=9.0, guidance_rescale=phi, **OPTIONS).latents for phi in (0.0, 0.5, 1.0))
    assert np.abs(half - none).max() > 1e-3 and np.abs(whole - half).max() > 1e-3
    alone = pipe(PROMPTS[1], guidance=9.0, guidance_rescale=1.0, **{**OPTIONS, "seed": 5}).latents
    np.testing.assert_allclose(whole[1:], alone, rtol=0, atol=1e-4 * np.abs(alone).max())


def test_the_recipe_says_so(pipe):
    recipe = pipe(PROMPTS[0], guidance=[5.0, 4.0, 3.0, 2.0], guidance_rescale=0.7, guidance_interval=(0.3, 5), **OPTIONS).recipe
    assert (recipe["guidance"], recipe["guidance_rescale"]) == ([5.0, 4.0, 3.0, 2.0], 0.7)
    assert recipe["guidance_interval"] == [0.3, 5.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": "7"}, "guidance '7' is not a number"),
        ({"guidance": []}, "not a number"),
        ({"guidance": [1.0, float("nan")]}, "not a number"),
        ({"guidance": [1.0, 2.0]}, "2 scales of guidance for 4 steps"),
        ({"guidance_rescale": 1.5}, "from 0 to 1"),
        ({"guidance_rescale": "a"}, "from 0 to 1"),
        ({"guidance_interval": (2.0, 1.0)}, "two sigmas"),
        ({"guidance_interval": (1.0,)}, "two sigmas"),
        ({"guidance_interval": 3.0}, "two sigmas"),
    ],
    ids=str,
)
def test_requests_that_cannot_be_met(pipe, options, message):
    with pytest.raises(BadRequest, match=message):
        pipe(PROMPTS[0], **{**OPTIONS, **options})
