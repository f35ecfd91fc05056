"""From prompt to picture as diffusers' own StableDiffusionPipeline does it, with the same folders.

Measured: final latents agree within 3e-6 on the tiny synthetic folder and on the embedded model.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

import refdiff
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.text import Tokenizer
from refdiff.weights_path import weights_dir
from tests.parity.upstream import relative_error

LATENTS_BOUND = 1e-4
PSNR_BOUND = 50.0
SAMPLERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}
PROMPTS = ["a large red circle on a yellow background", "a small blue star above a green ring"]
NEGATIVE = "a black background, of 3 crosses"


@dataclass(frozen=True)
class Pair:
    """One folder, opened by both."""

    ours: refdiff.pipelines.text_to_image.Pipeline
    theirs: StableDiffusionPipeline

    def draw(self, prompts: list[str], negative: str, *, sampler: str, **options):
        """Both outputs; upstream's scheduler is made from the folder's file, which its constructor would rewrite."""
        self.theirs.scheduler = SAMPLERS[sampler].from_config(dict(self.ours.scheduler))
        out = self.ours(prompts, negative, sampler=sampler, steps=6, **options)
        return out, self.upstream(prompts, [negative] * len(prompts), **options)

    def upstream(self, prompts: list[str], negative: list[str], *, latents=None, seed=0, guidance, **options):
        """(latents, pictures [B,H,W,3]) of diffusers."""
        assert set(options) <= {"width", "height", "eta"}
        keywords = {
            "num_inference_steps": 6, "guidance_scale": guidance, "negative_prompt": negative, **options,
            "latents": None if latents is None else torch.from_numpy(latents),
            "generator": [torch.Generator().manual_seed(seed + k) for k in range(len(prompts))],
        }  # fmt: skip
        assert set(keywords) <= set(inspect.signature(self.theirs.__call__).parameters)
        seen = {}

        def keep(_pipe, _step, _t, values):
            seen["latents"] = values["latents"].clone()
            return values

        pictures = self.theirs(prompts, output_type="np", callback_on_step_end=keep, **keywords).images
        return seen["latents"].numpy(), np.round(pictures * 255).astype(np.uint8)


@pytest.fixture(scope="module", params=["tiny", "embedded"])
def pair(request, tmp_path_factory) -> Pair:
    folder = weights_dir() / "embedded" if request.param == "embedded" else tmp_path_factory.mktemp("pipeline") / "tiny"
    if request.param == "tiny":
        write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return Pair(refdiff.load(folder), opened_upstream(folder))


def opened_upstream(folder: Path) -> StableDiffusionPipeline:
    """diffusers' pipeline with float32 weights."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures, in decibels."""
    square = np.mean((ours.astype(np.float64) - theirs.astype(np.float64)) ** 2)
    return np.inf if square == 0 else 10 * np.log10(255**2 / square)


def agree(out, theirs: tuple[np.ndarray, np.ndarray], measure) -> None:
    """Latents within the bound, and the same pictures."""
    latents, pictures = theirs
    measure("final latents", out.latents, latents, LATENTS_BOUND)
    ours = np.stack([np.asarray(image) for image in out.images])
    assert ours.shape == pictures.shape
    assert psnr(ours, pictures) > PSNR_BOUND
    assert np.abs(ours.astype(int) - pictures.astype(int)).max() <= 1
    assert ours.std() > 10  # levels: not one flat colour


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("guidance", [7.5, 1.0])
def test_the_same_picture_from_the_same_latents(pair, measure, sampler, guidance):
    shape = (2, 4, 16, 16)
    latents = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    out, theirs = pair.draw(PROMPTS, NEGATIVE, sampler=sampler, guidance=guidance, latents=latents)
    agree(out, theirs, measure)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_picture_from_the_same_seed(pair, measure, sampler):
    """Upstream takes one generator a picture; ours is the default stream of each seed. The size is not square."""
    out, theirs = pair.draw(PROMPTS, "", sampler=sampler, guidance=3.0, seed=7, width=48, height=64)
    agree(out, theirs, measure)


def test_the_same_picture_with_fresh_noise_at_every_step(pair, measure):
    out, theirs = pair.draw(PROMPTS, "", sampler="ddim", guidance=3.0, seed=7, eta=0.8)
    agree(out, theirs, measure)


@pytest.mark.parametrize(
    "wrong",
    [
        {"guidance": 7.4},
        {"seed": 8},
        {"eta": 0.1},
    ],
    ids=str,
)
def test_the_comparison_sees_a_difference(pair, wrong):
    """The bound is far below the smallest change of an option."""
    right = {"guidance": 7.5, "seed": 7, "eta": 0.0}
    pair.theirs.scheduler = DDIMScheduler.from_config(dict(pair.ours.scheduler))
    ours = pair.ours(PROMPTS[:1], NEGATIVE, sampler="ddim", steps=6, **{**right, **wrong})
    latents, _ = pair.upstream(PROMPTS[:1], [NEGATIVE], **right)
    assert relative_error(ours.latents, latents) > 10 * LATENTS_BOUND


def test_negative_prompt_and_prompt_are_not_swapped(pair):
    pair.theirs.scheduler = DDIMScheduler.from_config(dict(pair.ours.scheduler))
    ours = pair.ours(NEGATIVE, PROMPTS[0], sampler="ddim", steps=6, guidance=7.5, seed=7)
    latents, _ = pair.upstream(PROMPTS[:1], [NEGATIVE], guidance=7.5, seed=7)
    assert relative_error(ours.latents, latents) > 10 * LATENTS_BOUND


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.35, 0.8, 1.0])
def test_the_same_picture_from_a_picture(pair, measure, sampler, strength):
    """diffusers' image-to-image pipeline with the same components; the picture is not of the model's grid."""
    images = [Image.fromarray(np.random.default_rng(k).integers(0, 256, (52, 66, 3), dtype=np.uint8)) for k in (0, 1)]
    scheduler = SAMPLERS[sampler].from_config(dict(pair.ours.scheduler))
    theirs = StableDiffusionImg2ImgPipeline(**{**pair.theirs.components, "scheduler": scheduler}, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    seen = {}

    def keep(_pipe, _step, _t, values):
        seen["latents"] = values["latents"].clone()
        return values

    generators = [torch.Generator().manual_seed(3 + k) for k in range(2)]
    levels = theirs(
        PROMPTS, negative_prompt=[NEGATIVE] * 2, image=images, strength=strength, num_inference_steps=10, guidance_scale=3.0,
        generator=generators, output_type="np", callback_on_step_end=keep,
    ).images  # fmt: skip
    out = pair.ours(PROMPTS, NEGATIVE, sampler=sampler, image=images, strength=strength, steps=10, guidance=3.0, seed=3)
    agree(out, (seen["latents"].numpy(), np.round(levels * 255).astype(np.uint8)), measure)
