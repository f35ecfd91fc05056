"""From a prompt to a picture: the same request is the same picture, and every part of a request has its effect."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import refdiff
from refdiff.core import primitive
from refdiff.core.params import flatten, tree
from refdiff.diffusion.noise import stream
from refdiff.errors import BadRequest, RefdiffError
from refdiff.pipelines import text_to_image as story
from refdiff.pipelines.text_to_image import Component, Output, check_prompt, pictures

OPTIONS = {"steps": 3, "seed": 4, "width": 24, "height": 16, "guidance": 5.0}
PROMPT = "a photograph of a cat"
TAUGHT = "a large red circle on a yellow background"


def same(one: Output, other: Output) -> bool:
    """Bit for bit, latents and pictures."""
    images = zip(one.images, other.images, strict=True)
    return one.latents.tobytes() == other.latents.tobytes() and all(a.tobytes() == b.tobytes() for a, b in images)


def differ(one: Output, other: Output) -> bool:
    """By more than roundings."""
    return np.abs(one.latents - other.latents).max() > 1e-3 * np.abs(one.latents).max()


@pytest.mark.parametrize("options", [{}, {"sampler": "euler"}, {"sampler": "ddim", "eta": 1.0}, {"rng": "numpy"}], ids=str)
def test_the_same_request_is_the_same_picture(options, tiny):
    first = tiny(PROMPT, **{**OPTIONS, **options})
    assert same(first, tiny(PROMPT, **{**OPTIONS, **options}))
    assert (first.latents.shape, first.latents.dtype) == ((1, 4, 4, 6), np.float32)
    assert [(image.size, image.mode) for image in first.images] == [((24, 16), "RGB")]


@pytest.mark.parametrize(
    "change",
    [{"seed": 5}, {"rng": "numpy"}, {"steps": 4}, {"sampler": "euler"}, {"guidance": 2.0}, {"sampler": "ddim", "eta": 1.0}],
    ids=str,
)
def test_every_option_has_its_effect(change, tiny):
    base = {"sampler": "ddim"} if "sampler" in change else {}
    assert differ(tiny(PROMPT, **OPTIONS, **base), tiny(PROMPT, **{**OPTIONS, **base, **change}))


def test_prompts_have_their_effect(tiny):
    plain = tiny(PROMPT, **OPTIONS)
    assert differ(plain, tiny("a photograph of a dog", **OPTIONS))
    assert differ(plain, tiny(PROMPT, "blurred", **OPTIONS))
    assert same(tiny(PROMPT, "blurred", **OPTIONS), tiny(PROMPT, negative_prompt="blurred", **OPTIONS))


def test_a_negative_prompt_is_pushed_away_from(tiny):
    """u + 2 (c - u) is c - 1 (u - c): with the two texts exchanged, guidance -1."""
    ours = tiny(PROMPT, "blurred", **{**OPTIONS, "guidance": 2.0})
    exchanged = tiny("blurred", PROMPT, **{**OPTIONS, "guidance": -1.0})
    np.testing.assert_allclose(exchanged.latents, ours.latents, rtol=0, atol=1e-4 * np.abs(ours.latents).max())


def test_the_first_latents_are_the_seeds_normals(tiny):
    drawn = tiny(PROMPT, **OPTIONS)
    latents = stream("torch", OPTIONS["seed"]).normal((1, 4, 4, 6))
    given = tiny(PROMPT, latents=latents, **{**OPTIONS, "seed": 99})
    assert same(given, drawn)
    assert (given.recipe["latents"], drawn.recipe["latents"]) == ("given", "drawn")
    assert differ(tiny(PROMPT, latents=latents[:, ::-1], **OPTIONS), drawn)


def test_latents_are_left_alone(tiny):
    latents = np.ones((1, 4, 4, 6))
    latents.flags.writeable = False
    assert tiny(PROMPT, latents=latents, **OPTIONS).latents.dtype == np.float32


def test_a_seed_is_followed_by_the_next_ones(tiny):
    prompts = ["a red circle", PROMPT, PROMPT]
    options = {**OPTIONS, "sampler": "ddim", "eta": 1.0}  # noise is drawn in the loop too
    batch = tiny(prompts, **options)
    assert same(batch, tiny(prompts, **{**options, "seed": [4, 5, 6]}))
    assert batch.recipe["seed"] == [4, 5, 6]
    for k, prompt in enumerate(prompts):
        alone = tiny(prompt, **{**options, "seed": 4 + k})
        assert batch.images[k].tobytes() == alone.images[0].tobytes()
        # A larger batch may be summed in another order: the last bits of the latents, never the picture.
        np.testing.assert_allclose(batch.latents[k], alone.latents[0], rtol=0, atol=1e-5 * np.abs(alone.latents).max())
    assert differ(tiny(PROMPT, **{**options, "seed": 5}), tiny(PROMPT, **{**options, "seed": 6}))


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many latents each call of the network is given."""
    calls: list[int] = []
    unet = story.unet

    def counting(params, config, x, t, context):
        assert len(x) == len(t) == len(context)
        calls.append(len(x))
        return unet(params, config, x, t, context)

    monkeypatch.setattr(story, "unet", counting)
    return calls


@pytest.mark.parametrize(("guidance", "each"), [(1.0, 1), (1, 1), (7.5, 2), (-1.0, 2)])
@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_one_call_of_the_network_a_step(guidance, each, sampler, tiny, asked):
    tiny(PROMPT, **{**OPTIONS, "guidance": guidance, "sampler": sampler})
    assert asked == [each] * OPTIONS["steps"]


def test_guidance_one_is_the_text_alone(tiny):
    one = tiny(PROMPT, **{**OPTIONS, "guidance": 1.0})
    assert same(one, tiny(PROMPT, "blurred", **{**OPTIONS, "guidance": 1.0}))
    almost = tiny(PROMPT, "blurred", **{**OPTIONS, "guidance": 1.0 + 1e-7})
    np.testing.assert_allclose(almost.latents, one.latents, rtol=0, atol=1e-4 * np.abs(one.latents).max())


def test_guidance_zero_is_the_negative_prompt_alone(tiny):
    for negative in ("", "blurred"):
        zero = tiny(PROMPT, negative, **{**OPTIONS, "guidance": 0.0})
        alone = tiny(negative, **{**OPTIONS, "guidance": 1.0})
        np.testing.assert_allclose(zero.latents, alone.latents, rtol=0, atol=1e-5 * np.abs(alone.latents).max())


def test_a_callback_sees_every_step(tiny):
    steps = []
    out = tiny(PROMPT, callback=steps.append, **OPTIONS)
    assert [step.index for step in steps] == [0, 1, 2]
    assert all(a.sigma > b.sigma for a, b in zip(steps, steps[1:], strict=False))
    assert all(step.x.shape == step.denoised.shape == (1, 4, 4, 6) for step in steps)
    np.testing.assert_array_equal(steps[-1].x, out.latents)
    assert same(out, tiny(PROMPT, **OPTIONS))


class Stop(Exception):
    """Raised by a callback."""


def test_a_callback_can_interrupt(tiny, asked):
    def stop(step):
        if step.index == 1:
            raise Stop

    fast = replace(tiny, kernels="fast")
    before = primitive.get_mode()
    with pytest.raises(Stop):
        fast(PROMPT, callback=stop, **OPTIONS)
    assert asked == [2, 2]
    assert primitive.get_mode() == before


RECIPES: list[dict] = [
    {}, {"sampler": "euler", "rng": "numpy"}, {"sampler": "ddim", "eta": 0.5}, {"sampler": "DPM++ 2M Karras"},
    {"sampler": "dpm_multistep"}, {"sampler": "k_euler_ancestral"},
    {"sampler": "euler", "steps": None, "timesteps": [999, 500, 20]},
    {"sampler": "EulerDiscreteScheduler", "steps": None, "sigmas": [14.6, 1.5, 0.0]},
]  # fmt: skip


@pytest.mark.parametrize("options", RECIPES, ids=str)
def test_a_recipe_makes_the_pictures_again(options, tiny, tiny_folder):
    out = tiny([PROMPT, "a cat"], "blurred", **{**OPTIONS, **options})
    recipe = json.loads(json.dumps(out.recipe))
    assert recipe["model"]["fingerprint"] == tiny.source["fingerprint"]
    pipe = refdiff.load(tiny_folder, device=recipe["device"], dtype=recipe["dtype"], kernels=recipe["kernels"])
    names = ["steps", "sampler", "guidance", "seed", "rng", "width", "height", "eta", "timesteps", "sigmas"]
    again = pipe(recipe["prompt"], recipe["negative_prompt"], **{name: recipe[name] for name in names if name in recipe})
    assert same(again, out)
    assert {**again.recipe, "sampler": None} == {**out.recipe, "sampler": None}
    assert again.recipe["sampler"] == recipe["sampler"]


def test_a_model_may_say_how_much_fresh_noise_its_own_sampler_takes(tiny):
    plain = replace(tiny, scheduler={"_class_name": "DDIMScheduler", "clip_sample": False})
    noisy = replace(plain, defaults={**tiny.defaults, "eta": 0.7})
    out = noisy(PROMPT, **OPTIONS)
    assert out.recipe["eta"] == 0.7
    assert same(out, plain(PROMPT, **OPTIONS, eta=0.7))
    assert not same(out, plain(PROMPT, **OPTIONS))
    assert same(noisy(PROMPT, **OPTIONS, eta=0.0), plain(PROMPT, **OPTIONS))
    assert same(noisy(PROMPT, **OPTIONS, sampler="euler"), plain(PROMPT, **OPTIONS, sampler="euler"))


def test_listed_times_are_the_steps(tiny):
    seen = []
    out = tiny(PROMPT, **{**OPTIONS, "steps": None}, sampler="euler", timesteps=[900, 400, 3], callback=seen.append)
    assert (len(seen), out.recipe["steps"], out.recipe["timesteps"]) == (3, 3, [900, 400, 3])
    assert seen[-1].sigma == 0.0
    with pytest.raises(BadRequest, match="4 steps and timesteps for 3: leave steps out"):
        tiny(PROMPT, **{**OPTIONS, "steps": 4}, sampler="euler", timesteps=[900, 400, 3])
    with pytest.raises(BadRequest, match="takes no timesteps: give a number of steps, or use --sampler euler"):
        tiny(PROMPT, sampler="ddim", timesteps=[900, 400, 3])


def test_what_a_model_says_of_itself_fills_in_what_was_left_out(embedded):
    recipe = embedded(TAUGHT, steps=2).recipe
    assert (recipe["guidance"], recipe["seed"], recipe["rng"]) == (embedded.defaults["guidance"], [0], "torch")
    assert (recipe["width"], recipe["height"]) == (64, 64)
    assert recipe["sampler"] == embedded.scheduler["_class_name"]
    assert recipe["versions"] == {"refdiff": refdiff.__version__, "numpy": np.__version__}
    seen = []
    with pytest.raises(Stop):
        embedded(TAUGHT, callback=lambda step: seen.append(step) or stop())
    assert len(seen) == 1


def stop() -> None:
    raise Stop


def test_the_embedded_model_draws_the_same_in_batches_and_alone(embedded):
    batch = embedded([TAUGHT, "a small blue cross"], steps=2, seed=8)
    alone = embedded("a small blue cross", steps=2, seed=9)
    assert batch.images[1].tobytes() == alone.images[0].tobytes()
    assert batch.images[0].tobytes() != alone.images[0].tobytes()
    assert same(embedded("a small blue cross", steps=2, seed=9), alone)


def test_other_sizes_than_the_models_own(embedded):
    out = embedded(TAUGHT, steps=1, width=32, height=48)
    assert (out.images[0].size, out.latents.shape) == ((32, 48), (1, 4, 12, 8))


def test_kernels_and_precision_do_not_change_the_picture(tiny, tiny_folder):
    spec = tiny(PROMPT, **OPTIONS)
    fast = replace(tiny, kernels="fast")(PROMPT, **OPTIONS)
    double = refdiff.load(tiny_folder, dtype="float64", kernels="spec")(PROMPT, **OPTIONS)
    assert double.latents.dtype == np.float64
    for other in (fast, double):
        np.testing.assert_allclose(other.latents, spec.latents, rtol=0, atol=1e-4 * np.abs(spec.latents).max())
        difference = np.asarray(other.images[0], dtype=int) - np.asarray(spec.images[0], dtype=int)
        assert np.abs(difference).max() <= 1


def test_an_empty_prompt_is_a_prompt(tiny, embedded):
    assert check_prompt(embedded, "") == check_prompt(tiny, "") == []
    empty = tiny("", **OPTIONS)
    assert np.isfinite(empty.latents).all() and differ(empty, tiny(PROMPT, **OPTIONS))
    assert same(empty, tiny("", **{**OPTIONS, "guidance": 5.0}))


def test_a_prompt_that_is_too_long_is_cut_and_says_where(tiny, embedded):
    long = " ".join(["a cat"] * 37) + " on a mat"
    (warning,) = check_prompt(tiny, long)
    assert warning == 'the prompt is longer than 77 tokens; this part is cut off: "a mat"'
    assert same(tiny(long, **OPTIONS), tiny(long + " of straw", **OPTIONS))
    assert check_prompt(tiny, " ".join(["a cat"] * 37) + " on") == []
    limit = embedded.tokenizer.max_length
    (warning,) = check_prompt(embedded, " ".join(["a"] * (limit - 2)) + " red circle")
    assert warning == f'the prompt is longer than {limit} tokens; this part is cut off: "red circle"'


def test_words_that_were_never_taught_are_named(tiny, embedded):
    (warning,) = check_prompt(embedded, "a red dragon above a Dragon on a blue castle")
    assert warning == f'this model was never taught: dragon, castle (it understands, for example: "{TAUGHT}")'
    assert check_prompt(embedded, TAUGHT) == check_prompt(embedded, embedded.defaults["example"]) == []
    assert check_prompt(tiny, "a red dragon") == []
    silent = replace(embedded, defaults={"steps": 1, "guidance": 1.0})
    assert check_prompt(silent, "a dragon") == ["this model was never taught: dragon"]


def test_pixels_are_rounded_and_kept_in_range(tiny, monkeypatch):
    values = np.array([-3.0, -1.0, -0.5, 0.0, 0.0039, 1.0, 3.0, 0.4980392])
    monkeypatch.setattr(story, "decode", lambda params, config, z: np.tile(values, (1, 3, 2, 1)))
    (image,) = pictures(tiny, np.zeros((1, 4, 2, 4), dtype=np.float32))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 64, 128, 128, 255, 255, 191]


def test_latents_are_divided_by_the_scaling_factor(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(story, "decode", lambda params, config, z: seen.append(z) or np.zeros((1, 3, 8, 8)))
    pictures(tiny, np.full((2, 4, 2, 2), 0.36430, dtype=np.float32))
    assert tiny.vae.config.scaling_factor == 0.18215
    assert [z.shape for z in seen] == [(1, 4, 2, 2)] * 2 and seen[0].dtype == np.float32
    np.testing.assert_allclose(seen, 2.0, rtol=1e-6)


def test_a_picture_that_is_not_finite_is_no_picture(tiny):
    weights = flatten(tiny.vae.params)
    key = "decoder.conv_out.bias"
    broken = replace(tiny, vae=Component(tiny.vae.config, tree({**weights, key: weights[key] * np.nan})))
    with pytest.raises(RefdiffError, match="not finite") as raised:
        broken(PROMPT, **OPTIONS)
    assert not isinstance(raised.value, BadRequest)
