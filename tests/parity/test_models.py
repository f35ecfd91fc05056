"""The whole networks agree with upstream's on the same weights: float32 within 1e-5, float64 within 1e-12.

diffusers computes its sinusoids in float32 whatever the model's precision; for the float64 comparison alone they are
put in float64 at run time (upstream.exact_sinusoids).
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from refdiff.core.architecture import find
from refdiff.core.params import flatten_declaration
from refdiff.core.primitive import MODES, mode
from refdiff.models import clip_text, unet, vae
from tests.models.examples import CLIPS, UNETS, VAES, normal, random_params, token_ids
from tests.parity import upstream
from tests.parity.upstream import MODEL_BOUND, sinusoids_for, tensor

both = pytest.mark.parametrize("dtype", MODEL_BOUND)
every_mode = pytest.mark.parametrize("kernels", MODES)

UNET_CASES = [
    ("two levels", (9, 6)),
    ("two levels", (8, 16)),
    ("a list of heads", (12, 8)),
    ("a list of heads", (7, 13)),
    ("every level attends", (10, 6)),
    ("every level attends", (5, 9)),
    ("four levels", (16, 24)),
    ("four levels", (17, 11)),
]


@both
@every_mode
@pytest.mark.parametrize(("name", "size"), UNET_CASES)
def test_unet(name, size, kernels, dtype, measure):
    config = unet.UNetConfig.from_dict(UNETS[name])
    params = random_params(unet.declare(config), dtype)
    x = normal(2, config.in_channels, *size, dtype=dtype)
    t, context = np.array([17, 903]), normal(2, 7, 12, dtype=dtype, seed=2)
    with mode(kernels):
        got = unet.unet(params, config, x, t, context)
    with sinusoids_for(dtype):
        want = upstream.unet(UNETS[name], params)(tensor(x), tensor(t), tensor(context)).sample
    label = f"U-Net, {name}, {size[0]}x{size[1]}, {np.dtype(dtype).name}, {kernels}"
    measure(label, got, want, MODEL_BOUND[dtype])


@pytest.mark.parametrize("t", [0, 999, 500.25])
def test_unet_at_one_time_for_all(t, measure):
    config = unet.UNetConfig.from_dict(UNETS["two levels"])
    params = random_params(unet.declare(config), np.float32)
    x, context = normal(2, 4, 8, 6), normal(2, 7, 12, seed=2)
    got = unet.unet(params, config, x, np.array(t), context)
    want = upstream.unet(UNETS["two levels"], params)(tensor(x), torch.tensor(t), tensor(context)).sample
    measure(f"U-Net, two levels, time {t}, float32, spec", got, want, MODEL_BOUND[np.float32])


@both
@every_mode
@pytest.mark.parametrize("name", VAES)
def test_vae(name, kernels, dtype, measure):
    config = vae.VAEConfig.from_dict(VAES[name])
    params = random_params(vae.declare(config), dtype)
    model = upstream.vae(VAES[name], params)
    x, z = normal(2, 3, 20, 28, dtype=dtype), normal(2, config.latent_channels, 5, 7, dtype=dtype)
    with mode(kernels):
        mean, logvar = vae.encode(params, config, x)
        image = vae.decode(params, config, z)
    posterior = model.encode(tensor(x)).latent_dist
    label = f"{name}, {np.dtype(dtype).name}, {kernels}"
    measure(f"VAE mean, {label}", mean, posterior.mean, MODEL_BOUND[dtype])
    measure(f"VAE log variance, {label}", logvar, posterior.logvar, MODEL_BOUND[dtype])
    noise = normal(*mean.shape, dtype=dtype, seed=3)
    drawn = posterior.mean + posterior.std * tensor(noise)
    measure(f"VAE draw, {label}", vae.posterior_sample(mean, logvar, noise), drawn, MODEL_BOUND[dtype])
    measure(f"VAE image, {label}", image, model.decode(tensor(z)).sample, MODEL_BOUND[dtype])


@both
@every_mode
@pytest.mark.parametrize("name", CLIPS)
def test_clip_text(name, kernels, dtype, measure):
    config = clip_text.CLIPTextConfig.from_dict(CLIPS[name])
    params = random_params(clip_text.declare(config), dtype)
    ids = token_ids(11)
    with mode(kernels):
        hidden, pooled = clip_text.clip_text(params, config, ids)
    want = upstream.clip_text(CLIPS[name], params)(tensor(ids))
    label = f"{name}, {np.dtype(dtype).name}, {kernels}"
    measure(f"CLIP tokens, {label}", hidden, want.last_hidden_state, MODEL_BOUND[dtype])
    measure(f"CLIP text, {label}", pooled, want.pooler_output, MODEL_BOUND[dtype])


def test_clip_text_without_an_end_token(measure):
    config = clip_text.CLIPTextConfig.from_dict(CLIPS["gelu"])
    params = random_params(clip_text.declare(config), np.float32)
    ids = np.minimum(token_ids(), 40)
    _, pooled = clip_text.clip_text(params, config, ids)
    want = upstream.clip_text(CLIPS["gelu"], params)(tensor(ids)).pooler_output
    measure("CLIP text without an end token, float32, spec", pooled, want, MODEL_BOUND[np.float32])


SAVED = [
    *(("UNet2DConditionModel", UNet2DConditionModel, unet, upstream.unet, config) for config in UNETS.values()),
    *(("AutoencoderKL", AutoencoderKL, vae, upstream.vae, config) for config in VAES.values()),
    *(("CLIPTextModel", CLIPTextModel, clip_text, upstream.clip_text, config) for config in CLIPS.values()),
]


@pytest.mark.parametrize(("class_name", "kind", "module", "build", "data"), SAVED)
def test_the_config_that_upstream_saves_is_the_one_that_we_read(class_name, kind, module, build, data, tmp_path):
    architecture = find(class_name)
    config = architecture.config_from_dict(data)
    params = random_params(module.declare(config), np.float32)
    build(data, params).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert architecture.config_from_dict(saved) == config


@pytest.mark.parametrize(("class_name", "kind", "module", "build", "data"), SAVED)
def test_the_config_that_we_save_is_the_one_that_upstream_reads(class_name, kind, module, build, data, tmp_path):
    architecture = find(class_name)
    config = architecture.config_from_dict(data)
    (tmp_path / "config.json").write_text(json.dumps(architecture.config_to_dict(config)))
    model = _opened(kind, tmp_path)
    shapes = {key.removeprefix("text_model."): leaf.shape for key, leaf in flatten_declaration(module.declare(config)).items()}
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == shapes


def _opened(kind: type, folder) -> torch.nn.Module:
    """An upstream model made from config.json alone."""
    if kind is CLIPTextModel:
        return CLIPTextModel(CLIPTextModel.config_class.from_pretrained(folder))
    return kind.from_config(kind.load_config(folder))
