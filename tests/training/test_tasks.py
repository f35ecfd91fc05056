"""What a step of training sees: the batches of both tasks, their first weights, and that the loss falls."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from refdiff.core import primitive
from refdiff.core.params import Leaf, flatten_declaration, tree
from refdiff.models import clip_text, unet, vae
from refdiff.training.initial import EMBEDDING_DEVIATION, initial_values
from refdiff.training.unet_task import encode_pictures
from tests.models.examples import normal
from tests.training.examples import (
    COUNT,
    DECODER_TASK,
    LATENTS,
    SETTINGS,
    TASKS,
    TEXT,
    UNET,
    UNET_TASK,
    VAE,
    VAE_TASK,
    Blocks,
    go_on,
)

BIG = replace(UNET_TASK, batch_size=64)


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_depends_on_the_seed_and_the_step_alone(name):
    task = TASKS[name]
    first = task.batch(5)
    task.batch(6)
    for other in (task, replace(task)):
        again = other.batch(5)
        assert list(again) == list(first)
        assert all(again[key].tobytes() == first[key].tobytes() for key in first)
    for other in (task.batch(4), replace(task, seed=8).batch(5)):
        assert any(other[key].tobytes() != first[key].tobytes() for key in first)


@pytest.mark.parametrize("name", TASKS)
def test_every_array_of_a_batch_has_its_samples_first(name):
    batch = TASKS[name].batch(9)
    assert {len(array) for array in batch.values()} == {TASKS[name].batch_size if name != "vae" else VAE_TASK.whole_batch}
    assert all(array.dtype in (np.float32, np.int64) for array in batch.values())


def chosen_by(batch: dict[str, np.ndarray]) -> list[int]:
    """Which picture each sample of a U-Net's batch holds."""
    return [next(k for k in range(COUNT) if (LATENTS.latents[k] == x0).all()) for x0 in batch["x0"]]


def test_a_sample_keeps_its_latents_ids_and_things_together():
    batch = replace(BIG, drop_caption=0.0).batch(1)
    chosen = chosen_by(batch)
    assert set(chosen) == set(range(COUNT))
    np.testing.assert_array_equal(batch["ids"], LATENTS.ids[chosen])
    np.testing.assert_allclose(batch["weight"], 1.0 + 2.0 * LATENTS.things[chosen][:, None], rtol=1e-6)
    assert batch["weight"].dtype == batch["x0"].dtype == np.float32


def test_times_count_by_what_is_left_of_the_signal():
    """Hang et al. 2023, for an error in v, with a least weight; the examples here have 1, with which all times count alike."""
    plain, task = replace(BIG, plain_from=0), replace(BIG, plain_from=0, snr_cap=5.0, least_weight=0.1)
    assert (plain.batch(1)["weight"] == 1.0).all()
    batch, wanted = task.batch(1), []
    for t in batch["t"]:
        alpha = float(task.alphas_cumprod[t])
        snr = alpha / (1.0 - alpha)
        wanted.append(max(min(snr, 5.0) / (snr + 1.0), 0.1))
    assert min(wanted) == 0.1 and max(wanted) > 0.8
    np.testing.assert_allclose(batch["weight"][:, 0, 0, 0], wanted, rtol=1e-6)


def test_captions_left_out_become_empty():
    assert (replace(BIG, drop_caption=1.0).batch(1)["ids"] == LATENTS.empty).all()
    left_out = samples = 0
    for step in range(1, 31):
        batch = BIG.batch(step)
        empty = (batch["ids"] == LATENTS.empty).all(axis=1)
        kept = LATENTS.ids[chosen_by(batch)]
        np.testing.assert_array_equal(batch["ids"][~empty], kept[~empty])
        left_out, samples = left_out + empty.sum(), samples + len(empty)
    assert abs(left_out - 0.25 * samples) < 4.5 * math.sqrt(samples * 0.25 * 0.75)


def test_the_noise_is_standard_normal_and_fresh():
    noise = np.concatenate([BIG.batch(step)["noise"] for step in range(1, 6)])
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 4.5 / math.sqrt(noise.size)
    assert abs(noise.var() - 1.0) < 4.5 * math.sqrt(2.0 / noise.size)
    assert len(np.unique(noise)) > 0.99 * noise.size


@pytest.mark.parametrize("step", [1, 2, 77])
def test_times_follow_the_quantiles(step):
    """One time in each of the batch's equal shares: between the quantiles at that share's two ends."""
    t = BIG.batch(step)["t"]
    ends = np.interp(np.arange(65) / 64, *BIG.time_quantiles)
    ordered = np.sort(t)
    assert (ordered >= np.floor(ends[:-1])).all() and (ordered <= np.ceil(ends[1:])).all()
    assert (t != ordered).any(), "the order of the times says which picture they belong to"
    below = {limit: (t < limit).mean() for limit in (100, 700)}
    assert below == {100: pytest.approx(0.2, abs=1 / 64), 700: pytest.approx(0.9, abs=1 / 64)}


def test_times_stay_within_the_schedule():
    short = replace(BIG, alphas_cumprod=BIG.alphas_cumprod[:500])
    t = short.batch(1)["t"]
    assert t.max() == 499 and t.min() >= 0
    np.testing.assert_array_equal(t, np.minimum(BIG.batch(1)["t"], 499))


def test_things_weigh_no_more_from_a_step_on():
    weights = {step: UNET_TASK.batch(step)["weight"] for step in (1, 3, 4, 5)}
    assert weights[1].max() > 1.5 and weights[3].max() > 1.5
    assert (weights[1] >= 1.0).all()
    assert (weights[4] == 1.0).all() and (weights[5] == 1.0).all()


def test_how_much_a_time_counts():
    """Hang et al. 2023, equation 9, for v: min(snr, cap) / (snr + 1), one number at a time."""
    weighted = replace(BIG, snr_cap=5.0, least_weight=0.1)
    t = np.array([0, 130, 300, 500, 800, 999])
    found = weighted.time_weight(t)
    assert found.shape == (6, 1, 1, 1)
    for time, weight in zip(t, found.ravel(), strict=True):
        alpha = 0.99 - 0.98 * time / 999
        snr = alpha / (1 - alpha)
        assert weight == pytest.approx(max(min(snr, 5.0) / (snr + 1), 0.1), rel=1e-4)
    assert found[-1] == 0.1 and found[0] < 0.1 + found[1]
    batch, plain = weighted.batch(2), BIG.batch(2)
    np.testing.assert_allclose(batch["weight"], plain["weight"] * weighted.time_weight(batch["t"]), rtol=1e-6)


class Coordinates(Blocks):
    """Pictures that say where each of their pixels was: channels hold its row, its column and the number of the picture."""

    def batch(self, rng, count):
        _, things, captions = super().batch(rng, count)
        rows, columns = np.mgrid[:16, :16].astype(np.float32)
        return np.stack([np.stack([rows, columns, rows * 0 + k]) for k in range(count)]), things, captions


class Empty(Coordinates):
    def batch(self, rng, count):
        images, things, captions = super().batch(rng, count)
        return images, things & False, captions


@pytest.mark.parametrize("step", range(1, 4))
def test_crops_are_windows_with_a_thing_in_each(step):
    task = replace(VAE_TASK, pictures=Coordinates(), crop_batch=32)
    batch = task.batch(step)
    assert batch["images"].shape == (32, 3, 8, 8) and batch["noise"].shape == (32, 4, 4, 4)
    assert batch["pixel_weight"].shape == (32, 1, 8, 8)
    rows, columns = np.mgrid[:8, :8]
    for k, image in enumerate(batch["images"]):
        np.testing.assert_array_equal(image, [image[0, 0, 0] + rows, image[1, 0, 0] + columns, rows * 0 + k])
    assert set(np.unique(batch["pixel_weight"])) == {1.0, 4.0}
    assert (batch["pixel_weight"] == 4.0).any(axis=(1, 2, 3)).all()
    places = {(image[0, 0, 0], image[1, 0, 0]) for image in batch["images"]}
    assert len(places) > 10


def test_the_weight_of_a_crop_is_that_of_its_pixels():
    task = replace(VAE_TASK, crop_batch=32)
    batch = task.batch(1)
    thing = (batch["images"] == np.float32(0.9)).any(axis=1)
    np.testing.assert_array_equal(batch["pixel_weight"][:, 0], np.where(thing, 4.0, 1.0))


def test_a_picture_without_things_is_cropped_in_its_middle():
    batch = replace(VAE_TASK, pictures=Empty(), crop_batch=32).batch(1)
    assert (batch["pixel_weight"] == 1.0).all()
    assert set(batch["images"][:, :2, 0, 0].ravel()) <= set(range(2, 7))


def test_whole_pictures_follow_crops():
    shapes = [VAE_TASK.batch(step)["images"].shape for step in range(1, 6)]
    assert shapes == [(4, 3, 8, 8)] * 3 + [(3, 3, 16, 16)] * 2
    assert VAE_TASK.batch(4)["noise"].shape == (3, 4, 8, 8)


DECLARATION = {
    "a": {"weight": Leaf((50, 40, 3, 3), "weight"), "bias": Leaf((50,), "bias")},
    "b": {"weight": Leaf((300, 4), "weight"), "bias": Leaf((300,), "bias")},
    "norm": {"weight": Leaf((9,), "gain"), "bias": Leaf((9,), "offset")},
    "token": Leaf((100, 50), "embedding"),
}


def test_first_values():
    values = initial_values(DECLARATION, seed=3)
    assert list(values) == list(flatten_declaration(DECLARATION))
    assert all(value.dtype == np.float32 for value in values.values())
    for name, fan_in in (("a", 40 * 9), ("b", 4)):
        for part in ("weight", "bias"):
            value, bound = values[f"{name}.{part}"], 1.0 / math.sqrt(fan_in)
            assert 0.9 * bound < np.abs(value).max() <= bound * (1 + 1e-6)
            assert value.std() == pytest.approx(bound / math.sqrt(3.0), rel=0.15)
    assert (values["norm.weight"] == 1.0).all() and (values["norm.bias"] == 0.0).all()
    assert values["token"].std() == pytest.approx(EMBEDDING_DEVIATION, rel=0.05)
    again, other = initial_values(DECLARATION, seed=3), initial_values(DECLARATION, seed=4)
    assert all(again[key].tobytes() == values[key].tobytes() for key in values)
    assert (other["a.weight"] != values["a.weight"]).all()


def test_the_unet_starts_by_predicting_nothing():
    """Every residual branch and the output begin as zero, so the first loss is the target's own mean square."""
    start = UNET_TASK.initial()
    declared = {"unet": unet.declare(UNET), "text_encoder": clip_text.declare(TEXT)}
    assert list(start) == list(flatten_declaration(declared))
    context = normal(2, 5, TEXT.hidden_size)
    predicted = unet.unet(tree(start).unet, UNET, normal(2, 4, 4, 6), np.array([3, 500]), context)
    assert (predicted == 0.0).all()
    assert not [key for key in start if key.startswith("text_encoder") and not start[key].any() and not key.endswith("bias")]
    zero = {key.rsplit(".", 2)[-2] for key, value in start.items() if key.endswith("weight") and not value.any()}
    assert zero == {"conv2", "proj_out", "conv_out"}


@pytest.mark.parametrize("name", TASKS)
def test_a_start_is_taken_as_it_is(name):
    start = {key: value + np.float32(0.5) for key, value in TASKS[name].initial().items()}
    task = replace(TASKS[name], start=start)
    assert all(value is start[key] for key, value in task.initial().items())


class Fixed(Blocks):
    """The same pictures at every step."""

    def batch(self, rng, count):
        return super().batch(np.random.default_rng(3), count)


ONE_LATENT_A_CAPTION = replace(LATENTS, latents=np.sign(LATENTS.latents[:, :1, :1, :1]) * np.ones_like(LATENTS.latents))
LEARN = {
    "vae": (replace(VAE_TASK, pictures=Fixed(), whole_from=0, whole_batch=2), 25, 0.35),  # measured: 0.18 of the first loss
    "decoder": (replace(DECODER_TASK, pictures=Fixed(), batch_size=2), 25, 0.2),  # measured: 0.08
    "unet and text": (  # to know the latent is to predict the noise; measured: 0.50
        replace(UNET_TASK, data=ONE_LATENT_A_CAPTION, batch_size=4, time_quantiles=((0.0, 1.0), (300.0, 900.0))), 18, 0.7
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", primitive.MODES)
@pytest.mark.parametrize("name", LEARN)
def test_training_lowers_the_loss(name, mode, tmp_path):
    task, steps, bound = LEARN[name]
    settings = replace(SETTINGS, learning_rate=0.01, decay_from=0.9, weight_decay=0.0)
    held = task.batch(1000)
    with primitive.mode(mode):
        *_, state = go_on(task, tmp_path, steps=steps, save_seconds=1e9, settings=settings)
        before = float(task.loss(tree(task.initial()), held))
        after = float(task.loss(tree(by_name(state.vector, task.initial())), held))
    assert state.vector.dtype == np.float32
    assert len(state.losses) == steps
    assert after < bound * before
    assert np.mean(state.losses[-4:]) < bound * np.mean(state.losses[:2])


def test_the_decoder_alone_learns_from_the_means_of_the_encoder():
    """The loss is that of the pictures of these latents, and only the decoder's weights are there to be changed."""
    task, batch = DECODER_TASK, DECODER_TASK.batch(2)
    given = task.initial()
    assert {key.split(".")[0] for key in given} == {"decoder", "post_quant_conv"}
    whole = tree(dict(task.start))
    means, _ = vae.encode(whole, VAE, batch["images"])
    error = vae.decode(whole, VAE, means) - batch["images"]
    wanted = (batch["pixel_weight"] * (np.abs(error) + 4.0 * error**2)).mean()
    assert float(task.loss(tree(given), batch)) == pytest.approx(float(wanted), rel=1e-5)


def by_name(vector: np.ndarray, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    parts = np.split(vector, np.cumsum([value.size for value in like.values()])[:-1])
    return {key: part.reshape(like[key].shape) for key, part in zip(like, parts, strict=True)}


def test_pictures_are_encoded_in_any_batches():
    params = tree(VAE_TASK.initial())
    images = normal(7, 3, 8, 8)
    whole, _ = vae.encode(params, VAE, images)
    for size in (2, 3, 100):
        np.testing.assert_allclose(encode_pictures(params, VAE, images, batch_size=size), whole, rtol=1e-4, atol=1e-5)
