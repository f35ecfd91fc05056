"""Weights that stay float16 in memory, and networks that are there only while they work, draw the same pictures."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import refdiff
from refdiff.checkpoints import open_component, save_component
from refdiff.core.params import Params, flatten
from refdiff.errors import BadRequest
from refdiff.kernels.cpu import halves

HOW = {"steps": 2, "width": 32, "height": 24, "seed": 3}
NETWORKS = ("text_encoder", "unet", "vae")


def stored_as(dtype: str, model: Path, folder: Path) -> Path:
    """A model folder with the weights of another in that dtype."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for name in NETWORKS:
        config, params = open_component(model, name)
        save_component(folder, name, config, params, dtype=dtype)
    return folder


@pytest.fixture(scope="module")
def narrow(tiny_folder, tmp_path_factory) -> Path:
    """The tiny model with its weights as float16."""
    return stored_as("float16", tiny_folder, tmp_path_factory.mktemp("narrow") / "model")


@pytest.fixture(scope="module")
def wide(narrow, tmp_path_factory) -> Path:
    """The same numbers stored as float32."""
    return stored_as("float32", narrow, tmp_path_factory.mktemp("wide") / "model")


def dtypes(params: Params) -> set[np.dtype]:
    return {a.dtype for a in flatten(params).values()}


def test_the_bits_are_those_of_float32(narrow, wide):
    want = refdiff.load(wide)("a cat", "a dog", **HOW)
    for pipe in (refdiff.load(narrow), refdiff.load(narrow, low_memory=True), refdiff.load(wide, low_memory=True)):
        got = pipe("a cat", "a dog", **HOW)
        np.testing.assert_array_equal(got.latents, want.latents)
        assert got.images[0].tobytes() == want.images[0].tobytes()


def test_what_stays_float16(narrow):
    half, single = np.dtype(np.float16), np.dtype(np.float32)
    pipe, low = refdiff.load(narrow), refdiff.load(narrow, low_memory=True)
    for component in (pipe.text_encoder, pipe.unet, pipe.vae, low.text_encoder, low.unet, low.vae):
        assert dtypes(component.params) == {half, single}
    embeddings = pipe.text_encoder.params.text_model.embeddings
    assert embeddings.token_embedding.weight.dtype == single  # its rows are read as they are, by no kernel
    for other in ({"kernels": "spec"}, {"dtype": "float64"}):
        for component in (found := refdiff.load(narrow, **other)).vae, found.text_encoder, found.unet:
            assert dtypes(component.params) == {np.dtype(other.get("dtype", "float32"))}


def test_bfloat16_draws_what_weights_rounded_to_it_draw(wide, tmp_path, monkeypatch):
    """On a processor without products of bfloat16; with them, what is multiplied is rounded too."""
    monkeypatch.setattr(halves, "MULTIPLIES", False)
    brain = stored_as("bfloat16", wide, tmp_path / "brain")  # whose numbers are bfloat16's already
    want = refdiff.load(brain)("a cat", **HOW)
    for how in ({}, {"low_memory": True}):
        pipe = refdiff.load(brain, dtype="bfloat16", **how)
        got = pipe("a cat", **HOW)
        np.testing.assert_array_equal(got.latents, want.latents)
        assert (got.recipe["dtype"], got.recipe["products"]) == ("bfloat16", "float32")
        assert got.latents.dtype == np.float32
        assert {dtype.itemsize for dtype in dtypes(pipe.unet.params)} == {2, 4}
    exact = refdiff.load(wide)("a cat", **HOW).latents
    for multiplies in (False, True):
        monkeypatch.setattr(halves, "MULTIPLIES", multiplies)
        out = refdiff.load(wide, dtype="bfloat16")("a cat", **HOW)
        rounded = out.latents
        assert out.recipe["products"] == ("bfloat16" if multiplies else "float32")
        assert 1e-4 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 0.1
        assert np.array_equal(refdiff.load(brain, dtype="bfloat16")("a cat", **HOW).latents, want.latents) != multiplies


def test_bfloat16_is_refused_where_nothing_is_widened(wide):
    with pytest.raises(BadRequest, match="bfloat16 needs the fast kernels"):
        refdiff.load(wide, dtype="bfloat16", kernels="spec")


def test_networks_are_there_only_while_they_work(narrow, monkeypatch):
    pipe, alive, seen = refdiff.load(narrow, low_memory=True), {}, []
    for name in NETWORKS:
        component = getattr(pipe, name)

        def opened(open=component.open, name=name):
            seen.append((name, [other for other, found in alive.items() if found() is not None]))
            params = open()
            alive[name] = weakref.ref(next(iter(flatten(params).values())))
            return params

        object.__setattr__(component, "open", opened)
    pipe("a cat", **HOW)
    assert seen == [("text_encoder", []), ("unet", []), ("vae", [])]
    assert not any(found() is not None for found in alive.values())


@pytest.mark.parametrize("other", [{"kernels": "spec"}, {"dtype": "float64"}])
def test_it_is_refused_where_nothing_is_widened(narrow, other):
    with pytest.raises(BadRequest, match="low memory needs the fast kernels"):
        refdiff.load(narrow, low_memory=True, **other)


def test_the_command_line_draws_the_same(narrow, tmp_path):
    from refdiff.cli import refdiff as command

    files = tmp_path / "plain.png", tmp_path / "low.png"
    for file, more in zip(files, ([], ["--low-memory"]), strict=True):
        call = ["generate", "a cat", "--model", str(narrow), "--steps", "2", "--width", "32", "--height", "24", "-o", str(file)]
        assert CliRunner().invoke(command, [*call, "--quiet", *more]).exit_code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
