"""docs/one_page.py says in one page what the package does: the same latents, the same picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import refdiff
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.text import Tokenizer
from refdiff.weights_path import weights_dir

PAGE = Path(__file__).parents[2] / "docs" / "one_page.py"


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("one_page", PAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return folder


def test_is_at_most_300_lines():
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= 300


def compare(page, folder, prompt, negative, guidance, size):
    pipe = refdiff.load(folder, kernels="spec")
    noise = np.random.default_rng(3).standard_normal((1, 4, *size)).astype(np.float32)
    f = pipe.downscale
    out = pipe(prompt, negative, steps=5, guidance=guidance, latents=noise, sampler="ddim", height=size[0] * f, width=size[1] * f)
    latents, picture = page.text_to_image(folder, prompt, negative, steps=5, guidance=guidance, noise=noise)
    error = np.linalg.norm(latents - out.latents) / np.linalg.norm(out.latents)
    differing = np.abs(picture.astype(int) - np.asarray(out.images[0]).astype(int))
    return error, differing.max()


@pytest.mark.parametrize(("prompt", "negative"), [("a photo of 2 cats, it's ok!", ""), ("", "blurry"), ("word " * 90, "")])
def test_equals_the_package_on_a_synthetic_checkpoint(page, tiny, prompt, negative):
    error, levels = compare(page, tiny, prompt, negative, 7.5, (9, 6))
    assert error < 1e-5
    assert levels <= 1


def test_equals_the_package_on_the_embedded_model(page):
    error, levels = compare(page, weights_dir() / "embedded", "a small red star above a large blue ring", "", 3.0, (16, 16))
    assert error < 2e-5
    assert levels <= 1
