"""From a prompt to a picture on the simulated device: NumPy's numbers, and nothing crosses inside the loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import refdiff
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.pipelines.request import make_request
from refdiff.pipelines.text_to_image import Pipeline, text_to_image
from refdiff.text import Tokenizer
from tests.device.simulated import SimulatedArray, count_transfers

OPTIONS = {"steps": 3, "guidance": 5.0, "seed": 4, "width": 24, "height": 16}
PICTURE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
PROMPTS = ["a red circle", "a photograph of a cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("device") / "tiny"
    write_synthetic("tiny", path, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return path


@pytest.fixture(scope="module")
def pipes(folder: Path) -> dict[str, Pipeline]:
    return {device: refdiff.load(folder, device=device, kernels="spec") for device in ("cpu", "simulated")}


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "ddim"},
        {"sampler": "ddim", "eta": 1.0, "rng": "numpy"},
        {"sampler": "euler"},
        {"sampler": "pndm"},
        {"sampler": "euler", "guidance": 1.0},
        {"sampler": "euler", "image": PICTURE, "strength": 0.7},
    ],
    ids=lambda options: ", ".join(options),
)
def test_draws_the_same_pictures(pipes, options):
    host, device = (pipes[name](PROMPTS, **{**OPTIONS, **options}) for name in ("cpu", "simulated"))
    assert type(device.latents) is np.ndarray
    np.testing.assert_allclose(device.latents, host.latents, rtol=0, atol=1e-4 * np.abs(host.latents).max())
    for ours, theirs in zip(device.images, host.images, strict=True):
        assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1
    assert (host.recipe["device"], device.recipe["device"]) == ("cpu", "simulated")


@pytest.mark.parametrize("sampler", ["ddim", "euler", "pndm"])
def test_nothing_crosses_inside_the_loop(pipes, sampler):
    request = make_request(pipes["simulated"], PROMPTS, "", {**OPTIONS, "sampler": sampler})
    with count_transfers() as before:
        steps = text_to_image(pipes["simulated"], request)
        first = next(steps)
    assert type(first.x) is SimulatedArray and type(first.denoised) is SimulatedArray
    assert (before.to_device, before.to_host) == (2, 0), before.events  # the ids and the noise
    with count_transfers() as inside:
        last = list(steps)[-1]
    assert last.index == OPTIONS["steps"] - 1
    assert inside.total == 0, inside.events


def test_a_call_brings_back_the_latents_and_the_pictures_alone(pipes):
    with count_transfers() as crossed:
        pipes["simulated"](PROMPTS, **OPTIONS)
    assert crossed.to_host == 1 + len(PROMPTS), crossed.events


def test_a_host_array_among_the_weights_is_noticed(pipes):
    """What the simulation is for: a pipeline that left one component on the host."""
    mixed = replace(pipes["simulated"], vae=pipes["cpu"].vae)
    with pytest.raises(TypeError, match="Unsupported type|not allowed|wants a device array"):
        mixed(PROMPTS, **OPTIONS)
