"""Parts of different models, each sound by itself, are refused before anything is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from refdiff import load
from refdiff.errors import BadRequest
from refdiff.models.unet import UNetConfig
from refdiff.pipelines.load import _defaults
from refdiff.pipelines.parts import check_parts
from refdiff.text import Tokenizer


@pytest.fixture(scope="module")
def pipe():
    return load()


def configs(pipe, **changes):
    found = {name: getattr(pipe, name).config for name in ("text_encoder", "unet", "vae")}
    return {name: replace(config, **changes.get(name, {})) for name, config in found.items()}


def test_the_embedded_model_goes_together(pipe):
    check_parts(Path("m"), configs(pipe), pipe.tokenizer)


@pytest.mark.parametrize(
    ("part", "option", "words"),
    [
        ("unet", "in_channels", "unet: in_channels is"),
        ("unet", "out_channels", "unet: out_channels is"),
        ("unet", "cross_attention_dim", "text encoder's vectors"),
        ("vae", "latent_channels", "unet: in_channels is"),
        ("text_encoder", "vocab_size", "tokens, but the text encoder"),
        ("text_encoder", "max_position_embeddings", "places, but the text encoder"),
    ],
)
def test_parts_of_other_sizes_are_refused(pipe, part, option, words):
    smaller = getattr(getattr(pipe, part).config, option) - 1
    with pytest.raises(BadRequest, match=words):
        check_parts(Path("m"), configs(pipe, **{part: {option: smaller}}), pipe.tokenizer)


def test_a_part_of_another_class_is_refused(pipe):
    with pytest.raises(BadRequest, match=f"m/unet holds .* {UNetConfig.__name__}"):
        check_parts(Path("m"), {**configs(pipe), "unet": pipe.vae.config}, pipe.tokenizer)


def test_a_tokenizer_of_another_model_is_refused(pipe):
    with pytest.raises(BadRequest, match="m/tokenizer has 49408 tokens"):
        check_parts(Path("m"), configs(pipe), Tokenizer.clip())


@pytest.mark.parametrize(
    "told", ['{"steps": "x"}', '{"steps": true}', '{"guidance": null}', '{"eta": "all"}', '{"eta": false}', '{"example": 5}']
)
def test_what_a_model_says_about_itself_is_of_the_right_kind(told, tmp_path):
    (tmp_path / "refdiff.json").write_text(told)
    with pytest.raises(BadRequest, match="refdiff.json: .* wrong kind: write, for example"):
        _defaults(tmp_path / "refdiff.json")
