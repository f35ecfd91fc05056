"""From a picture to a picture: how much of it stays, where the run begins, and what is read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from refdiff.core import primitive
from refdiff.diffusion.noise import stream
from refdiff.models.vae import encode
from refdiff.pipelines.request import images_of, make_request, pixels_of
from refdiff.samplers import from_config

PROMPT = "a photograph of a cat"
OPTIONS = {"steps": 10, "seed": 4, "guidance": 3.0, "sampler": "ddim"}


def picture(width=24, height=16, seed=0):
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height))


def test_the_first_latent_is_the_pictures_with_the_noise_of_its_step(tiny):
    """Written out once more, from the encoder, the stream of the seed and the table of what is left of the signal."""
    firsts = []

    class Seen(Exception):
        pass

    def stop(step):
        firsts.append(step)
        raise Seen

    with pytest.raises(Seen):
        tiny(PROMPT, image=picture(), strength=0.5, callback=stop, **{**OPTIONS, "guidance": 0.0})
    with primitive.mode("spec"):
        mean, logvar = encode(tiny.vae.params, tiny.vae.config, pixels_of([picture()], 24, 16))
    source = stream("torch", OPTIONS["seed"])
    shape = mean.shape
    x0 = (mean + np.exp(logvar / 2) * source.normal(shape)) * tiny.vae.config.scaling_factor
    noise = source.normal(shape)
    sampler = from_config({**tiny.scheduler, "clip_sample": False}, name="ddim")
    alpha = sampler.alphas[sampler.timesteps(10)[5]]
    noisy = np.sqrt(alpha) * x0 + np.sqrt(1 - alpha) * noise
    seen = sampler.add_noise(x0, noise, 10, 5)
    np.testing.assert_allclose(seen, noisy, rtol=1e-4, atol=1e-5)
    assert firsts[0].index == 5
    said = (noisy - np.sqrt(alpha) * firsts[0].denoised) / np.sqrt(1 - alpha)  # what the network took the noise to be
    target = sampler.alphas[sampler.timesteps(10)[6]]
    again = np.sqrt(target) * firsts[0].denoised + np.sqrt(1 - target) * said
    np.testing.assert_allclose(firsts[0].x, again, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("strength", "convention", "made"), [(0.35, "diffusers", 3), (0.35, "webui", 4), (1.0, "diffusers", 10)])
def test_strength_is_the_share_of_the_steps(strength, convention, made, tiny):
    indices = []
    tiny(
        PROMPT, image=picture(), strength=strength, strength_as=convention, callback=lambda s: indices.append(s.index), **OPTIONS
    )
    assert indices == list(range(10 - made, 10))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm_multistep", "heun"])
def test_the_less_strength_the_more_of_the_picture_stays(sampler, tiny):
    options = {**OPTIONS, "sampler": sampler}
    with primitive.mode("spec"):
        mean, _ = encode(tiny.vae.params, tiny.vae.config, pixels_of([picture()], 24, 16))
    x0 = mean * tiny.vae.config.scaling_factor
    away = [
        np.linalg.norm(tiny(PROMPT, image=picture(), strength=strength, **options).latents - x0) for strength in (0.1, 0.5, 1.0)
    ]
    assert away[0] < away[1] < away[2]


def test_each_picture_of_a_batch_is_that_picture_alone(tiny):
    both = tiny([PROMPT] * 2, image=[picture(), picture(seed=1)], **OPTIONS)
    alone = tiny(PROMPT, image=picture(seed=1), **{**OPTIONS, "seed": 5})
    np.testing.assert_allclose(both.latents[1:], alone.latents, rtol=0, atol=1e-5 * np.abs(alone.latents).max())


def test_the_size_is_the_pictures_on_the_grid_of_the_model(tiny):
    image = picture(27, 18)
    request = make_request(tiny, PROMPT, "", {"image": image})
    assert (request.width, request.height, request.picture.shape) == (24, 16, (1, 3, 16, 24))
    wide = make_request(tiny, PROMPT, "", {"image": image, "width": 32})
    assert (wide.width, wide.height, wide.picture.shape) == (32, 16, (1, 3, 16, 32))


def test_black_is_minus_one_and_white_is_one():
    levels = np.zeros((4, 4, 3), dtype=np.uint8)
    levels[:, :, 1] = 255
    pixels = pixels_of(images_of(levels, 1), 4, 4)
    assert (pixels.dtype, pixels[:, 0].max(), pixels[:, 1].min()) == (np.float32, -1.0, 1.0)


def test_what_a_picture_can_be_given_as(tiny, tmp_path):
    image = picture()
    image.save(tmp_path / "in.png")
    requests = [make_request(tiny, PROMPT, "", {"image": given}) for given in (image, np.asarray(image), tmp_path / "in.png")]
    for request in requests[1:]:
        np.testing.assert_array_equal(request.picture, requests[0].picture)
    grey = make_request(tiny, PROMPT, "", {"image": image.convert("L")})
    assert np.ptp(grey.picture, axis=1).max() == 0.0


def test_the_recipe_tells_the_picture_and_the_strength(tiny):
    recipes = [tiny(PROMPT, image=picture(seed=k), **OPTIONS).recipe for k in (0, 0, 1)]
    assert recipes[0]["strength"] == 0.8 and recipes[0]["image"] == recipes[1]["image"] != recipes[2]["image"]
    assert "strength" not in tiny(PROMPT, width=24, height=16, **OPTIONS).recipe
