"""Folders that go between refdiff, diffusers and transformers: what one writes the others open, value for value."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from refdiff.checkpoints import open_component, read_safetensors, save_component
from refdiff.checkpoints.configurations import KINDS
from refdiff.checkpoints.inspect import inspect
from refdiff.checkpoints.synthetic import write_synthetic
from refdiff.core.params import flatten
from refdiff.text import Tokenizer

CLASSES = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity") / "tiny"
    write_synthetic("tiny", folder, seed=0, dtype="float32", write_tokenizer=Tokenizer.clip().write_folder)
    return folder


def opened_upstream(folder, name, **options):
    """The component in diffusers or transformers, which must find every key and no other."""
    model, info = CLASSES[name].from_pretrained(folder / name, output_loading_info=True, **options)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    return model


def upstream_weights(model) -> dict[str, np.ndarray]:
    """The weights under our names."""
    prefix = "text_model." if isinstance(model, CLIPTextModel) else ""
    return {prefix + key: value.float().numpy() for key, value in model.state_dict().items()}


def assert_same(params, model):
    ours, theirs = flatten(params), upstream_weights(model)
    assert sorted(ours) == sorted(theirs)
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=key)


@pytest.mark.parametrize("name", CLASSES)
def test_upstream_opens_every_component_that_we_write(tiny, name):
    assert_same(open_component(tiny, name)[1], opened_upstream(tiny, name, torch_dtype=torch.float32))


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("name", CLASSES)
def test_upstream_opens_what_we_save_in_any_dtype(tiny, tmp_path, name, dtype):
    config, params = open_component(tiny, name)
    save_component(tmp_path, name, config, params, dtype=dtype)
    model = opened_upstream(tmp_path, name, torch_dtype=TORCH_DTYPES[dtype])
    assert next(model.parameters()).dtype == TORCH_DTYPES[dtype]
    assert_same(open_component(tmp_path, name)[1], model)
    original = opened_upstream(tiny, name, torch_dtype=TORCH_DTYPES[dtype])  # torch's own rounding
    saved = upstream_weights(model)
    for key, value in upstream_weights(original).items():
        np.testing.assert_array_equal(saved[key], value, err_msg=key)


@pytest.mark.parametrize(
    "options",
    [{}, {"max_shard_size": "400KB"}, {"variant": "fp16"}, {"max_shard_size": "400KB", "variant": "fp16"}],
    ids=str,
)
@pytest.mark.parametrize("dtype", TORCH_DTYPES)
@pytest.mark.parametrize("name", CLASSES)
def test_we_open_what_upstream_saves(tiny, tmp_path, name, dtype, options):
    model = opened_upstream(tiny, name, torch_dtype=TORCH_DTYPES[dtype])
    model.save_pretrained(tmp_path / name, **options)
    if "max_shard_size" in options:
        assert len(list((tmp_path / name).glob("*.index.*json"))) == 1
        assert len(list((tmp_path / name).glob("*.safetensors"))) > 1
    config, params = open_component(tmp_path, name)
    assert config == open_component(tiny, name)[0]
    assert_same(params, model)
    assert inspect(tmp_path / name).problems == ()


def test_transformers_opens_both_spellings_of_the_keys_and_writes_the_bare_one(tiny, tmp_path):
    loaded = opened_upstream(tiny, "text_encoder")  # would be written as it was read
    fresh = CLIPTextModel(loaded.config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(tmp_path / "text_encoder")
    bare = read_safetensors(tmp_path / "text_encoder" / "model.safetensors")
    assert all(not key.startswith("text_model.") for key in bare)
    assert_same(open_component(tmp_path, "text_encoder")[1], opened_upstream(tmp_path, "text_encoder"))


@pytest.mark.parametrize("heads", [8, [4, 8]])
def test_we_open_a_fresh_unet_of_diffusers(tmp_path, heads):
    options = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "cross_attention_dim": 16,
        "attention_head_dim": heads,
        "sample_size": 8,
    }
    model = UNet2DConditionModel(**options)
    model.save_pretrained(tmp_path / "unet")  # its config.json writes out every option that upstream has
    assert_same(open_component(tmp_path, "unet")[1], model)


def test_we_open_a_fresh_autoencoder_and_text_encoder(tmp_path):
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
    )
    vae.save_pretrained(tmp_path / "vae")
    assert_same(open_component(tmp_path, "vae")[1], vae)
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=99, hidden_size=16, num_attention_heads=2, num_hidden_layers=2, eos_token_id=98)
    )
    text.save_pretrained(tmp_path / "text_encoder")
    assert_same(open_component(tmp_path, "text_encoder")[1], text)


def test_diffusers_opens_the_whole_synthetic_folder(tiny):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny)
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.scheduler, DDIMScheduler) and isinstance(pipeline.tokenizer, CLIPTokenizer)
    assert pipeline.safety_checker is None and pipeline.feature_extractor is None
    for name in CLASSES:
        assert_same(open_component(tiny, name)[1], getattr(pipeline, name).float())
    latents = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32))
    out = pipeline("a red circle", num_inference_steps=3, latents=latents, output_type="np").images
    assert out.shape == (1, 64, 64, 3) and np.isfinite(out).all() and out.std() > 0.05


def test_diffusers_finds_its_own_configuration_in_ours(tiny):
    assert DDIMScheduler.from_pretrained(tiny, subfolder="scheduler").config.steps_offset == 1
    assert CLIPTokenizer.from_pretrained(tiny / "tokenizer").vocab_size == 49408
    for name in ("unet", "vae"):
        config = opened_upstream(tiny, name).config
        for option, value in KINDS["tiny"][name].items():
            if not option.startswith("_"):
                assert json.loads(json.dumps(config[option])) == value, option
