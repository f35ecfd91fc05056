"""Requests of samplers, steps and strengths: each draws, or says in one line what is wrong, with exit code 2."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

import refdiff
from refdiff import cli
from refdiff.pipelines import image_to_image, text_to_image
from refdiff.samplers.schedulers import FAMILIES


@pytest.fixture(scope="module")
def embedded():
    """The embedded model, read once."""
    return refdiff.load(None, kernels="spec")


@pytest.fixture
def asked(embedded, monkeypatch, tmp_path, capsys):
    """`refdiff generate` with a network that is quick: its exit code and its one line; what it draws must be numbers."""
    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "in.png")

    def pictures(pipe, latents):
        assert np.all(np.isfinite(latents))
        return [Image.new("RGB", (8, 8))]

    monkeypatch.setattr(refdiff, "load", lambda *args, **options: embedded)
    monkeypatch.setattr(text_to_image, "unet", lambda params, config, x, t, context: np.tanh(0.4 * x) + np.float32(0.01))
    monkeypatch.setattr(text_to_image, "encode_text", lambda pipe, texts: np.zeros((len(texts), 1, 1), np.float32))
    monkeypatch.setattr(text_to_image, "pictures", pictures)
    zeros = np.zeros((1, 4, 16, 16), np.float32)
    monkeypatch.setattr(image_to_image, "encode", lambda params, config, x: (zeros, zeros - 5.0))

    def run(*options, image=False):
        more = ["--image", str(tmp_path / "in.png")] if image else []
        fixed = ["generate", "a red circle", "-o", str(tmp_path / "a.png"), "--quiet", "--kernels", "spec"]
        monkeypatch.setattr("sys.argv", ["refdiff", *fixed, *more, *options])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as stopped:
            warnings.simplefilter("error")
            cli.main()
        return stopped.value.code, capsys.readouterr().err

    return run


def one_line(code, said, *parts):
    return code == 2 and said.startswith("refdiff: error: ") and said.count("\n") == 1 and any(part in said for part in parts)


OTHERS = ("is for another kind of model", "is for networks that predict noise", "prediction_type", "give settings")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_sampler_draws_or_says_why_not(name, asked):
    runs = False
    for steps in (1, 2, 20):
        code, said = asked("--sampler", name, "--steps", str(steps))
        assert (code, said) == (0, "") or one_line(code, said, *OTHERS, "too few"), (steps, code, said)
        runs = runs or code == 0
    for steps in (-1, 0, 1001):
        assert one_line(*asked("--sampler", name, "--steps", str(steps)), "steps", *OTHERS)
    for strength, fine in (
        ("1", True),
        ("0.5", True),
        ("0.05", True),
        ("0", False),
        ("1e-9", False),
        ("nan", False),
        ("1.1", False),
    ):
        code, said = asked("--sampler", name, "--steps", "20", "--strength", strength, image=True)
        assert code == 0 if fine and runs else one_line(code, said, "strength", "too few", *OTHERS), (strength, code, said)


@pytest.mark.parametrize(
    "name", ["ddim", "euler", "pndm", "unipc", "k_heun", "k_dpm_fast", "k_restart", "comfyui:dpmpp_2m simple"]
)
@pytest.mark.parametrize("steps", ["999", "1000"])
def test_as_many_steps_as_training_times(name, steps, asked):
    code, said = asked("--sampler", name, "--steps", steps)
    assert (code, said) == (0, "") or one_line(code, said, "take fewer steps")


@pytest.mark.parametrize("steps", ["1.5", "many", "", "1e3", "99999999999"])
def test_steps_that_are_none(steps, asked):
    assert one_line(*asked("--steps", steps), "steps")


@pytest.mark.parametrize("name", ["", "eular", "karras", ":", "comfyui:", "invokeai:euler", "heunpp2", "a" * 200, "Euler Turbo"])
def test_samplers_that_are_none(name, asked):
    assert one_line(*asked("--sampler", name), "sampler")


def test_strength_needs_an_image(asked):
    assert one_line(*asked("--strength", "0.5"), "give an image too")
