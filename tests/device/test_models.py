"""Every network on the simulated device: NumPy's numbers, and nothing crosses while it runs."""

from __future__ import annotations

import numpy as np
import pytest

from refdiff.core.architecture import find, known
from refdiff.core.params import Params, flatten, map_arrays, tree
from refdiff.core.tap import observe
from refdiff.core.tape import value_and_grad
from refdiff.models.clip_text import clip_text
from refdiff.models.unet import unet
from refdiff.models.vae import decode, encode, posterior_sample
from tests.device.compare import assert_same, on_device, run_on_device
from tests.device.simulated import SimulatedArray, count_transfers
from tests.device.tiny import CONTEXT, TEXT, UNET, VAE, parameters

RNG = np.random.default_rng(0)
LATENT = RNG.standard_normal((2, 4, 6, 5)).astype(np.float32)
WORDS = RNG.standard_normal((2, 7, CONTEXT)).astype(np.float32)
IMAGE = RNG.uniform(-1, 1, (2, 3, 8, 12)).astype(np.float32)
IDS = np.array([[48, 3, 7, 7, 49, 49, 49], [48, 49, 49, 49, 49, 49, 49]])
TIMES = np.array([3.0, 981.0], dtype=np.float32)


def params_of(name: str, config: object) -> Params:
    return parameters(find(name).declare(config), seed=1)


CALLS = {
    "unet": ("UNet2DConditionModel", UNET, unet, (LATENT, TIMES, WORDS)),
    "unet at one time": ("UNet2DConditionModel", UNET, unet, (LATENT, np.array(500, np.float32), WORDS)),
    "encode": ("AutoencoderKL", VAE, encode, (IMAGE,)),
    "decode": ("AutoencoderKL", VAE, decode, (LATENT,)),
    "text": ("CLIPTextModel", TEXT, clip_text, (IDS,)),
}


@pytest.mark.parametrize("name", CALLS)
def test_model(name):
    class_name, config, model, inputs = CALLS[name]
    params = params_of(class_name, config)
    there = map_arrays(on_device, params)
    device, crossed = run_on_device(lambda *args: model(there, config, *args), *inputs)
    assert_same(device, model(params, config, *inputs))
    assert crossed.total == 0, crossed.events


def test_every_architecture_is_here():
    assert {class_name for class_name, *_ in CALLS.values()} == set(known())


def test_posterior_sample():
    device, crossed = run_on_device(posterior_sample, LATENT, LATENT * 0.1, LATENT[::-1])
    assert_same(device, posterior_sample(LATENT, LATENT * 0.1, LATENT[::-1]))
    assert crossed.total == 0


def test_gradients_of_all_networks_together():
    classes = {"unet": ("UNet2DConditionModel", UNET), "vae": ("AutoencoderKL", VAE), "text": ("CLIPTextModel", TEXT)}
    params = {f"{part}.{k}": v for part, it in classes.items() for k, v in flatten(params_of(*it)).items()}

    def loss(variables, image, ids, times, noise):
        p = tree(variables)
        mean, logvar = encode(p.vae, VAE, image)
        latent = posterior_sample(mean, logvar, noise)
        context, pooled = clip_text(p.text, TEXT, ids)
        return unet(p.unet, UNET, latent, times, context).mean() + decode(p.vae, VAE, latent).mean() + pooled.mean()

    inputs = (IMAGE, IDS, TIMES, LATENT[:, :, :4].repeat(2, axis=3)[..., :6].copy())
    value, gradients = value_and_grad(loss, params, *inputs)
    (device_value, device_gradients), crossed = run_on_device(
        lambda p, *a: value_and_grad(loss, p, *a), params, *inputs
    )
    assert_same(device_value, np.asarray(value))
    for key, gradient in gradients.items():
        assert type(device_gradients[key]) is SimulatedArray, key
        np.testing.assert_allclose(device_gradients[key].get(), gradient, rtol=1e-3, atol=1e-5, err_msg=key)
    assert crossed.total == 0, crossed.events


def test_taps_show_device_arrays():
    seen = {}
    params = map_arrays(on_device, params_of("UNet2DConditionModel", UNET))
    inputs = on_device((LATENT, TIMES, WORDS))
    with count_transfers() as crossed, observe(lambda name, x: seen.update({name: type(x)})):
        unet(params, UNET, *inputs)
    assert len(seen) > 10 and set(seen.values()) == {SimulatedArray}
    assert crossed.total == 0
