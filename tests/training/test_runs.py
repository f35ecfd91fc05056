"""The two trainings from end to end with tiny networks: what they leave behind, stopped or not, and that it opens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refdiff.checkpoints import open_component
from refdiff.core.params import flatten, tree
from refdiff.errors import BadRequest
from refdiff.models import vae
from refdiff.training import recipes, runs
from refdiff.training.curve import HEIGHT, WIDTH, draw_loss_curve
from refdiff.training.loop import STATE_FILE
from refdiff.training.runs import Run, flatten_from, latent_set, shrink
from tests.training.examples import TEXT, UNET, VAE, Blocks

STEPS = 4
VOCABULARY = 10
ALPHAS = np.linspace(0.99, 0.01, 1000, dtype=np.float32)
ENCODE_COUNT = 5


@pytest.fixture(autouse=True, scope="module")
def tiny_recipes():
    changes = {
        "VAE": VAE,
        "VAE_BATCH": {"crop": 8, "crop_batch": 4, "whole_batch": 2},
        "DECODER": {**recipes.DECODER, "batch_size": 2},
        "UNET": UNET,
        "UNET_BATCH": {**recipes.UNET_BATCH, "batch_size": 4},
        "text_config": lambda size: replace(TEXT, vocab_size=size, max_position_embeddings=6, eos_token_id=size - 1),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setattr(recipes, name, value)
        yield


class Few(Blocks):
    """Notes how many pictures were asked for."""

    def __init__(self):
        self.asked: list[int] = []

    def batch(self, rng, count):
        self.asked.append(count)
        return super().batch(rng, min(count, 64))  # the 512 of the latents' deviation would take long


def run_in(folder: Path, **changes) -> Run:
    return replace(Run(folder, STEPS, seed=3, device="cpu", save_seconds=0.0, start=None), **changes)


def weights(folder: Path, name: str) -> dict[str, bytes]:
    return {key: np.asarray(value).tobytes() for key, value in flatten(open_component(folder / "model", name)[1]).items()}


def encode(text: str) -> list[int]:
    words = ["a", "red", "green", "blue", "square"]
    return ([8, *(words.index(word) for word in text.split()), 9] + [9] * 6)[:6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_recipes) -> Path:
    """A run of the autoencoder, left for all tests."""
    path = tmp_path_factory.mktemp("vae")
    list(runs.train_vae(run_in(path), Few()))
    return path


def latents_of(folder: Path, path: Path, pictures: Blocks, **changes):
    return latent_set(
        run_in(path, **changes), pictures, folder / "model", encode=encode, count=ENCODE_COUNT, progress=lambda *_: None
    )


def test_a_decoder_is_trained_and_its_encoder_left_alone(folder, tmp_path):
    *_, last = runs.train_decoder(run_in(tmp_path, start=folder / "model"), Blocks())
    assert last.step == STEPS
    before, after = weights(folder, "vae"), weights(tmp_path, "vae")
    assert list(before) == list(after)
    for key, value in after.items():
        assert (value == before[key]) == (not key.startswith(("decoder", "post_quant_conv"))), key
    assert open_component(tmp_path / "model", "vae")[0] == open_component(folder / "model", "vae")[0]


def test_a_decoder_needs_an_encoder(tmp_path):
    with pytest.raises(BadRequest, match="name its model folder with --start"):
        next(runs.train_decoder(run_in(tmp_path), Blocks()))


def test_the_autoencoder_that_is_left(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["loss.png", "model", "run.json", STATE_FILE]
    config, params = open_component(folder / "model", "vae")
    assert replace(config, scaling_factor=VAE.scaling_factor) == VAE
    images, _, _ = Blocks().batch(np.random.Generator(np.random.Philox(key=[3, 0])), 64)
    means, _ = vae.encode(params, config, images)
    assert config.scaling_factor * means.std() == pytest.approx(1.0, rel=1e-3)
    assert json.loads((folder / "run.json").read_text())["steps"] == STEPS


def test_the_weights_that_are_left_are_the_averaged_ones(folder):
    *_, state = runs.train_vae(run_in(folder), Few())
    assert state.step == STEPS
    left = weights(folder, "vae")
    assert state.average.tobytes() == b"".join(left.values())
    assert state.average.tobytes() != state.vector.tobytes()


def test_an_autoencoder_stopped_and_gone_on_with(folder, tmp_path):
    states = runs.train_vae(run_in(tmp_path, save_seconds=1e9), Few())
    [next(states) for _ in range(3)]
    states.close()
    assert not (tmp_path / "model").exists()
    gone_on = runs.train_vae(run_in(tmp_path), Few())
    assert next(gone_on).step == 2  # nothing is lost
    list(gone_on)
    assert weights(tmp_path, "vae") == weights(folder, "vae")


def test_a_start_from_another_model(folder, tmp_path):
    first = next(runs.train_vae(run_in(tmp_path, start=folder / "model"), Few()))
    assert first.vector.tobytes() == b"".join(weights(folder, "vae").values())
    other = next(runs.train_vae(run_in(tmp_path / "other", seed=4), Few()))
    assert other.vector.tobytes() != first.vector.tobytes()


def test_a_start_of_other_sizes_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "VAE", replace(VAE, block_out_channels=(8, 8)))
    with pytest.raises(BadRequest, match=r"other sizes than the one that is trained \(see encoder\.conv_in\.weight\)"):
        next(runs.train_vae(run_in(tmp_path, start=folder / "model"), Few()))
    monkeypatch.setattr(recipes, "UNET", replace(UNET, in_channels=5))
    with pytest.raises(BadRequest, match="makes 4 channels, 1/2 as wide; the U-Net takes 5"):
        latents_of(folder, tmp_path, Blocks())


def test_damaged_latents_are_refused(folder, tmp_path):
    latents_of(folder, tmp_path, Blocks())
    file = tmp_path / "latents.npz"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(BadRequest, match="latents.npz is damaged .* remove it to make it anew"):
        latents_of(folder, tmp_path, Blocks())


def test_latents_are_made_once(folder, tmp_path):
    pictures, progress = Few(), []
    arguments = {"encode": encode, "count": ENCODE_COUNT, "progress": lambda *a: progress.append(a)}
    made = latent_set(run_in(tmp_path), pictures, folder / "model", **arguments)
    assert (pictures.asked, progress) == ([ENCODE_COUNT], [(ENCODE_COUNT, ENCODE_COUNT)])
    again = latent_set(run_in(tmp_path), pictures, folder / "model", **arguments)
    assert pictures.asked == [ENCODE_COUNT]
    for name in ("latents", "things", "ids", "empty"):
        np.testing.assert_array_equal(getattr(made, name), getattr(again, name))
    images, masks, captions = Blocks().batch(np.random.Generator(np.random.Philox(key=[3, 0])), ENCODE_COUNT)
    config, params = open_component(folder / "model", "vae")
    means, _ = vae.encode(params, config, images)
    np.testing.assert_allclose(made.latents, means * config.scaling_factor, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(made.things, shrink(masks, 2))
    assert made.ids.tolist() == [encode(caption) for caption in captions]
    assert made.empty.tolist() == encode("")


def test_latents_come_in_chunks(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ENCODE_CHUNK", 2)
    pictures, progress = Few(), []
    made = latent_set(
        run_in(tmp_path), pictures, folder / "model", encode=encode, count=5, progress=lambda *a: progress.append(a)
    )
    assert pictures.asked == [2, 2, 1]
    assert progress == [(2, 5), (4, 5), (5, 5)]
    assert len(made.latents) == len(made.things) == len(made.ids) == 5
    assert len(np.unique(made.latents[:, 0, 0, 0])) > 1


def test_masks_shrink_to_shares():
    masks = np.zeros((1, 4, 6), dtype=bool)
    masks[0, 0, 0] = masks[0, 2:, 4:] = True
    np.testing.assert_array_equal(shrink(masks, 2), [[[0.25, 0, 0], [0, 0, 1]]])
    assert shrink(masks, 2).dtype == np.float32


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """The weights of a U-Net's run that was not stopped."""
    path = tmp_path_factory.mktemp("unet")
    data = latents_of(folder, path, Blocks())
    list(runs.train_unet(run_in(path), data, vocabulary=VOCABULARY, alphas_cumprod=ALPHAS))
    return {name: weights(path, name) for name in ("unet", "text_encoder")}


@pytest.mark.parametrize("stop", range(STEPS + 1))
def test_a_unet_stopped_and_gone_on_with(stop, folder, trained, tmp_path):
    data = latents_of(folder, tmp_path, Blocks())

    def states():
        return runs.train_unet(run_in(tmp_path, save_seconds=1e9), data, vocabulary=VOCABULARY, alphas_cumprod=ALPHAS)

    begun = states()
    [next(begun) for _ in range(stop + 1)]
    begun.close()  # the weights so far are a model too, and nothing is lost
    assert (tmp_path / "loss.png").exists() and weights(tmp_path, "unet").keys() == trained["unet"].keys()
    assert next(gone_on := states()).step == stop
    list(gone_on)
    assert {name: weights(tmp_path, name) for name in trained} == trained


def test_parameters_under_a_name():
    params = tree({"unet.conv.weight": np.ones(1), "unet.bias": np.zeros(1), "vae.bias": np.ones(2)})
    assert list(flatten_from(params, "unet")) == ["conv.weight", "bias"]


@pytest.mark.parametrize("losses", [[], [0.7], [0.5, 0.5], [0.0] * 5, list(np.geomspace(3.0, 1e-3, 500))], ids=len)
def test_a_loss_curve_is_a_picture_that_opens(losses, tmp_path):
    draw_loss_curve(losses, tmp_path / "loss.png", title="a loss")
    with Image.open(tmp_path / "loss.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (WIDTH, HEIGHT))
        pixels = np.asarray(image)
    assert (pixels != 255).any()


def test_a_loss_curve_falls_with_the_loss(tmp_path):
    for name, losses in (("down", np.geomspace(3.0, 1e-3, 500)), ("up", np.geomspace(1e-3, 3.0, 500))):
        draw_loss_curve(losses.tolist(), tmp_path / f"{name}.png", title="")
        with Image.open(tmp_path / f"{name}.png") as image:
            rows, columns = np.nonzero((np.asarray(image) == (30, 80, 190)).all(axis=2))
        slope = np.polyfit(columns, rows, 1)[0]  # rows go downwards
        assert (slope > 0.3) if name == "down" else (slope < -0.3)
